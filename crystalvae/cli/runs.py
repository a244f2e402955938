"""What the verbs share that train networks beside a model."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from crystalvae.training.network import NetworkTrainer


def train_beside(
    args: argparse.Namespace, run: type, trainer: type[NetworkTrainer], what: str
) -> int:
    """Train a network as a TOML file says, and print where it is.

    Args:
        args: of the verb.
        run: class of the config.
        trainer: made of such a config.
        what: what to call the network.
    """
    from crystalvae.config import read_toml

    config = read_toml(run, args.config, args.set)
    made = trainer(config, args.config.parent, args.output, args.device)
    best = made.fit(progress=args.progress, resume=args.resume)
    print(f"best {what} in {best}; copy its files into the directory of a model")
    return 0
