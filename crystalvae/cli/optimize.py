"""``crystalvae optimize``: search for unlisted crystals with a property."""

from __future__ import annotations

import argparse
import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crystalvae.cli.constraints import (
    add_constraint_options,
    asked_constraints,
    parse_constraints,
)
from crystalvae.cli.options import (
    add_machine_options,
    add_search_options,
    at_least,
    finite,
    number,
    require_wanted,
    search_settings,
)

if TYPE_CHECKING:
    import numpy as np

    from crystalvae.data.packed import PackedDataset
    from crystalvae.design.judges import Judge
    from crystalvae.design.optimize import Goal
    from crystalvae.model import CrystalVAE


logger = logging.getLogger(__name__)

JUDGES = ("network", "latents")
LEAST_R2 = 0.5
"""Below which a network judges another property than the data set has."""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "optimize", help="search for unlisted crystals with a property"
    )
    parser.add_argument("model", help="shipped name or directory of a model")
    parser.add_argument("dataset", help="prepared data set that has the property")
    parser.add_argument("-o", "--output", type=Path, required=True, help="directory")
    parser.add_argument(
        "--property",
        required=True,
        metavar="NAME",
        help="a column of the data set, density (g/cm3) or volume_per_atom (A3)",
    )
    goal = parser.add_mutually_exclusive_group(required=True)
    goal.add_argument("--maximize", action="store_true", help="the larger the better")
    goal.add_argument("--minimize", action="store_true", help="the smaller the better")
    goal.add_argument("--target", type=finite, metavar="X", help="as near X as can be")
    parser.add_argument(
        "-n", type=at_least(1), default=50, help="crystals to write (%(default)s)"
    )
    parser.add_argument(
        "--start",
        metavar="INPUT",
        help="structures to search around (the best of the data set)",
    )
    parser.add_argument(
        "--rounds", type=at_least(1), default=5, help="of the search (%(default)s)"
    )
    parser.add_argument(
        "--draws",
        type=at_least(1),
        default=200,
        help="that pass the checks in each round (%(default)s)",
    )
    parser.add_argument(
        "--parents",
        type=at_least(1),
        default=20,
        help="best crystals, one of each formula, around which the next round draws "
        "(%(default)s)",
    )
    parser.add_argument(
        "--caution",
        type=number,
        default=1.0,
        help="standard errors of a prediction that count against a crystal "
        "(%(default)s)",
    )
    parser.add_argument(
        "--judge",
        choices=JUDGES,
        help="what predicts the property: the model's property network, which knows "
        "the properties that `info` names, or a regression from latent vectors, which "
        "learns it from the data set (the network where it knows a property of this "
        "name)",
    )
    add_search_options(parser)
    add_constraint_options(parser)
    add_machine_options(parser, "device", "workers", "progress")


