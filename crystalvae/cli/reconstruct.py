"""``crystalvae reconstruct``: encode structures, decode them, compare."""

from __future__ import annotations

import argparse
from pathlib import Path

from crystalvae.cli.options import (
    add_machine_options,
    at_least,
    positive,
    seed,
)
from crystalvae.files import shown


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "reconstruct", help="encode structures and decode them again"
    )
    parser.add_argument("model", help="shipped name or directory of a model")
    parser.add_argument("input", help="structures, as for prepare")
    parser.add_argument("-o", "--output", type=Path, required=True, help="directory")
    parser.add_argument(
        "-n",
        "--limit",
        dest="n",
        type=at_least(1),
        help="use a random N of the structures",
    )
    parser.add_argument(
        "--seed", type=seed, default=0, help="of that choice (%(default)s)"
    )
    parser.add_argument("--beta", type=positive, help="the knob (most detail)")
    parser.add_argument(
        "--rounds",
        type=at_least(0),
        default=4,
        help="of the search for the crystal that has the encoding (%(default)s)",
    )
    parser.add_argument(
        "--greedy", action="store_true", help="decode in one pass, with no search"
    )
    add_machine_options(parser, "device", "workers", "progress")


def run(args: argparse.Namespace) -> int:
    """Reconstruct, match and write."""
    import json
    import time

    from tqdm import tqdm

    from crystalvae.benchmark.generation import benchmark_valid
    from crystalvae.benchmark.matching import MATCHER, match_distances
    from crystalvae.data.load import crystal_of, read_entries
    from crystalvae.design.invert import SearchOptions
    from crystalvae.design.output import (
        describe,
        open_directory,
        unused_name,
        write_table,
        write_text,
    )
    from crystalvae.design.reconstruct import encoding_gaps, reconstruct
    from crystalvae.errors import DataError, InvalidStructureError
    from crystalvae.model import CrystalVAE

    model = CrystalVAE.from_pretrained(args.model, device=args.device)
    directory = open_directory(args.output)
    entries = read_entries(args.input, args.n, args.seed)
    rows, crystals, references = [], [], []
    limits = model.config.decoder
    disable = None if args.progress else True
    for entry in tqdm(entries, unit="structure", disable=disable):
        row = {"material_id": entry.material_id, "source": entry.source}
        rows.append(row)
        try:
            reference = entry.structure
            crystal = crystal_of(entry)
        except InvalidStructureError as error:
            row["error"] = str(error)
            continue
        if not limits.fits(len(crystal.wyckoffs), crystal.composition):
            row["error"] = "it is larger than the model can emit"
            continue
        row["place"] = len(crystals)
        crystals.append(crystal)
        references.append(reference)
    if not crystals:
        raise DataError(f"{shown(args.input)} holds no structure that can be encoded")
    began = time.perf_counter()
    search = None if args.greedy else SearchOptions(rounds=args.rounds)
    with tqdm(total=len(crystals), unit="crystal", disable=disable) as bar:
        found = reconstruct(
            model, crystals, beta=args.beta, search=search, advance=bar.update
        )
    seconds = time.perf_counter() - began
    gaps = encoding_gaps(model, crystals, found, beta=args.beta)
    predictions = [None if c is None else c.to_structure() for c in found]
    distances = match_distances(predictions, references, num_workers=args.workers)
    used: set[str] = set()
    for row in rows:
        place = row.pop("place", None)
        if place is None:
            continue
        crystal, distance = found[place], distances[place]
        row["match"] = distance is not None
        row["rmse"] = "" if distance is None else round(distance, 5)
        if crystal is None:
            row["error"] = "incomplete"
            continue
        row["encoding_distance"] = round(gaps[place], 4)
        row["valid"] = benchmark_valid(crystal)
        row["composition_right"] = crystal.composition == crystals[place].composition
        row["group_right"] = crystal.number == crystals[place].number
        row.update(describe(crystal))
        name = unused_name(row["material_id"], used)
        row["file"] = f"{name}.cif"
        write_text(directory / row["file"], crystal.to_cif(name=name))
    matched = [d for d in distances if d is not None]
    summary = {
        "model": str(args.model),
        "input": shown(args.input),
        "n": args.n,
        "seed": args.seed,
        "structures": len(rows),
        "unusable": len(rows) - len(crystals),
        "encoded": len(crystals),
        "matches": len(matched),
        "match_rate": round(len(matched) / len(rows), 4),
        "match_rate_valid": round(
            sum(bool(r.get("match") and r.get("valid")) for r in rows) / len(rows), 4
        ),
        "rmse": round(sum(matched) / len(matched), 4) if matched else None,
        "composition_right": round(
            sum(bool(r.get("composition_right")) for r in rows) / len(rows), 4
        ),
        "group_right": round(
            sum(bool(r.get("group_right")) for r in rows) / len(rows), 4
        ),
        "search": 0 if args.greedy else args.rounds,
        "beta": args.beta or model.config.latent.beta_min,
        "matcher": MATCHER,
        "decode_seconds": round(seconds, 2),
    }
    write_table(directory / "table.csv", rows)
    write_text(directory / "summary.json", json.dumps(summary, indent=1) + "\n")
    print(
        f"match rate {summary['match_rate']:.4f} of {len(rows)} (all counted),"
        f" RMSE {summary['rmse']}; CIFs and table in {directory}"
    )
    return 0
