"""``crystalvae predict``: crystals of a given composition, or a test of that."""

from __future__ import annotations

import argparse
import logging
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from crystalvae.cli.options import (
    add_machine_options,
    add_polymorphs_option,
    add_refine_option,
    at_least,
    named,
    number,
    positive,
    seed,
)
from crystalvae.files import shown

logger = logging.getLogger(__name__)


MOST_UNITS = 4
"""Formulas in the primitive cell that are tried where nothing is said of it."""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "predict", help="predict the crystal structures of compositions"
    )
    parser.add_argument("model", help="shipped name or directory of a model")
    parser.add_argument(
        "input",
        nargs="?",
        help="structures, as for prepare: their compositions are predicted and the "
        "predictions compared with them",
    )
    parser.add_argument("--formula", help="what to predict instead, as SrTiO3")
    parser.add_argument("-o", "--output", type=Path, required=True, help="directory")
    parser.add_argument(
        "-n",
        type=int,
        default=20,
        help="structures for each composition, and for each size of its cell "
        "(%(default)s)",
    )
    parser.add_argument(
        "--draws",
        type=int,
        metavar="D",
        help="draws for each composition and size of its cell, out of which the -n "
        "distinct ones that came most often are kept (-n draws, all kept)",
    )
    parser.add_argument(
        "--formula-units",
        metavar="Z or A-B",
        help="formulas in the primitive cell, a number or a range (1 to 4, as many as "
        "fit into the largest cell that the model was trained on)",
    )
    parser.add_argument(
        "--num-atoms",
        metavar="N or A-B",
        help="atoms in the primitive cell instead, a number or a range",
    )
    parser.add_argument(
        "--analogues",
        metavar="DATA",
        help="known crystals, as the training set: up to three quarters of the draws, "
        "the first ones, are these with their elements replaced",
    )
    parser.add_argument(
        "--unlisted",
        action="append",
        metavar="DATA",
        help="known crystals, as the training set: what matches one of these is left "
        "out, to find other structures (use with --draws)",
    )
    parser.add_argument("--beta", type=positive, help="the knob (the model's largest)")
    parser.add_argument(
        "--temperature", type=number, help="of all of the model's draws but its first"
    )
    add_refine_option(parser)
    parser.add_argument(
        "--seed", type=seed, default=0, help="any integer (%(default)s)"
    )
    parser.add_argument(
        "--limit",
        type=at_least(1),
        metavar="N",
        help="use a random N of the structures",
    )
    add_polymorphs_option(parser)
    parser.add_argument(
        "--cifs",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="write the predictions",
    )
    add_machine_options(parser, "device", "workers", "progress")


def run(args: argparse.Namespace) -> int:
    """Predict and write."""
    from crystalvae.design.familiar import beyond_training
    from crystalvae.design.output import open_directory
    from crystalvae.design.predict import TEMPERATURE
    from crystalvae.design.settings import prediction_conditions, refinement_of
    from crystalvae.errors import ConfigError
    from crystalvae.model import CrystalVAE

    if (args.formula is None) == (args.input is None):
        raise ConfigError("give either --formula or structures to predict")
    if args.formula is None and (args.formula_units or args.num_atoms):
        raise ConfigError("--formula-units and --num-atoms go with --formula")
    if args.formula is not None and (args.limit or not (args.cifs and args.polymorphs)):
        raise ConfigError(
            "--limit, --no-cifs and --no-polymorphs go with structures, not --formula"
        )
    if args.n < 1:
        raise ConfigError("-n must be at least 1")
    if args.draws is not None and args.draws < args.n:
        raise ConfigError("--draws must be at least -n")
    model = CrystalVAE.from_pretrained(args.model, device=args.device)
    cells = None if args.formula is None else _cells(args, model)
    strange = beyond_training(model, compositions=cells or ())
    if strange is not None:
        logger.warning(strange)
    directory = open_directory(args.output)
    beta, temperature = args.beta, args.temperature
    settings = {
        "model": str(args.model),
        "structures_per_composition": args.n,
        "draws": args.draws or args.n,
        "beta": model.config.latent.beta_max if beta is None else beta,
        "temperature": TEMPERATURE if temperature is None else temperature,
        "refine": asdict(refinement_of(model, args.refine, purpose="prediction")),
        "conditions": prediction_conditions(model),
        "seed": args.seed,
        "analogues": args.analogues and shown(args.analogues),
        "unlisted": named(args.unlisted),
    }
    if cells is not None:
        return _predict_formula(args, model, directory, settings, cells)
    return _predict_known(args, model, directory, settings)


