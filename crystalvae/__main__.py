"""``python -m crystalvae``."""

import sys

from crystalvae.cli import main

if __name__ == "__main__":
    sys.exit(main())
