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
        "--require",
        metavar="Li,O,...",
        help="elements that must occur; Mn/Fe/Co is at least one of these",
    )
    parser.add_argument(
        "--composition",
        metavar="FORMULA",
        help="all atoms of the primitive cell: Li2Fe2P2O8 where it holds LiFePO4 twice",
    )
    parser.add_argument(
        "--space-group",
        metavar="N,M-K,...",
        help="space groups that may occur, numbers or symbols, such as 62,139-142,R-3m",
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


def parse_constraints(args: argparse.Namespace):
    """Constraints from :func:`add_constraint_options`.

    Raises:
        ConfigError: an option cannot be understood.
    """
    from crystalvae.generation.constraints import (
        Constraints,
        parse_elements,
        parse_formula,
        parse_range,
        parse_required,
        parse_space_groups,
    )

    composition = elements = groups = None
    if args.composition is not None:
        composition = parse_formula(args.composition, "--composition")
    if args.elements is not None:
        elements = parse_elements(args.elements)
    required, any_of = parse_required(() if args.require is None else args.require)
    excluded = parse_elements(() if args.exclude is None else args.exclude)
    if args.space_group is not None:
        groups = parse_space_groups(args.space_group)
    low, high = (
        (1, None)
        if args.num_atoms is None
        else parse_range(args.num_atoms, "--num-atoms")
    )
    return Constraints(
        composition, elements, groups, low, high, required, excluded, any_of
    )
