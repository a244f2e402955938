"""``crystalvae datasets``: list the cards, fetch a data set."""

from __future__ import annotations

import argparse
from pathlib import Path

from crystalvae.cli.options import add_machine_options


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the verb."""
    parser = subparsers.add_parser("datasets", help="list or fetch data sets")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("list", help="what there is")
    fetch = actions.add_parser("fetch", help="download one, or make the built-in one")
    fetch.add_argument("name", help="as in the list")
    fetch.add_argument("-o", "--output", type=Path, help="directory (NAME)")
    add_machine_options(fetch, "progress")


def run(args: argparse.Namespace) -> int:
    """List or fetch."""
    from crystalvae.data.cards import fetch, load_cards

    if args.action == "list":
        for name, card in load_cards().items():
            sizes = ", ".join(f"{split} {n}" for split, n in card["splits"].items())
            print(f"{name:11s} {card['title']} ({sizes or 'see its card'})")
        return 0
    for path in fetch(
        args.name, args.output or Path(args.name), progress=args.progress
    ):
        print(path)
    return 0
