"""``crystalvae substitute``: unlisted relatives of known crystals, to train with."""

from __future__ import annotations

import argparse
from pathlib import Path

from crystalvae.cli.options import add_machine_options, at_least, seed


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "substitute",
        help="exchange elements of known crystals, for more to train with",
    )
    parser.add_argument("data", type=Path, help="data set made by prepare")
    parser.add_argument("-o", "--output", type=Path, required=True, help="data set")
    parser.add_argument(
        "-n", type=at_least(1), help="crystals at most (four times as many as known)"
    )
    parser.add_argument(
        "--seed", type=seed, default=0, help="any integer (%(default)s)"
    )
    add_machine_options(parser, "workers", "progress")


def run(args: argparse.Namespace) -> int:
    """Substitute and write."""
    from tqdm import tqdm

    from crystalvae.data.packed import MANIFEST, PackedDataset, write_packed
    from crystalvae.design.substitute import substitute
    from crystalvae.errors import DataError

    known = PackedDataset(args.data)
    if args.output.resolve() == args.data.resolve():
        raise DataError(f"{args.output} is the data set itself; choose another name")
    if args.output.exists() and not (args.output / MANIFEST).exists():
        raise DataError(f"{args.output} exists and is no data set; choose another name")
    num = args.n or 4 * len(known)
    disable = None if args.progress else True
    with tqdm(total=num, unit="crystal", disable=disable) as bar:
        arrays, exchanges = substitute(
            known,
            num,
            seed=args.seed,
            num_workers=args.workers,
            advance=bar.update,
        )
    info = {"source": args.data.name, "options": {"num": num, "seed": args.seed}}
    names = [f"{known.material_ids[e.row]}-{e.old}-{e.new}" for e in exchanges]
    write_packed(args.output, arrays, names, {}, info)
    parents = len({exchange.row for exchange in exchanges})
    print(
        f"{len(exchanges)} crystals in {args.output}, each one element away from a "
        f"known one ({parents} of {len(known)} took part)"
    )
    return 0
