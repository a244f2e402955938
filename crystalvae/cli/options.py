"""Options that several verbs share."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from crystalvae.files import shown

if TYPE_CHECKING:
    from crystalvae.model import CrystalVAE

T = TypeVar("T")


def at_least(low: int) -> Callable[[str], int]:
    """An argparse type: an integer from ``low`` upwards."""

    def integer(text: str) -> int:
        value = int(text)
        if value < low:
            raise argparse.ArgumentTypeError(f"{value} is less than {low}")
        return value

    return integer


def number(text: str) -> float:
    """An argparse type: a finite number, not negative."""
    value = float(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 0 upwards")
    return value


def finite(text: str) -> float:
    """An argparse type: a finite number."""
    value = float(text)
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text} is not a finite number")
    return value


def positive(text: str) -> float:
    """An argparse type: a finite number above 0."""
    value = number(text)
    if value == 0:
        raise argparse.ArgumentTypeError("0 is not positive")
    return value


def share(text: str) -> float:
    """An argparse type: above 0, at most 1."""
    value = positive(text)
    if value > 1:
        raise argparse.ArgumentTypeError(f"{text} is more than 1")
    return value


def seed(text: str) -> int:
    """An argparse type: an integer small enough to be multiplied."""
    value = int(text)
    if abs(value) > 10**12:
        raise argparse.ArgumentTypeError(f"{text} is too large")
    return value


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add what every training run is given."""
    parser.add_argument("config", type=Path, help="TOML file")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help="run directory"
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on from the last checkpoint"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a setting, such as training.epochs=5",
    )


def add_machine_options(parser: argparse.ArgumentParser, *names: str) -> None:
    """Add some of ``device``, ``workers`` and ``progress``."""
    if "device" in names:
        parser.add_argument("--device", help="cpu or cuda (cuda if there is one)")
    if "workers" in names:
        parser.add_argument(
            "--workers", type=at_least(1), help="processes (one a core)"
        )
    if "progress" in names:
        parser.add_argument(
            "--progress",
            action=argparse.BooleanOptionalAction,
            default=True,
            help="show a bar on stderr",
        )


def named(paths: list[str] | None) -> str | None:
    """Data sets that an option was given, as summaries name them."""
    return None if paths is None else ", ".join(map(shown, paths))


def add_polymorphs_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--polymorphs``."""
    parser.add_argument(
        "--polymorphs",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="METRe and cRMSE, which match every structure with the predictions for "
        "all of its composition",
    )


def add_draw_options(parser: argparse.ArgumentParser) -> None:
    """Add what decides how crystals are drawn."""
    parser.add_argument(
        "--seed", type=seed, default=0, help="any integer (%(default)s)"
    )
    parser.add_argument(
        "--beta", type=positive, help="the knob (the model's own choice)"
    )
    parser.add_argument(
        "--temperature", type=number, help="of every choice (the model's own choice)"
    )
    parser.add_argument(
        "--part-temperature",
        type=part_temperatures,
        metavar="PART=T,...",
        help="exceptions, such as count=0.3 (the model's own without --temperature)",
    )
    parser.add_argument(
        "--stop-bias",
        type=finite,
        metavar="B",
        help="added to the log odds that a composition ends, above 0 for fewer "
        "elements (the model's own without --temperature)",
    )
    parser.add_argument(
        "--element-bias",
        type=element_biases,
        metavar="SYMBOL=B,...",
        help="added to the log odds of elements, such as Li=1,Pb=-2 for more lithium "
        "and less lead, on top of the model's own (which is 0 with --temperature)",
    )
    add_condition_option(parser)
    add_refine_option(parser)
    parser.add_argument(
        "--prior", choices=("gaussian", "flow"), help="of the latent (the model's own)"
    )


def add_search_options(parser: argparse.ArgumentParser) -> None:
    """Add what decides how far crystals are drawn around known ones."""
    parser.add_argument(
        "--seed", type=seed, default=0, help="any integer (%(default)s)"
    )
    parser.add_argument(
        "--beta",
        type=positive,
        help="the knob: small keeps nearly all of a crystal, large little (the model's "
        "own choice)",
    )
    parser.add_argument(
        "--spread",
        type=number,
        default=1.0,
        help="the noise of the latent vectors is multiplied by this (%(default)s)",
    )
    parser.add_argument(
        "--temperature", type=number, default=1.0, help="of every choice (%(default)s)"
    )
    add_condition_option(parser)
    add_checks_option(parser)
    add_wanted_options(parser)
    add_refine_option(parser)


def search_settings(args: argparse.Namespace, model: CrystalVAE) -> dict[str, Any]:
    """What :func:`add_search_options` was given, or stands for it, for summaries."""
    from crystalvae.design.neighbors import default_beta
    from crystalvae.design.settings import (
        refinement_of,
        sampling_defaults,
        told_around,
    )
    from crystalvae.screening.checks import parse_checks

    beta = default_beta(model) if args.beta is None else args.beta
    how = sampling_defaults(
        model,
        beta=beta,
        conditions=told_around(model, args.condition, beta),
        condition_strength=args.condition_strength,
        likely_stable=args.likely_stable,
    )
    return {
        "seed": args.seed,
        "beta": beta,
        "spread": args.spread,
        "temperature": args.temperature,
        "conditions": how["conditions"],
        "condition_strength": how["condition_strength"],
        "checks": list(parse_checks(args.checks)),
        "likely_stable": args.likely_stable,
        "within": shown_windows(args.within),
        "refine": asdict(refinement_of(model, args.refine, purpose="design")),
    }


def add_checks_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--checks``."""
    parser.add_argument(
        "--checks",
        metavar="NAME,...",
        help="what must hold: some of volume, density, distance, radii, bonds, "
        "smact, charge and group (all but smact); leave out charge where compounds "
        "are wanted whose charges do not cancel, such as subnitrides",
    )


