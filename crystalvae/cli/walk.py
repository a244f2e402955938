"""``crystalvae walk``: from one crystal to another through the latent space."""

from __future__ import annotations

import argparse
from pathlib import Path

from crystalvae.cli.options import (
    add_machine_options,
    add_refine_option,
    at_least,
    positive,
)
from crystalvae.files import shown


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "walk", help="what lies between two crystals in the latent space"
    )
    parser.add_argument("model", help="shipped name or directory of a model")
    parser.add_argument("first", help="a structure, as for prepare")
    parser.add_argument("last", help="another one")
    parser.add_argument("-o", "--output", type=Path, required=True, help="directory")
    parser.add_argument(
        "--steps",
        type=at_least(2),
        default=15,
        help="points, both ends included (%(default)s)",
    )
    parser.add_argument("--beta", type=positive, help="the knob (most detail)")
    add_refine_option(parser)
    add_machine_options(parser, "device")


def run(args: argparse.Namespace) -> int:
    """Walk and write."""
    from dataclasses import asdict

    from crystalvae.cli.inputs import one_crystal
    from crystalvae.design.output import open_directory, require_empty
    from crystalvae.design.settings import refinement_of
    from crystalvae.design.walk import interpolate
    from crystalvae.model import CrystalVAE

    require_empty(args.output)
    model = CrystalVAE.from_pretrained(args.model, device=args.device)
    model.beta_tensor(args.beta, 1)
    first, last = one_crystal(model, args.first), one_crystal(model, args.last)
    found = interpolate(
        model, first, last, steps=args.steps, beta=args.beta, refine=args.refine
    )
    directory = open_directory(args.output)
    shares = [step / (args.steps - 1) for step in range(args.steps)]
    points = [({"share": round(share, 4)}, c) for share, c in zip(shares, found)]
    summary = {
        "model": str(args.model),
        "first": {"input": shown(args.first), "formula": first.formula},
        "last": {"input": shown(args.last), "formula": last.formula},
        "steps": args.steps,
        "beta": args.beta or model.config.latent.beta_min,
        "refine": asdict(refinement_of(model, args.refine, purpose="design")),
    }
    written = write_points(directory, points, summary)
    for (place, crystal), (_, failed) in zip(points, written):
        what = "not completed" if crystal is None else str(crystal)
        print(f"{place['share']:6.2f}  {what}{failed and f'  (fails {failed})'}")
    print(f"CIFs and table in {directory}")
    return 0


def write_points(directory: Path, points: list, summary: dict) -> list:
    """Write the crystals of a walk, each once, and a row for each point.

    Args:
        directory: an empty directory.
        points: (columns that say where, crystal or None).
        summary: anything JSON can hold.

    Returns:
        For each point the file, empty where there is no crystal, and the check that it
        fails, empty where it passes all.
    """
    from crystalvae.design.output import describe, formula_name, write_crystals
    from crystalvae.design.sample import check_crystal
    from crystalvae.screening.checks import first_failure

    crystals, names, rows, written = [], [], [], []
    for number, (place, crystal) in enumerate(points):
        if crystal is None:
            rows.append({"file": "", **place})
            written.append(("", ""))
            continue
        name = f"{number:03d}_{formula_name(crystal)}"
        failed = first_failure(check_crystal(crystal)) or ""
        crystals.append(crystal)
        names.append(name)
        rows.append(
            {"file": f"{name}.cif", **place, **describe(crystal), "fails": failed}
        )
        written.append((f"{name}.cif", failed))
    summary["written"] = len(crystals)
    summary["note"] = "no novelty and no energy was computed"
    write_crystals(directory, crystals, names, rows, summary)
    return written
