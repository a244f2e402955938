"""``crystalvae neighbors``: search around known crystals."""

from __future__ import annotations

import argparse
from pathlib import Path

from crystalvae.cli.constraints import (
    add_constraint_options,
    asked_constraints,
    parse_constraints,
)
from crystalvae.cli.options import (
    add_machine_options,
    add_search_options,
    at_least,
    named,
    require_wanted,
    search_settings,
)
from crystalvae.files import shown


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "neighbors", help="draw crystals around known ones, as near as beta says"
    )
    parser.add_argument("model", help="shipped name or directory of a model")
    parser.add_argument("input", help="one structure or more, as for prepare")
    parser.add_argument("-o", "--output", type=Path, required=True, help="directory")
    parser.add_argument(
        "-n",
        type=at_least(1),
        default=100,
        help="draws that pass the checks, for all structures together (%(default)s); "
        "the distinct crystals among them are written",
    )
    add_search_options(parser)
    add_constraint_options(parser)
    parser.add_argument(
        "--distortions",
        action="store_true",
        help="also write distorted copies: the same elements on the same Wyckoff "
        "positions, a match with wide tolerances but not with the usual ones",
    )
    parser.add_argument(
        "--unlisted",
        action="append",
        metavar="DATA",
        help="known crystals, as the training set: what is like one of these is left "
        "out",
    )
    add_machine_options(parser, "device", "workers", "progress")


def run(args: argparse.Namespace) -> int:
    """Search and write."""
    import time

    from crystalvae.cli.inputs import encodable_inputs
    from crystalvae.design.alike import change
    from crystalvae.design.neighbors import neighbors
    from crystalvae.design.output import open_directory, require_empty, write_crystals
    from crystalvae.design.ranking import likely_stable_note, numbered_rows
    from crystalvae.errors import CrystalVAEError
    from crystalvae.model import CrystalVAE

    constraints = parse_constraints(args)
    require_empty(args.output)
    model = CrystalVAE.from_pretrained(args.model, device=args.device)
    model.beta_tensor(args.beta, 1)
    constraints.check(model.config.decoder)
    require_wanted(args, model)
    settings = search_settings(args, model)
    names, known, refused = encodable_inputs(model, args.input, args.n)
    began = time.perf_counter()
    found, report = neighbors(
        model,
        known,
        args.n,
        unlisted=args.unlisted,
        beta=args.beta,
        spread=args.spread,
        temperature=args.temperature,
        distortions=args.distortions,
        seed=args.seed,
        refine=args.refine,
        conditions=args.condition,
        condition_strength=args.condition_strength,
        checks=args.checks,
        likely_stable=args.likely_stable,
        within=args.within,
        constraints=constraints,
        progress=args.progress,
        num_workers=args.workers,
    )
    if not found:
        raise CrystalVAEError(
            f"nothing new in {report.draws.kept} draws: {report.same} are the "
            f"structures themselves, {report.distorted} distorted, {report.listed} "
            "listed; raise --beta, --temperature or --spread"
        )
    directory = open_directory(args.output)
    crystals = [item.crystal for item in found]
    columns = [
        {
            "near": names[item.origin],
            "near_formula": known[item.origin].formula,
            "change": change(known[item.origin], item.crystal),
            "distance": round(item.distance, 4),
            "times_drawn": item.count,
            "draw": item.draw,
        }
        for item in found
    ]
    files, rows = numbered_rows(
        model, crystals, columns, digits=4, num_workers=args.workers
    )
    seconds = time.perf_counter() - began
    fallen = dict(report.draws.fallen.most_common())
    summary = {
        "model": str(args.model),
        "input": shown(args.input),
        "structures": len(known),
        "refused": refused,
        "n": args.n,
        "asked": asked_constraints(args),
        **settings,
        "draws": report.draws.draws,
        "fallen": fallen,
        "passed": report.draws.kept,
        "the_structures_themselves": report.same,
        "distorted": report.distorted,
        "distortions_written": args.distortions,
        "repeated": report.repeated,
        "listed": report.listed,
        "written": len(found),
        "seconds": round(seconds, 2),
        "note": "checked for plausibility; of stability there is at most an "
        "estimate; novelty was judged "
        + (
            "not beyond the structures themselves"
            if args.unlisted is None
            else f"against {named(args.unlisted)}"
        ),
    }
    write_crystals(directory, crystals, files, rows, summary)
    fell = ", ".join(f"{n} {reason}" for reason, n in fallen.items())
    more = "" if args.unlisted is None else f", {report.listed} are listed"
    print(
        f"{len(found)} crystals in {directory} from {report.draws.draws} draws "
        f"({fell or 'none'} fell; {report.same} are the structures themselves, "
        f"{report.distorted} distorted, {report.repeated} repeats{more}) in "
        f"{seconds:.1f} s; first {crystals[0]}{likely_stable_note(rows)}"
    )
    return 0
