"""``crystalvae screen``: check, compare with known crystals, rank, report."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from crystalvae.cli.options import (
    add_checks_option,
    add_machine_options,
    add_within_option,
    at_least,
    named,
    shown_windows,
)
from crystalvae.files import shown


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "screen", help="check, compare with known crystals, rank and report"
    )
    parser.add_argument("input", help="structures, as for prepare")
    parser.add_argument("-o", "--output", type=Path, required=True, help="directory")
    parser.add_argument(
        "--reference",
        action="append",
        metavar="DATA",
        help="known crystals that novelty is judged against, and that make the hull; "
        "may be given several times; their fingerprints and energies are kept beside a "
        "prepared set",
    )
    add_checks_option(parser)
    parser.add_argument(
        "--rank-by",
        metavar="SCORE",
        help="novelty, density, volume or stable_probability, highest first; "
        "num_sites, another estimate or a number of the input, lowest first (novelty; "
        "with --estimate the probability)",
    )
    parser.add_argument(
        "--highest-first",
        action="store_true",
        help="rank the highest of --rank-by first in any case",
    )
    parser.add_argument(
        "--estimate",
        metavar="MODEL",
        help="add what the networks of this model (mp_20) expect of each crystal, the "
        "energy above the hull and the probability of being stable, its band gap and "
        "the like, and rank by the probability: quick signs, before any --relax; of "
        "copies the one nearest to relaxed is kept",
    )
    add_within_option(parser)
    parser.add_argument(
        "--top", type=at_least(0), default=1000, help="crystals written (%(default)s)"
    )
    parser.add_argument(
        "--database",
        help="also add them to this ASE database: FILE.db or postgresql://",
    )
    parser.add_argument(
        "--relax",
        metavar="POTENTIAL",
        help="relax the best in chgnet, sevennet, mace, emt or MODULE:CALLABLE (what "
        "makes an ASE calculator) and judge their energy above the hull of the "
        "reference",
    )
    parser.add_argument(
        "--relax-top", type=at_least(1), default=100, help="how many (%(default)s)"
    )
    parser.add_argument(
        "--stable-below",
        type=float,
        default=0.1,
        help="eV/atom above the hull that count as stable (%(default)s)",
    )
    parser.add_argument(
        "--reference-steps",
        type=at_least(0),
        default=50,
        help="most steps in which known crystals near the hull are relaxed, 0 for none "
        "(%(default)s)",
    )
    parser.add_argument("--scheduler", help="Dask scheduler, tcp://host:port")
    add_machine_options(parser, "device", "workers", "progress")


def run(args: argparse.Namespace) -> int:
    """Screen and write."""
    from tqdm import tqdm

    from crystalvae.data.load import open_known
    from crystalvae.design.database import write_database
    from crystalvae.design.output import (
        clear_results,
        formula_name,
        resume_directory,
        write_cifs,
        write_crystals,
        write_frames,
        write_text,
    )
    from crystalvae.design.wanted import Wanted
    from crystalvae.errors import ConfigError
    from crystalvae.screening.campaign import (
        WORK,
        finish,
        funnel,
        screen,
        table_rows,
    )
    from crystalvae.screening.checks import parse_checks
    from crystalvae.screening.energies import energy_file
    from crystalvae.screening.engine import summarize
    from crystalvae.screening.potentials import load_potential
    from crystalvae.screening.report import html_report
    from crystalvae.screening.stability import (
        StabilityOptions,
        add_stability,
        relaxed_frames,
        stability_summary,
    )
    from crystalvae.screening.tables import is_estimate

    calculator = None
    if args.relax is not None:
        if args.reference is None:
            raise ConfigError("--relax needs a --reference, which makes the hull")
        calculator = load_potential(args.relax)
    estimates, wanted = None, Wanted(within=args.within or {})
    if wanted and args.estimate is None:
        raise ConfigError("--within needs an --estimate, such as --estimate mp_20")
    if args.estimate is not None:
        from crystalvae.design.estimates import (
            estimate_columns,
            require_estimates,
        )
        from crystalvae.model import CrystalVAE

        judge = CrystalVAE.from_pretrained(args.estimate, device=args.device)
        require_estimates(judge)
        wanted.require(judge)
        estimates = partial(
            estimate_columns,
            judge,
            doubted=True,
            num_workers=args.workers,
        )
    directory = resume_directory(args.output, WORK)
    reference = None if args.reference is None else open_known(args.reference)
    campaign = screen(
        args.input,
        directory,
        names=parse_checks(args.checks),
        reference=reference,
        reference_name=named(args.reference),
        rank_by=args.rank_by,
        highest=args.highest_first,
        estimates=estimates,
        within=wanted.within,
        num_workers=args.workers,
        scheduler=args.scheduler,
        progress=args.progress,
    )
    if args.estimate is not None and is_estimate(campaign.ranked_by):
        campaign.ranked_by += f" of {args.estimate}"
    stability, relaxed = {}, None
    if args.relax is not None:
        options = StabilityOptions(
            args.relax,
            top=args.relax_top,
            threshold=args.stable_below,
            reference_steps=args.reference_steps,
        )
        work = directory / WORK
        with tqdm(unit="crystal", disable=None if args.progress else True) as bar:
            relaxed = add_stability(
                campaign,
                reference,
                work,
                [energy_file(part, args.relax, work) for part in args.reference],
                options,
                calculator=calculator,
                num_workers=args.workers,
                advance=bar.update,
            )
        stability = stability_summary(campaign, relaxed, options)
    rows = table_rows(campaign)
    best = [campaign.inspected[place] for place in campaign.survivors[: args.top]]
    crystals = [item.crystal for item in best]
    names = [f"{i:05d}-{formula_name(c)[:100]}" for i, c in enumerate(crystals, 1)]
    steps = funnel(campaign)
    summary = {
        "input": shown(args.input),
        "reference": named(args.reference),
        "rank_by": campaign.ranked_by,
        "within": shown_windows(args.within),
        **summarize([item.record for item in campaign.inspected]),
        "funnel": dict(steps),
        **({"stability": stability} if stability else {}),
        "survivors": len(campaign.survivors),
        "written": len(crystals),
    }
    clear_results(directory)
    write_crystals(directory, crystals, names, rows, summary)
    if relaxed:
        own = dict(zip(campaign.survivors, names))
        frames = relaxed_frames(campaign, relaxed, own)
        write_frames(directory / "relaxed.extxyz", frames)
        write_cifs(directory / "relaxed", frames, names)
    page = html_report(
        campaign,
        f"Screening of {shown(args.input)}",
        reference,
        relaxed=relaxed,
        files=[f"{name}.cif" for name in names],
    )
    write_text(directory / "report.html", page)
    if args.database:
        own = rows[: len(crystals)]
        write_database(args.database, crystals, names, own)
    finish(directory)
    width = max(12, *(len(name) for name, _ in steps))
    for name, count in steps:
        print(f"  {name:{width}s} {count:8d}")
    if stability:
        print(
            f"{stability['stable_unique_novel']} of {stability['relaxed']} relaxed are "
            f"stable, {stability['judged']} could be judged"
        )
    print(
        f"{len(campaign.survivors)} of {len(campaign.inspected)} survive, "
        f"{len(crystals)} written to {directory}; look at report.html"
    )
    return 0
