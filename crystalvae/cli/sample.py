"""``crystalvae sample``: draw crystals and write those that pass the checks."""

from __future__ import annotations

import argparse
from pathlib import Path

from crystalvae.cli.options import (
    add_draw_options,
    add_machine_options,
    draw_options,
    share,
)


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
        "--top-p", type=share, default=1.0, help="nucleus, 0 to 1 (%(default)s)"
    )
    parser.add_argument(
        "--num-atoms",
        metavar="N or A-B",
        help="atoms in the primitive cell, a number or a range",
    )
    parser.add_argument(
        "--elements", metavar="Li,Fe,...", help="elements that may occur"
    )
    parser.add_argument(
        "--composition", metavar="FORMULA", help="formula of the primitive cell"
    )
    parser.add_argument(
        "--space-group", metavar="N,M-K,...", help="space-group numbers that may occur"
    )
    add_machine_options(parser, "device", "workers", "progress")


def parse_range(text: str, what: str) -> tuple[int, int]:
    """First and last of a number or a range ``A-B``.

    Args:
        text: what the user gave.
        what: name of the option.

    Raises:
        ConfigError: it is neither, or empty.
    """
    from crystalvae.errors import ConfigError

    low, _, high = text.partition("-")
    try:
        first = int(low)
        last = int(high) if high else first
    except ValueError as error:
        raise ConfigError(
            f"{what} must be a number or a range A-B, not {text!r}"
        ) from error
    if not 1 <= first <= last:
        raise ConfigError(f"{what} {text!r} is an empty range")
    return first, last


def parse_element(symbol: str) -> int:
    """Atomic number of an element symbol.

    Raises:
        ConfigError: there is no such element.
    """
    from ase.data import atomic_numbers

    from crystalvae.errors import ConfigError

    if symbol not in atomic_numbers or symbol == "X":
        raise ConfigError(f"{symbol!r} is no element symbol")
    return atomic_numbers[symbol]


def parse_formula(text: str, what: str) -> dict[int, int]:
    """Atomic number → count of a formula, as it is written.

    Args:
        text: what the user gave.
        what: name of the option.

    Raises:
        ConfigError: it is no formula, or not integral.
    """
    from pymatgen.core import Composition

    from crystalvae.errors import ConfigError

    try:
        counts = Composition(text).as_dict()
    except ValueError as error:
        raise ConfigError(f"{what} {text!r}: {error}") from error
    if not counts or any(n != int(n) for n in counts.values()):
        raise ConfigError(f"{what} {text!r} is not integral")
    return {parse_element(symbol): int(n) for symbol, n in counts.items()}


def parse_constraints(args: argparse.Namespace):
    """Constraints from the options of ``sample``.

    Raises:
        ConfigError: an option cannot be understood.
    """
    from crystalvae.errors import ConfigError
    from crystalvae.generation import Constraints

    composition = elements = groups = None
    if args.composition is not None:
        composition = parse_formula(args.composition, "--composition")
    if args.elements is not None:
        symbols = args.elements.replace("-", ",").split(",")
        elements = frozenset(parse_element(s.strip()) for s in symbols)
    if args.space_group is not None:
        found: set[int] = set()
        for part in args.space_group.split(","):
            first, last = parse_range(part, "--space-group")
            found.update(range(first, last + 1))
        if max(found) > 230:
            raise ConfigError("--space-group goes from 1 to 230")
        groups = frozenset(found)
    low, high = (
        (1, None)
        if args.num_atoms is None
        else parse_range(args.num_atoms, "--num-atoms")
    )
    return Constraints(composition, elements, groups, low, high)


def run(args: argparse.Namespace) -> int:
    """Sample and write."""
    import time
    from collections import Counter

    from crystalvae.design.output import (
        describe,
        formula_name,
        open_directory,
        write_crystals,
    )
    from crystalvae.design.sample import draw_checked
    from crystalvae.design.settings import sampling_defaults
    from crystalvae.errors import ConfigError
    from crystalvae.model import CrystalVAE

    if args.n < 1:
        raise ConfigError("-n must be at least 1")
    constraints = parse_constraints(args)
    model = CrystalVAE.from_pretrained(args.model, device=args.device)
    directory = open_directory(args.output)
    began = time.perf_counter()
    kept, report = draw_checked(
        model,
        args.n,
        seed=args.seed,
        raw=args.raw,
        progress=args.progress,
        num_workers=args.workers,
        **draw_options(args),
        top_p=args.top_p,
        prior=args.prior,
        constraints=constraints,
    )
    crystals = [draw.crystal for draw in kept]
    names = [f"{i:05d}_{formula_name(crystal)}" for i, crystal in enumerate(crystals)]
    rows = []
    for name, item in zip(names, kept):
        checks = {
            check: "" if result.passed is None else result.passed
            for check, result in item.results.items()
        }
        rows.append(
            {"file": f"{name}.cif", **describe(item.crystal), **checks}
            | {"seed": args.seed, "draw": item.index}
        )
    seconds = time.perf_counter() - began
    groups = Counter(crystal.number for crystal in crystals)
    summary = {
        "model": str(args.model),
        "seed": args.seed,
        "raw": args.raw,
        "n": args.n,
        "batch_size": report.batch_size,
        "asked": {
            name: getattr(args, name)
            for name in ("composition", "elements", "space_group", "num_atoms", "prior")
            if getattr(args, name) is not None
        },
        "top_p": args.top_p,
        **sampling_defaults(model, **draw_options(args)),
        "written": len(kept),
        "draws": report.draws,
        "fallen": dict(report.fallen.most_common()),
        "p1_share": round(groups[1] / max(len(crystals), 1), 4),
        "space_groups": len(groups),
        "seconds": round(seconds, 2),
        "note": "checked for plausibility; novelty and stability were not computed",
    }
    write_crystals(directory, crystals, names, rows, summary)
    fell = ", ".join(f"{n} {reason}" for reason, n in report.fallen.most_common())
    print(
        f"{len(kept)} crystals in {directory} from {report.draws} draws "
        f"({fell or 'none'} fell) in {seconds:.1f} s"
    )
    return 0