def run(args: argparse.Namespace) -> int:
    """Choose what judges, search, plot and write."""
    import time

    from tqdm import tqdm

    from crystalvae.cli.inputs import encodable_inputs
    from crystalvae.data.packed import PackedDataset
    from crystalvae.design.alike import Listed, change
    from crystalvae.design.optimize import (
        Goal,
        best_known,
        optimize,
        plot_search,
        told_target,
    )
    from crystalvae.design.output import open_directory, require_empty, write_crystals
    from crystalvae.design.properties import property_values
    from crystalvae.design.ranking import likely_stable_note, numbered_rows
    from crystalvae.errors import CrystalVAEError
    from crystalvae.model import CrystalVAE
    from crystalvae.screening.uniqueness import ReferenceIndex

    constraints = parse_constraints(args)
    require_empty(args.output)
    direction = "maximize" if args.maximize else "minimize"
    if args.target is not None:
        goal = Goal("target", args.target, args.caution)
    else:
        goal = Goal(direction, caution=args.caution)
    dataset = PackedDataset(args.dataset)
    values = property_values(dataset, args.property)
    model = CrystalVAE.from_pretrained(args.model, device=args.device)
    model.beta_tensor(args.beta, 1)
    constraints.check(model.config.decoder)
    require_wanted(args, model)
    args.condition = told_target(model, goal, args.property, args.condition, args.beta)
    settings = search_settings(args, model)
    refused: dict[str, str] = {}
    if args.start is None:
        starts = best_known(model, dataset, values, goal, args.parents, constraints)
    else:
        _, starts, refused = encodable_inputs(model, args.start)
    known = [value for value in values.tolist() if math.isfinite(value)]
    low, high = min(known, default=-math.inf), max(known, default=math.inf)
    if args.target is not None and not low <= args.target <= high:
        logger.warning(
            f"the target {args.target:g} lies outside what {args.dataset} has "
            f"({args.property} from {low:.4g} to {high:.4g}); is it in the same unit?"
        )
    began = time.perf_counter()
    judge, judged = _judge(args, model, dataset, values, goal)
    disable = None if args.progress else True
    with tqdm(total=args.rounds, unit="round", desc="search", disable=disable) as bar:
        found, history = optimize(
            model,
            judge,
            goal,
            starts,
            Listed(ReferenceIndex(dataset)),
            rounds=args.rounds,
            draws=args.draws,
            parents=args.parents,
            beta=args.beta,
            spread=args.spread,
            temperature=args.temperature,
            seed=args.seed,
            refine=args.refine,
            conditions=args.condition,
            condition_strength=args.condition_strength,
            checks=args.checks,
            likely_stable=args.likely_stable,
            within=args.within,
            constraints=constraints,
            num_workers=args.workers,
            advance=bar.update,
        )
    if not found:
        raise CrystalVAEError(
            f"all that was drawn is in {args.dataset}, as it is or distorted; raise "
            "--beta, --temperature or --spread"
        )
    directory = open_directory(args.output)
    best = found[: args.n]
    crystals = [item.crystal for item in best]
    columns = [
        {
            f"predicted_{args.property}": round(item.value, 4),
            "uncertainty": round(item.doubt, 4),
            "round": item.round,
            "parent": item.parent.formula,
            "change": change(item.parent, item.crystal),
        }
        for item in best
    ]
    files, rows = numbered_rows(
        model, crystals, columns, digits=4, num_workers=args.workers
    )
    summary = {
        "model": str(args.model),
        "dataset": str(args.dataset),
        "property": args.property,
        "goal": goal.direction if args.target is None else {"target": args.target},
        "caution": args.caution,
        **judged,
        "asked": asked_constraints(args),
        "n": args.n,
        "draws": args.draws,
        "parents": args.parents,
        **settings,
        "start": args.start,
        "starts": [crystal.formula for crystal in starts],
        "refused": refused,
        "rounds": [
            {
                "draws": item.draws,
                "passed": item.passed,
                "known": item.known,
                "repeated": item.repeated,
                "new": len(item.values),
            }
            for item in history
        ],
        "found": len(found),
        "written": len(best),
        "seconds": round(time.perf_counter() - began, 2),
        "note": f"the property is what the judge ({judged['judge']}) predicts, and "
        "nothing was computed from first principles; none is in the data set; of "
        "stability there is at most an estimate",
    }
    plot_search(args.property, values, goal, history, directory / "search.png")
    write_crystals(directory, crystals, files, rows, summary)
    print(
        f"{len(best)} of {len(found)} crystals in {directory}, none of them in "
        f"{args.dataset}; first {best[0].crystal}: {best[0].value:.4g} ± "
        f"{best[0].doubt:.2g}{likely_stable_note(rows)}"
    )
    return 0


def _judge(
    args: argparse.Namespace,
    model: CrystalVAE,
    dataset: PackedDataset,
    values: np.ndarray,
    goal: Goal,
) -> tuple[Judge, dict[str, Any]]:
    """What predicts the property, and for the summary how good it is, as printed.

    Raises:
        ConfigError: a network is asked for that the model does not have.
    """
    from crystalvae.design.judges import accuracy, knows, try_network
    from crystalvae.design.optimize import chosen_among_known
    from crystalvae.errors import ConfigError

    name = args.property
    known = knows(model, name)
    if args.judge == "network" and not known:
        raise ConfigError(
            f"this model has no network that knows {name}; leave out --judge, or train "
            "one (crystalvae train-properties)"
        )
    by_network = known and args.judge != "latents"
    if by_network:
        kind = "property network"
        judge = try_network(model, name, dataset, values, seed=args.seed)
        which = "of the data set as the network estimates them, which may know them"
    else:
        kind = "regression from latent vectors"
        judge = _learned(args, model, dataset, values)
        which = "held out"
    found = {key: round(value, 4) for key, value in accuracy(judge).items()}
    chosen = {key: round(v, 4) for key, v in chosen_among_known(judge, goal).items()}
    print(
        f"{name} of {found['tried']} crystals {which}: mean absolute error "
        f"{found['error']:g} (always the mean: {found['baseline']:g}), "
        f"R2 {found['r2']:g}"
    )
    if by_network and found["r2"] < LEAST_R2:
        logger.warning(
            f"the network's {name} is not that of {args.dataset}: learn it from there "
            "with --judge latents"
        )
    what = "distance from the target" if args.target is not None else name
    print(
        f"the {chosen['chosen']} of these that the search would choose: mean {what} "
        f"predicted {chosen['predicted']:g}, true {chosen['true']:g} (of all "
        f"{chosen['all']:g})"
    )
    return judge, {"judge": kind, "accuracy": found, "choice_among_these": chosen}


def _learned(
    args: argparse.Namespace,
    model: CrystalVAE,
    dataset: PackedDataset,
    values: np.ndarray,
) -> Judge:
    from tqdm import tqdm

    from crystalvae.design.properties import fit_property, num_epochs

    disable = None if args.progress else True
    with tqdm(
        total=num_epochs(values), unit="pass", desc="learn", disable=disable
    ) as bar:
        return fit_property(model, dataset, values, seed=args.seed, advance=bar.update)
