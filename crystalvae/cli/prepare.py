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
    parser.add_argument("--scheduler", help="Dask scheduler, tcp://host:port")
    add_machine_options(parser, "workers", "progress")


def run(args: argparse.Namespace) -> int:
    """Prepare."""
    from crystalvae.data.prepare import prepare

    report = prepare(
        args.input,
        args.output,
        num_workers=args.workers,
        scheduler=args.scheduler,
        symprec=args.symprec,
        max_atoms=args.max_atoms,
        progress=args.progress,
    )
    print(
        f"{report.converted} of {report.total} structures in {args.output}, "
        f"{len(report.refused)} refused (see {args.output / 'refused.csv'}), "
        f"{report.total / max(report.seconds, 1e-9):.0f}/s"
    )
    for reason, count in report.reasons.items():
        print(f"  {count} refused: {reason}")
    return 0
