"""The command line: one file a verb; heavy imports inside each."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import traceback
from importlib import import_module
from types import ModuleType

VERBS = (
    "sample",
    "reconstruct",
    "predict",
    "neighbors",
    "optimize",
    "walk",
    "axes",
    "match",
    "validate",
    "screen",
    "benchmark",
    "tradeoff",
    "prepare",
    "substitute",
    "energies",
    "train",
    "train-refiner",
    "train-stability",
    "train-properties",
    "calibrate",
    "info",
    "datasets",
)


def _module(verb: str) -> ModuleType:
    return import_module(f"crystalvae.cli.{verb.replace('-', '_')}")


def build_parser() -> argparse.ArgumentParser:
    """The parser with all verbs."""
    parser = argparse.ArgumentParser(
        prog="crystalvae",
        description="Generate symmetric, valid crystals with a graph beta-VAE.",
    )
    parser.add_argument(
        "--debug", action="store_true", help="show the traceback of an error"
    )
    subparsers = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb in VERBS:
        _module(verb).add_parser(subparsers)
        subparsers.choices[verb].add_argument(
            "--debug",
            action="store_true",
            default=argparse.SUPPRESS,
            help=argparse.SUPPRESS,
        )
    return parser


def _how_to_go_on(args: argparse.Namespace) -> str:
    if args.verb in ("prepare", "screen", "energies"):
        return "run the same command again to go on"
    if args.verb in ("train", "train-refiner", "train-stability", "train-properties"):
        return "run the same command with --resume to go on"
    if args.verb == "substitute":
        return "nothing was written, run the same command again"
    output = getattr(args, "output", None)
    if output is None or not output.exists():
        return "run the same command again"
    return f"{output} is incomplete, delete it and run the same command again"


def main(argv: list[str] | None = None) -> int:
    """Run a command.

    Returns:
        0 done, 1 an error that the user can mend (one line on stderr), 2 wrong usage,
        130 interrupted.
    """
    from crystalvae.errors import CrystalVAEError

    # Large pages for torch's CPU memory: training is a fifth faster. Read when torch is
    # first imported, so not later than here.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    # Threads that wait for each other give up spinning soon: beside other work on the
    # same cores, sampling was sixty times slower without.
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    for stream in (sys.stdout, sys.stderr):  # where β cannot be printed, ? is
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    args = build_parser().parse_args(argv)
    logger = logging.getLogger("crystalvae")
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    run = _module(args.verb).run
    try:
        return run(args)
    except CrystalVAEError as error:
        if args.debug:
            traceback.print_exc()
        print(f"crystalvae: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"crystalvae: interrupted; {_how_to_go_on(args)}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 1
    except Exception as error:
        if args.debug:
            traceback.print_exc()
        print(
            f"crystalvae: unexpected {type(error).__name__}: {error} "
            "(--debug shows where; please report it)",
            file=sys.stderr,
        )
        return 1
