"""``crystalvae train-refiner``: train a refiner as a TOML file says."""

from __future__ import annotations

import argparse

from crystalvae.cli.options import add_machine_options, add_run_options
from crystalvae.cli.runs import train_beside


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "train-refiner", help="train a network that refines what a model generates"
    )
    add_run_options(parser)
    add_machine_options(parser, "device", "progress")


def run(args: argparse.Namespace) -> int:
    """Train."""
    from crystalvae.training.refiner import RefinerRun, RefinerTrainer

    return train_beside(args, RefinerRun, RefinerTrainer, "refiner")
