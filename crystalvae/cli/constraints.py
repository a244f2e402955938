"""Options that say what every crystal must obey."""

from __future__ import annotations

import argparse


def add_constraint_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--num-atoms``, ``--elements``, ``--require`` and the others."""
    parser.add_argument(
        "--num-atoms",
        metavar="N or A-B",
        help="atoms in the primitive cell, a number or a range",
    )
    parser.add_argument(
        "--elements", metavar="Li,Fe,...", help="elements that may occur"
    )
    parser.add_argument(
        "--exclude", metavar="Tl,Cd,...", help="elements that must not occur"
    )
    parser.add_argument(
        "--require", metavar="Li,O,...", help="elements that must occur"
    )
    parser.add_argument(
        "--composition",
        metavar="FORMULA",
        help="all atoms of the primitive cell: Li2Fe2P2O8 where it holds LiFePO4 twice",
    )
    parser.add_argument(
        "--space-group", metavar="N,M-K,...", help="space-group numbers that may occur"
    )


def asked_constraints(args: argparse.Namespace) -> dict[str, str]:
    """Those of :func:`add_constraint_options` that were given, as they were given."""
    names = (
        "composition",
        "elements",
        "exclude",
        "require",
        "space_group",
        "num_atoms",
    )
    given = {name: getattr(args, name) for name in names}
    return {name: value for name, value in given.items() if value is not None}


def parse_range(text: str, what: str) -> tuple[int, int]:
    """First and last of a number or a range ``A-B``.

    Args:
        text: what the user gave.
        what: name of the option.

    Raises:
        ConfigError: it is neither, or empty.
    """
    from crystalvae.errors import ConfigError

    low, hyphen, high = text.partition("-")
    try:
        first = int(low)
        last = int(high) if hyphen else first
    except ValueError as error:
        raise ConfigError(
            f"{what} must be a number or a range A-B, not {text!r}"
        ) from error
    if not 1 <= first <= last:
        raise ConfigError(f"{what} {text!r} is an empty range")
    return first, last


def parse_constraints(args: argparse.Namespace):
    """Constraints from :func:`add_constraint_options`.

    Raises:
        ConfigError: an option cannot be understood.
    """
    from crystalvae.errors import ConfigError
    from crystalvae.generation.constraints import (
        Constraints,
        parse_elements,
        parse_formula,
    )

    composition = elements = groups = None
    if args.composition is not None:
        composition = parse_formula(args.composition, "--composition")
    if args.elements is not None:
        elements = parse_elements(args.elements)
    required, excluded = (
        frozenset() if given is None else parse_elements(given)
        for given in (args.require, args.exclude)
    )
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
    return Constraints(composition, elements, groups, low, high, required, excluded)
