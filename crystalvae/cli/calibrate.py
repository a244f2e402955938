"""``crystalvae calibrate``: let draws have a data set's mean mass or elements."""

from __future__ import annotations

import argparse
from pathlib import Path

from crystalvae.cli.options import add_machine_options, at_least, seed


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "calibrate",
        help="fit an element bias: draws with the mean atomic mass of a data set",
    )
    parser.add_argument("model", help="shipped name or directory")
    parser.add_argument(
        "data", type=Path, help="prepared data set, such as that of the training"
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help="directory of the new model"
    )
    parser.add_argument(
        "--match",
        choices=("mass", "elements"),
        default="mass",
        help="the mean atomic mass, which costs no validity, or the share of each "
        "element (%(default)s)",
    )
    parser.add_argument("--rounds", type=at_least(1), default=12, help="(%(default)s)")
    parser.add_argument(
        "-n", type=at_least(1000), default=16384, help="draws a round (%(default)s)"
    )
    parser.add_argument("--seed", type=seed, default=0, help="(%(default)s)")
    add_machine_options(parser, "device", "progress")


def run(args: argparse.Namespace) -> int:
    """Calibrate."""
    from crystalvae.data.packed import PackedDataset
    from crystalvae.design.settings import sampling_defaults, sampling_options
    from crystalvae.errors import ConfigError
    from crystalvae.model import CrystalVAE
    from crystalvae.training.calibrate import calibrate_elements, element_shares

    if args.output.exists():
        raise ConfigError(f"{args.output} exists; name a new directory")
    model = CrystalVAE.from_pretrained(args.model, args.device)
    crystals = PackedDataset(args.data)
    how = sampling_defaults(model)
    bias = calibrate_elements(
        model,
        element_shares(crystal.composition for crystal in crystals),
        beta=how["beta"],
        options=sampling_options(model, how),
        conditions=how["conditions"],
        match=args.match,
        rounds=args.rounds,
        num=args.n,
        seed=args.seed,
        progress=args.progress,
    )
    model.card["sampling"] = {**model.card.get("sampling", {}), "element_bias": bias}
    model.save_pretrained(args.output)
    print(f"calibrated model in {args.output}")
    return 0
