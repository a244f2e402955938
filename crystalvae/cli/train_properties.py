"""``crystalvae train-properties``: train a property network as a TOML file says."""

from __future__ import annotations

import argparse

from crystalvae.cli.options import add_machine_options, add_run_options
from crystalvae.cli.runs import train_beside


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "train-properties",
        help="train a network that estimates properties such as band gaps",
    )
    add_run_options(parser)
    add_machine_options(parser, "device", "progress")


def run(args: argparse.Namespace) -> int:
    """Train."""
    from crystalvae.training.properties import PropertyRun, PropertyTrainer

    return train_beside(args, PropertyRun, PropertyTrainer, "network")
