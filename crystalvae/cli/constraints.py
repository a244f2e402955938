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
    from crystalvae.generation.constraints import Constraints

    asked = asked_constraints(args)
    return Constraints.of(space_groups=asked.pop("space_group", None), **asked)
