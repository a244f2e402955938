"""``crystalvae match``: predicted or reconstructed structures against known ones."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from crystalvae.cli.options import add_machine_options, add_polymorphs_option
from crystalvae.files import shown

if TYPE_CHECKING:
    from crystalvae.data.readers.base import Entry


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "match",
        help="match rate and RMSE of any structures against known ones",
    )
    parser.add_argument(
        "input",
        help="predictions, as for prepare, each named after its reference: ID, or for "
        "several ID_0, ID_1, ...",
    )
    parser.add_argument("reference", help="known structures, as for prepare")
    parser.add_argument("-o", "--output", type=Path, required=True, help="directory")
    add_polymorphs_option(parser)
    add_machine_options(parser, "workers")


def run(args: argparse.Namespace) -> int:
    """Compare and write."""
    import json

    from crystalvae.benchmark.generation import benchmark_valid
    from crystalvae.benchmark.matching import MATCHER
    from crystalvae.benchmark.prediction import compare
    from crystalvae.data.load import crystal_of, read_entries
    from crystalvae.design.output import open_directory, write_table, write_text
    from crystalvae.errors import DataError, InvalidStructureError

    known = read_entries(args.reference)
    usable = [entry for entry in known if entry.error is None]
    if not usable:
        raise DataError(f"{shown(args.reference)} holds no structure to compare with")
    predictions = read_entries(args.input)
    found, strange = paired(predictions, [entry.material_id for entry in known])
    if not found:
        raise DataError(
            f"no structure of {shown(args.input)} is named after one of "
            f"{shown(args.reference)}; name them ID, or ID_0, ID_1, ... if there are "
            "several"
        )
    directory = open_directory(args.output)
    own = [found.get(entry.material_id, []) for entry in usable]
    most = max(1, *map(len, own))
    draws = [
        [None if entry.error else entry.structure for entry in entries]
        + [None] * (most - len(entries))
        for entries in own
    ]
    comparison = compare(
        draws,
        [entry.structure for entry in usable],
        unusable=len(known) - len(usable),
        polymorphs=args.polymorphs,
        num_workers=args.workers,
    )

    def valid(entries: list[Entry]) -> bool:
        try:
            return bool(entries) and benchmark_valid(crystal_of(entries[0]))
        except InvalidStructureError:
            return False

    rows = []
    for entry, entries, row in zip(usable, own, comparison.rows):
        name = {"material_id": entry.material_id, "predictions": len(entries)}
        rows.append({**name, **row, "first_valid": valid(entries)})
    good = sum(row["first_valid"] and row["first_rmse"] != "" for row in rows)
    first = comparison.metrics["first"]
    first["match_rate_valid"] = good / len(known)
    broken = [e for entries in own for e in entries if e.error is not None]
    summary = {
        "input": shown(args.input),
        "reference": shown(args.reference),
        "structures": len(known),
        "unusable_references": len(known) - len(usable),
        "without_prediction": sum(not entries for entries in own),
        "predictions": len(predictions),
        "unreadable_predictions": len(broken),
        "of_no_reference": len(strange),
        **comparison.metrics,
        "matcher": MATCHER,
    }
    write_table(directory / "table.csv", rows)
    write_text(directory / "summary.json", json.dumps(summary, indent=1) + "\n")
    for name, metrics in comparison.metrics.items():
        print(f"{name}: " + ", ".join(f"{k} {v}" for k, v in metrics.items()))
    return 0


def paired(
    predictions: Iterable[Entry], names: Iterable[str]
) -> tuple[dict[str, list[Entry]], list[Entry]]:
    """Predictions by the reference that they are named after, in their order.

    Args:
        predictions: entries named ID or ID_NUMBER.
        names: the references' IDs; an exact one goes before one with a number.

    Returns:
        ID → predictions, and those of no reference.
    """
    known = set(names)
    numbered: dict[str, list[tuple[int, Entry]]] = {}
    strange = []
    for entry in predictions:
        name, number = entry.material_id, 0
        split = re.fullmatch(r"(.+)_(\d+)", name)
        if name not in known and split:
            name, number = split[1], int(split[2])
        if name in known:
            numbered.setdefault(name, []).append((number, entry))
        else:
            strange.append(entry)
    found = {}
    for name, entries in numbered.items():
        entries.sort(key=lambda pair: pair[0])
        found[name] = [entry for _, entry in entries]
    return found, strange
