"""Options that several verbs share."""

from __future__ import annotations

import argparse


def add_machine_options(parser: argparse.ArgumentParser, *names: str) -> None:
    """Add some of ``device``, ``workers`` and ``progress``."""
    if "device" in names:
        parser.add_argument("--device", help="cpu or cuda (cuda if there is one)")
    if "workers" in names:
        parser.add_argument("--workers", type=int, help="processes (one a core)")
    if "progress" in names:
        parser.add_argument(
            "--progress",
            action=argparse.BooleanOptionalAction,
            default=True,
            help="show a bar on stderr",
        )


def add_draw_options(parser: argparse.ArgumentParser) -> None:
    """Add what decides how crystals are drawn."""
    parser.add_argument("--seed", type=int, default=0, help="any integer (%(default)s)")
    parser.add_argument("--beta", type=float, help="the knob (the model's own choice)")
    parser.add_argument(
        "--temperature", type=float, help="of every choice (the model's own choice)"
    )
    parser.add_argument(
        "--part-temperature",
        type=part_temperatures,
        metavar="PART=T,...",
        help="exceptions, such as count=0.3 (the model's own without --temperature)",
    )
    parser.add_argument(
        "--prior", choices=("gaussian", "flow"), help="of the latent (the model's own)"
    )


def part_temperatures(text: str) -> dict[str, float]:
    """Part → temperature from ``count=0.3,element=1``.

    Raises:
        argparse.ArgumentTypeError: it is not of that form.
    """
    found = {}
    for entry in text.split(","):
        part, _, value = entry.partition("=")
        try:
            found[part.strip()] = float(value)
        except ValueError as error:
            raise argparse.ArgumentTypeError(
                f"{entry!r} is not of the form PART=TEMPERATURE"
            ) from error
    return found


def draw_options(args: argparse.Namespace) -> dict:
    """β and temperatures that were asked for, as arguments of ``draws``."""
    return {
        "beta": args.beta,
        "temperature": args.temperature,
        "part_temperature": args.part_temperature,
    }
