"""``crystalvae sample``: draw crystals and write those that pass the checks."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from crystalvae.cli.constraints import (
    add_constraint_options,
    asked_constraints,
    parse_constraints,
)
from crystalvae.cli.options import (
    add_checks_option,
    add_draw_options,
    add_machine_options,
    add_wanted_options,
    draw_options,
    named,
    require_wanted,
    share,
    shown_windows,
)

if TYPE_CHECKING:
    from crystalvae.conditions import Told
    from crystalvae.design.sample import DrawReport
    from crystalvae.model import CrystalVAE


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "sample", help="draw crystals, check them, write CIFs and a summary"
    )
    parser.add_argument("model", help="shipped name or directory of a model")
    parser.add_argument(
        "-n", type=int, default=100, help="crystals to write (%(default)s)"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="directory")
    add_draw_options(parser)
    parser.add_argument(
        "--raw",
        action="store_true",
        help="write every one of the first N draws that is complete, checked or not",
    )
    parser.add_argument(
        "--repeats",
        action="store_true",
        help="write also what StructureMatcher finds equal to an earlier one",
    )
    add_checks_option(parser)
    add_wanted_options(parser)
    parser.add_argument(
        "--unlisted",
        action="append",
        metavar="DATA",
        help="leave out what is in this data set, as it is or distorted; may be given "
        "several times",
    )
    parser.add_argument(
        "--top-p", type=share, default=1.0, help="nucleus, 0 to 1 (%(default)s)"
    )
    add_constraint_options(parser)
    add_machine_options(parser, "device", "workers", "progress")


def run(args: argparse.Namespace) -> int:
    """Sample and write."""
    import time
    from collections import Counter

    from crystalvae.design.alike import Listed
    from crystalvae.design.estimates import estimate_columns
    from crystalvae.design.output import (
        describe,
        formula_name,
        open_directory,
        write_crystals,
    )
    from crystalvae.design.sample import draw_checked
    from crystalvae.design.settings import sampling_defaults
    from crystalvae.model import CrystalVAE
    from crystalvae.screening.checks import parse_checks

    constraints, checks = parse_constraints(args), parse_checks(args.checks)
    model = CrystalVAE.from_pretrained(args.model, device=args.device)
    constraints.check(model.config.decoder)
    require_wanted(args, model)
    how = sampling_defaults(
        model, likely_stable=args.likely_stable, **draw_options(args)
    )
    known = None
    if args.unlisted is not None:
        known = Listed.of(args.unlisted)
    directory = open_directory(args.output)
    began = time.perf_counter()
    kept, report = draw_checked(
        model,
        args.n,
        seed=args.seed,
        raw=args.raw,
        checks=checks,
        progress=args.progress,
        num_workers=args.workers,
        **draw_options(args),
        top_p=args.top_p,
        likely_stable=args.likely_stable,
        within=args.within,
        known=known,
        distinct=not args.repeats,
        prior=args.prior,
        constraints=constraints,
    )
    crystals = [draw.crystal for draw in kept]
    names = [f"{i:05d}_{formula_name(crystal)}" for i, crystal in enumerate(crystals)]
    rows = []
    for name, item, estimate in zip(
        names, kept, estimate_columns(model, crystals, num_workers=args.workers)
    ):
        verdicts = {
            f"{check}_ok": "" if result.passed is None else result.passed
            for check, result in item.results.items()
        }
        rows.append(
            {"file": f"{name}.cif", **describe(item.crystal), **estimate, **verdicts}
            | {"seed": args.seed, "draw": item.index}
        )
    seconds = time.perf_counter() - began
    groups = Counter(crystal.number for crystal in crystals)
    summary = {
        "model": str(args.model),
        "seed": args.seed,
        "raw": args.raw,
        "checks": list(checks),
        "repeats": args.repeats or args.raw,
        "n": args.n,
        "batch_size": report.batch_size,
        "asked": asked_constraints(args)
        | ({"prior": args.prior} if args.prior else {}),
        "top_p": args.top_p,
        "likely_stable": args.likely_stable,
        "within": shown_windows(args.within),
        "unlisted": named(args.unlisted),
        **how,
        "written": len(kept),
        "draws": report.draws,
        "fallen": dict(report.fallen.most_common()),
        "p1_share": round(groups[1] / max(len(crystals), 1), 4),
        "space_groups": len(groups),
        "seconds": round(seconds, 2),
        "note": "checked for plausibility; novelty was "
        + (
            "not computed"
            if known is None
            else f"judged against {named(args.unlisted)}"
        )
        + ", and of stability there is at most an estimate",
    }
    write_crystals(directory, crystals, names, rows, summary)
    fell = ", ".join(f"{n} {reason}" for reason, n in report.fallen.most_common())
    print(
        f"{len(kept)} crystals in {directory} from {report.draws} draws "
        f"({fell or 'none'} fell) in {seconds:.1f} s"
        + _advice(args, model, how["conditions"], report)
    )
    return 0


def _advice(
    args: argparse.Namespace, model: CrystalVAE, told: Told, report: DrawReport
) -> str:
    """What to tell the decoder where most draws lie outside of ``--within``."""
    from crystalvae.screening.base import window_check

    known = {condition.name: condition for condition in model.config.conditions}
    more = []
    for name, window in (args.within or {}).items():
        if (
            name in known
            and name not in told
            and report.fallen[window_check(name)] > report.kept
        ):
            low = max(window[0], known[name].low)
            middle = (low + min(window[1], known[name].high)) / 2
            more.append(f"{name}={middle:.3g}")
    return f"; --condition {','.join(more)} would make more of them" if more else ""
