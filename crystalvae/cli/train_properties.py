"""``crystalvae train-properties``: train a property network as a TOML file says."""

from __future__ import annotations

import argparse

from crystalvae.cli.options import add_machine_options, add_run_options


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
    from crystalvae.config import read_toml
    from crystalvae.training.properties import PropertyRun, PropertyTrainer

    config = read_toml(PropertyRun, args.config, args.set)
    trainer = PropertyTrainer(config, args.config.parent, args.output, args.device)
    best = trainer.fit(progress=args.progress, resume=args.resume)
    print(f"best network in {best}; copy its files into the directory of a model")
    return 0
