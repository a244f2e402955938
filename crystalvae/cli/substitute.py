"""``crystalvae substitute``: unlisted relatives of known crystals, to train with."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from crystalvae.cli.options import add_machine_options, at_least, seed

if TYPE_CHECKING:
    import numpy as np

    from crystalvae.data.packed import PackedDataset
    from crystalvae.model import CrystalVAE

MAKER = "substitute"


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "substitute",
        help="exchange elements of known crystals, for more to train with",
    )
    parser.add_argument("data", type=Path, help="data set made by prepare")
    parser.add_argument("-o", "--output", type=Path, required=True, help="data set")
    parser.add_argument(
        "-n",
        type=at_least(1),
        help="crystals at most (four times as many as known, at most 500,000)",
    )
    parser.add_argument(
        "--seed", type=seed, default=0, help="any integer (%(default)s)"
    )
    parser.add_argument(
        "--estimate",
        metavar="MODEL",
        help="add what this model's networks say of each crystal as properties; a "
        "training can choose by them (at_most = { e_above_hull_estimate = 0.1 })",
    )
    add_machine_options(parser, "device", "workers", "progress")


def run(args: argparse.Namespace) -> int:
    """Substitute and write."""
    from tqdm import tqdm

    from crystalvae.data.packed import PackedDataset, require_place, write_packed
    from crystalvae.design.substitute import substitute

    known = PackedDataset(args.data)
    require_place(args.output, MAKER)
    judge = None
    if args.estimate is not None:
        from crystalvae.design.estimates import require_estimates
        from crystalvae.model import CrystalVAE

        judge = CrystalVAE.from_pretrained(args.estimate, device=args.device)
        require_estimates(judge)
    num = args.n or min(4 * len(known), 500_000)
    disable = None if args.progress else True
    with tqdm(total=num, unit="crystal", disable=disable) as bar:
        arrays, exchanges = substitute(
            known,
            num,
            seed=args.seed,
            num_workers=args.workers,
            advance=bar.update,
        )
    info = {
        "made_by": MAKER,
        "source": args.data.name,
        "options": {"num": num, "seed": args.seed, "estimate": args.estimate},
    }
    names = [f"{known.material_ids[e.row]}-{e.old}-{e.new}" for e in exchanges]
    columns = {}
    if judge is not None:
        unjudged = args.output.with_name(args.output.name + ".unjudged")
        try:
            write_packed(unjudged, arrays, names, {})
            columns = _estimates(judge, PackedDataset(unjudged), args.workers)
        finally:
            shutil.rmtree(unjudged, ignore_errors=True)
    write_packed(args.output, arrays, names, columns, info)
    parents = len({exchange.row for exchange in exchanges})
    print(
        f"{len(exchanges)} crystals in {args.output}, each one element away from a "
        f"known one ({parents} of {len(known)} took part)"
    )
    return 0


def _estimates(
    judge: CrystalVAE, crystals: PackedDataset, workers: int | None
) -> dict[str, np.ndarray]:
    """Columns of what the networks beside a model say, NaN where they say nothing."""
    import numpy as np

    from crystalvae.design.estimates import estimate_columns

    rows = estimate_columns(judge, list(crystals), num_workers=workers)
    names = sorted({name for row in rows for name in row})
    return {
        name: np.array([row.get(name, np.nan) for row in rows], float) for name in names
    }
