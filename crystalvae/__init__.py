"""CrystalVAE: learn, generate and screen crystals.

Conventions, stated once:

- Rows of ``lattice`` are the lattice vectors **a**, **b**, **c** in Å, and
  ``cart_coords = frac_coords @ lattice``. Energies are in eV; degrees only at the
  user's edge.
- A stored conventional lattice is the Cholesky factor of its metric tensor: lower
  triangular with a positive diagonal, hence right-handed with positive volume.
- Space groups are in the settings of the International Tables with origin choice 2,
  unique axis b, hexagonal axes for rhombohedral groups.
- Wyckoff letters are indices, ``0`` for a to ``26`` for A.
- Shapes in docstrings: ``B`` crystals, ``S`` sites (orbits) of a crystal, ``N``
  orbits in a whole batch, ``K`` neighbours of an orbit, ``C`` elements of a
  composition, ``D`` latent dimensions, ``H`` hidden dimensions.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

try:
    __version__ = version("crystalvae")
except PackageNotFoundError:
    __version__ = "0+unknown"

_LAZY = {
    "AsymmetricUnit": "crystalvae.crystal",
    "CrystalVAE": "crystalvae.model",
    "standardize": "crystalvae.symmetry.standardize",
    "read_structures": "crystalvae.data.readers",
}

__all__ = ["AsymmetricUnit", "CrystalVAE", "read_structures", "standardize"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'crystalvae' has no attribute {name!r}")
