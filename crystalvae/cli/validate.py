"""``crystalvae validate``: run the checks on any structures."""

from __future__ import annotations

import argparse
from pathlib import Path

from crystalvae.cli.options import add_machine_options
from crystalvae.files import shown


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the verb."""
    parser = subparsers.add_parser("validate", help="check structures for plausibility")
    parser.add_argument("input", help="structures, as for prepare")
    parser.add_argument("-o", "--output", type=Path, required=True, help="directory")
    add_machine_options(parser, "workers", "progress")


def run(args: argparse.Namespace) -> int:
    """Check and write."""
    import json

    from crystalvae.design.output import open_directory, write_table, write_text
    from crystalvae.screening.engine import screen_input, summarize

    directory = open_directory(args.output)
    records = screen_input(args.input, num_workers=args.workers, progress=args.progress)
    rows = [record.row() for record in records]
    summary = {"input": shown(args.input), **summarize(records)}
    write_table(directory / "table.csv", rows)
    write_text(directory / "summary.json", json.dumps(summary, indent=1) + "\n")
    only_smact = sum(record.failures() == ["smact"] for record in records)
    print(
        f"{summary['passed']} of {summary['structures']} pass all checks "
        f"({only_smact} more fail none but smact, which sample and screen leave out), "
        f"{summary['unreadable']} unreadable; table in {directory}"
    )
    for name, counts in summary["checks"].items():
        print(
            f"  {name:9s} passed {counts['passed']:6d}  failed {counts['failed']:6d}  "
            f"not computed {counts['not_computed']:6d}"
        )
    return 0
