"""``crystalvae train-stability``: train a stability network as a TOML file says."""

from __future__ import annotations

import argparse

from crystalvae.cli.options import add_machine_options, add_run_options
from crystalvae.cli.runs import train_beside


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "train-stability",
        help="train a network that estimates energies above the hull",
    )
    add_run_options(parser)
    add_machine_options(parser, "device", "progress")


def run(args: argparse.Namespace) -> int:
    """Train."""
    from crystalvae.training.stability import StabilityRun, StabilityTrainer

    return train_beside(args, StabilityRun, StabilityTrainer, "network")