def add_wanted_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--likely-stable`` and ``--within``."""
    parser.add_argument(
        "--likely-stable",
        type=share,
        metavar="P",
        help="keep only crystals that are at most 0.1 eV/atom above the hull with at "
        "least this probability, as the model's stability network estimates it",
    )
    add_within_option(parser)


def require_wanted(args: argparse.Namespace, model: CrystalVAE) -> None:
    """Refuse a model that cannot judge what :func:`add_wanted_options` was given."""
    from crystalvae.design.wanted import Wanted

    Wanted(args.likely_stable, args.within or {}).require(model)


def shown_windows(within: dict[str, tuple[float, float]] | None) -> dict[str, str]:
    """What :func:`windows` was given, for summaries."""
    return {
        name: ":".join("" if math.isinf(end) else f"{end:g}" for end in window)
        for name, window in (within or {}).items()
    }


def add_within_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--within``."""
    parser.add_argument(
        "--within",
        type=windows,
        metavar="PROPERTY=LOW:HIGH,...",
        help="keep only crystals whose properties, as the model's networks estimate "
        "them, lie there, such as band_gap=1:3, band_gap=:0.05 for metals, or "
        "formation_energy_per_atom=:-1; `info` says which a model knows",
    )


def add_condition_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--condition``."""
    parser.add_argument(
        "--condition",
        type=conditions,
        metavar="PROPERTY=VALUE,...",
        help="properties that the decoder is told, such as "
        "band_gap=2,e_above_hull=0 (any: not told); `info` says which a model knows "
        "(the model's own choice)",
    )
    parser.add_argument(
        "--condition-strength",
        type=number,
        metavar="S",
        help="by how much that counts; above 1 draws obey better and are less diverse "
        "(the model's own choice)",
    )


def add_refine_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--refine``."""
    parser.add_argument(
        "--refine",
        type=refine_settings,
        metavar="NAME=VALUE,...",
        help="how the model's refiner is used, where not as the model's card says: "
        "passes (0 for no refinement), noise (angstrom) and strain that the first of "
        "them expects; limit: what the refiner would still change by more is refined "
        "again, repeats times at most with repeat_noise and repeat_strain, and then "
        "drawn again (inf for no limit); levels of noise at which that is asked",
    )


def part_temperatures(text: str) -> dict[str, float]:
    """Part → temperature from ``count=0.3,element=1``.

    Raises:
        argparse.ArgumentTypeError: it is not of that form.
    """
    return _named_numbers(text, "PART=TEMPERATURE", number)


def element_biases(text: str) -> dict[str, float]:
    """Symbol → bias from ``Li=1,Pb=-2``.

    Raises:
        argparse.ArgumentTypeError: it is not of that form.
    """
    return _named_numbers(text, "SYMBOL=B", finite)


def conditions(text: str) -> dict[str, float | None]:
    """Property → value from ``band_gap=2,e_above_hull=any``, None for any.

    Raises:
        argparse.ArgumentTypeError: it is not of that form.
    """
    return _named_numbers(
        text, "PROPERTY=VALUE", lambda word: None if word == "any" else finite(word)
    )


def windows(text: str) -> dict[str, tuple[float, float]]:
    """Property → smallest and largest value from ``band_gap=1:3,e_above_hull=:0.05``.

    Raises:
        argparse.ArgumentTypeError: it is not of that form.
    """

    def window(words: str) -> tuple[float, float]:
        low, colon, high = (part.strip() for part in words.partition(":"))
        if not colon or not (low or high):
            raise argparse.ArgumentTypeError("give LOW:HIGH, LOW: or :HIGH")
        ends = finite(low) if low else -math.inf, finite(high) if high else math.inf
        if ends[0] > ends[1]:
            raise argparse.ArgumentTypeError("the smaller number comes first")
        return ends

    return _named_numbers(text, "PROPERTY=LOW:HIGH", window)


def refine_settings(text: str) -> dict[str, float | None]:
    """Field of :class:`~crystalvae.generation.Refinement` → value, None for limit=inf.

    Raises:
        argparse.ArgumentTypeError: it is not of the form ``passes=3,limit=inf``.
    """
    found = _named_numbers(text, "NAME=VALUE", float)
    whole = {name: int(value) for name, value in found.items() if value.is_integer()}
    found |= whole
    return found | ({"limit": None} if found.get("limit") == math.inf else {})


def _named_numbers(text: str, form: str, convert: Callable[[str], T]) -> dict[str, T]:
    found: dict[str, T] = {}
    for entry in text.split(","):
        name, equals, value = (part.strip() for part in entry.partition("="))
        if name in found:
            raise argparse.ArgumentTypeError(f"{name} is given twice")
        try:
            found[name] = convert(value)
        except argparse.ArgumentTypeError as error:
            raise argparse.ArgumentTypeError(f"{entry!r}: {error}") from error
        except ValueError as error:
            fault = f"{value!r} is no number" if equals else f"it is not {form}"
            raise argparse.ArgumentTypeError(f"{entry!r}: {fault}") from error
    return found


def draw_options(args: argparse.Namespace) -> dict:
    """What :func:`add_draw_options` was given, as arguments of ``draws``."""
    return {
        "beta": args.beta,
        "temperature": args.temperature,
        "part_temperature": args.part_temperature,
        "stop_bias": args.stop_bias,
        "element_bias": args.element_bias,
        "conditions": args.condition,
        "condition_strength": args.condition_strength,
        "refine": args.refine,
    }
