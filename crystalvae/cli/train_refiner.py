"""``crystalvae train-refiner``: train a refiner as a TOML file says."""

from __future__ import annotations

import argparse

from crystalvae.cli.options import add_machine_options, add_run_options


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "train-refiner", help="train a network that refines what a model generates"
    )
    add_run_options(parser)
    add_machine_options(parser, "device", "progress")


def run(args: argparse.Namespace) -> int:
    """Train."""
    from crystalvae.config import read_toml
    from crystalvae.training.refiner import RefinerRun, RefinerTrainer

    config = read_toml(RefinerRun, args.config, args.set)
    trainer = RefinerTrainer(config, args.config.parent, args.output, args.device)
    best = trainer.fit(progress=args.progress, resume=args.resume)
    print(f"best refiner in {best}; copy its files into the directory of a model")
    return 0
