"""``crystalvae prepare``: from structures to a packed data set."""

from __future__ import annotations

import argparse
from pathlib import Path

from crystalvae.cli.options import add_machine_options


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "prepare", help="convert structures to a data set for training"
    )
    parser.add_argument(
        "input",
        help="folder, zip or tar of CIF/POSCAR, CSV with a cif column, extxyz, ASE "
        "database (file or postgresql:// URL) or pymatgen JSON",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="data set")
    parser.add_argument(
        "--symprec", type=float, default=0.1, help="symmetry tolerance, Å (%(default)s)"
    )
    parser.add_argument("--max-atoms", type=int, help="refuse larger primitive cells")
    parser.add_argument(
        "--properties",
        type=Path,
        metavar="CSV",
        help="numbers of the structures: the first column has names of files, as in "
        "CGCNN's id_prop.csv, the others are properties",
    )
    parser.add_argument(
        "--hold-out",
        type=float,
        metavar="SHARE",
        help="of the crystals, in whole formulas, that go to a data set of their own, "
        "OUTPUT_val, to validate with",
    )
    parser.add_argument("--scheduler", help="Dask scheduler, tcp://host:port")
    add_machine_options(parser, "workers", "progress")


def run(args: argparse.Namespace) -> int:
    """Prepare."""
    from crystalvae.data.packed import require_free
    from crystalvae.data.prepare import prepare
    from crystalvae.training.split import held_out_path, require_share, split

    if args.hold_out is not None:
        require_share(args.hold_out)
        require_free(held_out_path(args.output))
    report = prepare(
        args.input,
        args.output,
        num_workers=args.workers,
        scheduler=args.scheduler,
        symprec=args.symprec,
        max_atoms=args.max_atoms,
        properties=args.properties,
        progress=args.progress,
    )
    print(
        f"{report.converted} of {report.total} structures in {args.output}, "
        f"{len(report.refused)} refused (see {args.output / 'refused.csv'}), "
        f"{report.total / max(report.seconds, 1e-9):.0f}/s"
    )
    for reason, count in report.reasons.items():
        print(f"  {count} refused: {reason}")
    for name, known in report.known.items():
        print(f"  {known} of {report.converted} crystals have a value of {name}")
    if args.hold_out is not None:
        left, held = split(args.output, args.hold_out)
        print(
            f"{left} stay in {args.output}, {held} are in {held_out_path(args.output)}"
        )
    return 0
