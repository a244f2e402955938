"""``crystalvae tradeoff``: turn β and see what is kept and what is lost."""

from __future__ import annotations

import argparse
from pathlib import Path

from crystalvae.cli.options import add_machine_options, at_least, seed
from crystalvae.files import shown


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "tradeoff", help="rate-distortion curve and validity over a model's β"
    )
    parser.add_argument("model", help="shipped name or directory of a model")
    parser.add_argument("input", help="held-out structures, prepared or as for prepare")
    parser.add_argument("-o", "--output", type=Path, required=True, help="directory")
    parser.add_argument(
        "-n", type=at_least(2), default=500, help="random structures used (%(default)s)"
    )
    parser.add_argument(
        "--points", type=int, default=8, help="values of β (%(default)s)"
    )
    parser.add_argument(
        "--draws",
        type=at_least(0),
        default=200,
        help="crystals drawn at each (%(default)s)",
    )
    parser.add_argument(
        "--seed", type=seed, default=0, help="any integer (%(default)s)"
    )
    add_machine_options(parser, "device", "progress")


def run(args: argparse.Namespace) -> int:
    """Measure, plot and write."""
    from tqdm import tqdm

    from crystalvae.data.load import usable_crystals
    from crystalvae.design.output import open_directory, write_table
    from crystalvae.design.tradeoff import plot_tradeoff, tradeoff
    from crystalvae.errors import ConfigError, DataError
    from crystalvae.model import CrystalVAE

    if args.points < 2:
        raise ConfigError("--points must be at least 2")
    model = CrystalVAE.from_pretrained(args.model, device=args.device)
    limits = model.config.decoder
    crystals = [
        crystal
        for crystal in usable_crystals(args.input, args.n, args.seed)
        if limits.fits(len(crystal.wyckoffs), crystal.composition)
    ]
    if not crystals:
        raise DataError(f"{shown(args.input)} holds nothing that {args.model} can emit")
    directory = open_directory(args.output)
    disable = None if args.progress else True
    with tqdm(total=args.points, unit="β", disable=disable) as bar:
        rows = tradeoff(
            model,
            crystals,
            points=args.points,
            num_draws=args.draws,
            seed=args.seed,
            advance=bar.update,
        )
    rows = [{name: round(v, 5) for name, v in row.items()} for row in rows]
    write_table(directory / "tradeoff.csv", rows)
    plot_tradeoff(rows, directory / "tradeoff.png")
    print("    beta     rate  distortion  units  composition  group  sites  valid")
    for row in rows:
        print(
            f"{row['beta']:8.4f} {row['rate']:8.1f} {row['distortion']:11.2f} "
            f"{row['active_units']:6d} {row['composition_right']:12.3f} "
            f"{row['group_right']:6.3f} {row['sites_right']:6.3f} "
            f"{row.get('valid', float('nan')):6.3f}"
        )
    print(f"table and plot in {directory}")
    return 0
