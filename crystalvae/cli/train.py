"""``crystalvae train``: train a model as a TOML file says."""

from __future__ import annotations

import argparse

from crystalvae.cli.options import add_machine_options, add_run_options


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the verb."""
    parser = subparsers.add_parser("train", help="train a model from a config")
    add_run_options(parser)
    parser.add_argument(
        "--device",
        "--accelerator",
        dest="accelerator",
        default="auto",
        choices=("auto", "cpu", "cuda", "mps"),
        help="where to train; auto is cuda if there is one, else cpu (%(default)s)",
    )
    add_machine_options(parser, "progress")


def run(args: argparse.Namespace) -> int:
    """Train."""
    import warnings

    from crystalvae.config import read_toml
    from crystalvae.training.config import RunConfig
    from crystalvae.training.trainer import Trainer

    warnings.filterwarnings("ignore", module="lightning_fabric")
    config = read_toml(RunConfig, args.config, args.set)
    trainer = Trainer(config, args.config.parent, args.output, args.accelerator)
    best = trainer.fit(progress=args.progress, resume=args.resume)
    progress = trainer.progress
    print(
        f"best model in {best}, that of step {progress.best_step} of {progress.step}: "
        f"validation loss {progress.best:.2f}"
    )
    return 0