def _cells(args: argparse.Namespace, model: Any) -> list[dict[int, int]]:
    """Contents of the primitive cells that the options allow."""
    from crystalvae.design.familiar import TRAINED_ON
    from crystalvae.errors import ConfigError
    from crystalvae.generation.parsing import parse_formula, parse_range

    if args.formula_units and args.num_atoms:
        raise ConfigError("give --formula-units or --num-atoms, not both")
    formula = parse_formula(args.formula, "--formula")
    size = sum(formula.values())
    if args.formula_units:
        low, high = parse_range(args.formula_units, "--formula-units")
    else:
        most = model.card.get(TRAINED_ON, {}).get("max_atoms", size)
        low, high = 1, max(1, min(MOST_UNITS, most // size))
    if args.num_atoms:
        least, most = parse_range(args.num_atoms, "--num-atoms")
        low, high = -(-least // size), most // size
        if low > high:
            raise ConfigError(f"no multiple of {args.formula} has so many atoms")
    return [
        {z: n * units for z, n in formula.items()} for units in range(low, high + 1)
    ]


def _draw(
    args: argparse.Namespace,
    model: Any,
    cells: list[dict[int, int]],
    num: int,
    draws: int | None = None,
    listed: Any = None,
    analogues: Any = None,
) -> list:
    from tqdm import tqdm

    from crystalvae.design.predict import predict

    disable = None if args.progress else True
    total = len(cells) * (draws or num)
    with tqdm(total=total, unit="crystal", disable=disable) as bar:
        return predict(
            model,
            cells,
            num,
            draws=draws,
            analogues=analogues,
            unlisted=listed,
            beta=args.beta,
            temperature=args.temperature,
            seed=args.seed,
            refine=args.refine,
            num_workers=args.workers,
            advance=bar.update,
        )


def _analogues(args: argparse.Namespace) -> Any:
    """The known crystals of ``--analogues`` by kind of formula, None without."""
    from crystalvae.data.load import open_known
    from crystalvae.design.analogues import Analogues

    return None if args.analogues is None else Analogues(open_known(args.analogues))


def _listed(args: argparse.Namespace) -> Any:
    """The known crystals of ``--unlisted``, None without."""
    from crystalvae.design.alike import Listed

    return None if args.unlisted is None else Listed.of(args.unlisted, True)


def _predict_formula(
    args: argparse.Namespace,
    model: Any,
    directory: Path,
    settings: dict[str, Any],
    cells: list[dict[int, int]],
) -> int:
    from crystalvae.design.analogues import analogue_names
    from crystalvae.design.familiar import cells_left_out
    from crystalvae.design.output import write_crystals
    from crystalvae.design.ranking import (
        distinct_ranked,
        how_ranked,
        numbered_rows,
    )
    from crystalvae.errors import CrystalVAEError

    left_out = None
    if not (args.formula_units or args.num_atoms):
        left_out = cells_left_out(model, cells, MOST_UNITS)
    if left_out is not None:
        logger.warning(left_out)
    listed, analogues = _listed(args), _analogues(args)
    draws = _draw(args, model, cells, args.draws or args.n, analogues=analogues)
    drawn = [crystal for own in draws for crystal in own]
    ranked, fallen = distinct_ranked(
        model, drawn, beta=args.beta, num_workers=args.workers
    )
    if listed is not None and ranked:
        found = [item.crystal for item in ranked]
        known = listed(found, num_workers=args.workers)
        fallen["listed"] = sum(known)
        ranked = [item for item, is_old in zip(ranked, known) if not is_old]
        if not ranked:
            raise CrystalVAEError(
                f"every distinct crystal of {len(drawn)} draws is in "
                f"{named(args.unlisted)}; "
                "raise --draws or --temperature"
            )
    if not ranked:
        raise CrystalVAEError(
            f"none of {len(drawn)} draws passed the checks; raise -n or --temperature"
        )
    distinct = len(ranked)
    if args.draws is not None:
        ranked = _most_drawn(ranked, args.n)
    crystals = [item.crystal for item in ranked]
    columns = [
        {
            "score": round(item.score, 3),
            "log_likelihood": round(item.likelihood, 3),
            "times_drawn": item.count,
            "draw": item.draw,
        }
        for item in ranked
    ]
    if analogues is not None:
        names = analogue_names(analogues, cells, crystals, num_workers=args.workers)
        for row, name in zip(columns, names):
            row["analogue_of"] = name
    names, rows = numbered_rows(
        model, crystals, columns, digits=3, num_workers=args.workers
    )
    summary = {
        "formula": args.formula,
        "cells": [sum(cell.values()) for cell in cells],
        **settings,
        "distinct": distinct,
        "written": len(ranked),
        "fallen": fallen,
        **({} if left_out is None else {"left_out": left_out}),
        "note": how_ranked(model),
    }
    write_crystals(directory, crystals, names, rows, summary)
    fell = ", ".join(f"{n} {reason}" for reason, n in fallen.items() if n)
    print(
        f"{len(ranked)} distinct crystals in {directory} from {len(drawn)} draws "
        f"({fell or 'none'} fell); first {crystals[0]}"
    )
    return 0


def _most_drawn(ranked: list, num: int) -> list:
    """The most frequent of each cell, in the order that they have."""
    taken: Counter[int] = Counter()
    kept = []
    for item in sorted(ranked, key=lambda item: -item.count):
        cell = item.crystal.num_primitive_atoms
        taken[cell] += 1
        if taken[cell] <= num:
            kept.append(item)
    return sorted(kept, key=lambda item: -item.score)


def _predict_known(
    args: argparse.Namespace, model: Any, directory: Path, settings: dict[str, Any]
) -> int:
    import json
    import time

    from crystalvae.benchmark.matching import MATCHER
    from crystalvae.benchmark.prediction import compare
    from crystalvae.design.output import unused_name, write_table, write_text
    from crystalvae.design.ranking import log_likelihoods, scores_of_draws
    from crystalvae.errors import DataError

    rows, references = _references(args, model)
    if not references:
        raise DataError(f"{shown(args.input)} holds no structure that can be predicted")
    began = time.perf_counter()
    wanted = [crystal.composition for crystal in references]
    draws = _draw(
        args, model, wanted, args.n, args.draws, _listed(args), _analogues(args)
    )
    seconds = time.perf_counter() - began
    flat = [crystal for own in draws for crystal in own]
    likelihoods = log_likelihoods(model, flat, beta=args.beta)
    usable = [row for row in rows if "error" not in row]
    found = compare(
        draws,
        references,
        scores=scores_of_draws(model, draws, likelihoods, num_workers=args.workers),
        unusable=len(rows) - len(usable),
        polymorphs=args.polymorphs,
        num_workers=args.workers,
    )
    for row, more in zip(usable, found.rows):
        row.update(more)
    if args.cifs:
        used: set[str] = set()
        for row, own in zip(usable, draws):
            name = unused_name(row["material_id"], used)
            for place, crystal in enumerate(own):
                if crystal is not None:
                    stem = f"{name}_{place:02d}"
                    text = crystal.to_cif(name=stem)
                    write_text(directory / f"{stem}.cif", text)
    summary = {
        "input": shown(args.input),
        **settings,
        "structures": len(rows),
        "unusable": len(rows) - len(usable),
        **found.metrics,
        "matcher": MATCHER,
        "decode_seconds": round(seconds, 2),
    }
    write_table(directory / "table.csv", rows)
    write_text(directory / "summary.json", json.dumps(summary, indent=1) + "\n")
    for name, metrics in found.metrics.items():
        print(f"{name}: " + ", ".join(f"{k} {v}" for k, v in metrics.items()))
    return 0


def _references(args: argparse.Namespace, model: Any) -> tuple[list[dict], list]:
    """A row of the table for each structure, and the usable ones as crystals."""
    from crystalvae.data.load import crystal_of, read_entries
    from crystalvae.errors import InvalidStructureError

    rows, crystals = [], []
    limits = model.config.decoder
    for entry in read_entries(args.input, args.limit, args.seed):
        row = {"material_id": entry.material_id, "source": entry.source}
        rows.append(row)
        try:
            crystal = crystal_of(entry)
        except InvalidStructureError as error:
            row["error"] = str(error)
            continue
        if not limits.fits(1, crystal.composition):
            row["error"] = "it is larger than the model can emit"
            continue
        crystals.append(crystal)
        row |= {"formula": crystal.formula, "space_group": crystal.number}
    return rows, crystals
