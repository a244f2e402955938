"""What users write of elements, compositions, space groups and sizes."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from itertools import chain
from numbers import Integral

import gemmi
from ase.data import atomic_numbers

from crystalvae.errors import ConfigError
from crystalvae.symmetry.tables import group_numbers, symmetry_tables

MAX_GROUP = 230


def parse_element(symbol: str) -> int:
    """Atomic number of an element symbol, or of what is written as one.

    Raises:
        ConfigError: there is no such element.
    """
    symbol = str(symbol)
    number = atomic_numbers.get(symbol, 0)
    if number < 1:
        meant = symbol.capitalize()
        hint = f"; did you mean {meant}" if atomic_numbers.get(meant, 0) > 0 else ""
        raise ConfigError(f"{symbol!r} is no element symbol{hint}")
    return number


def parse_elements(symbols: Iterable[str]) -> frozenset[int]:
    """Atomic numbers of symbols, or of a text with commas or hyphens between them.

    Raises:
        ConfigError: one of them is no element.
    """
    if isinstance(symbols, str):
        symbols = symbols.replace("-", ",").split(",")
    return frozenset(parse_element(str(symbol).strip()) for symbol in symbols)


def parse_required(
    given: Iterable[str],
) -> tuple[frozenset[int], tuple[frozenset[int], ...]]:
    """Elements that must occur, and sets of which one must.

    Args:
        given: symbols, or alternatives such as ``Mn/Fe/Co`` or ``["Mn", "Fe"]``; or
            a text with commas between them.

    Returns:
        Atomic numbers; and those of each set of alternatives.

    Raises:
        ConfigError: one of them is no element.
    """
    if isinstance(given, str):
        given = given.replace("-", ",").split(",")
    sets = [
        parse_elements(
            part if isinstance(part, (list, tuple)) else str(part).split("/")
        )
        for part in given
    ]
    single = frozenset(chain.from_iterable(own for own in sets if len(own) == 1))
    return single, tuple(own for own in sets if len(own) > 1)


def parse_range(text: str, what: str) -> tuple[int, int]:
    """First and last of a number or a range ``A-B``.

    Args:
        text: what the user gave.
        what: name of the option.

    Raises:
        ConfigError: it is neither, or empty.
    """
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


def parse_space_groups(given: Iterable[int | str] | int | str) -> frozenset[int]:
    """Numbers of space groups.

    Args:
        given: numbers, ranges such as ``139-142`` or symbols such as ``R-3m``, also of
            other settings (``Pbnm`` is 62), several or one, or a text with commas
            between them.

    Raises:
        ConfigError: one of them is no space group.
    """
    if isinstance(given, Integral):
        given = [given]
    elif isinstance(given, str):
        given = given.split(",")
    found: set[int] = set()
    for part in given:
        first, last = _groups_of(part)
        if not 1 <= first <= last <= MAX_GROUP:
            raise ConfigError(f"space groups go from 1 to {MAX_GROUP}, not {part}")
        found.update(range(first, last + 1))
    return frozenset(found)


def _groups_of(part: int | str) -> tuple[int, int]:
    """First and last number."""
    if isinstance(part, Integral):
        return int(part), int(part)
    if not isinstance(part, str):
        raise ConfigError(f"space groups are numbers or symbols, not {part!r}")
    text, numbers = part.replace(" ", ""), group_numbers()
    if text[:1].isdigit():
        return parse_range(text, "space group")
    if text not in numbers:
        setting = gemmi.find_spacegroup_by_name(text.replace("_", ""))
        if setting is not None and text[0].isupper():
            return setting.number, setting.number
        near = [text.capitalize()] if text.capitalize() in numbers else None
        near = near or get_close_matches(text, symmetry_tables().symbol[1:], 1)
        hint = f"did you mean {near[0]}" if near else "symbols are such as Fm-3m"
        raise ConfigError(f"{part!r} is no space group; {hint}")
    return numbers[text], numbers[text]


def parse_formula(text: str, what: str = "formula") -> dict[int, int]:
    """Atomic number → count of a formula, as it is written.

    Args:
        text: what the user gave.
        what: name of the option.

    Raises:
        ConfigError: it is no formula, or not integral.
    """
    from pymatgen.core import Composition

    try:
        counts = Composition(text).as_dict()
    except ValueError as error:
        raise ConfigError(f"{what} {text!r}: {error}") from error
    if not counts or any(n != int(n) for n in counts.values()):
        raise ConfigError(f"{what} {text!r} is not integral")
    return {parse_element(_bare(symbol)): int(n) for symbol, n in counts.items()}


def _bare(symbol: str) -> str:
    """A symbol without the charge that pymatgen gives what it does not know."""
    return symbol.rstrip("0123456789+-")


def parse_sizes(
    given: int | tuple[int, int] | str | None,
) -> tuple[int, int | None]:
    """Fewest and most atoms, from a number, both, or a text such as ``4-12``.

    Raises:
        ConfigError: it is none of these.
    """
    if given is None:
        return 1, None
    if isinstance(given, str):
        return parse_range(given, "the number of atoms")
    try:
        low, high = (given, given) if isinstance(given, Integral) else given
    except (TypeError, ValueError):
        low = high = None
    if not all(isinstance(n, Integral) and n is not True for n in (low, high)):
        raise ConfigError(f"the number of atoms is one number or two, not {given!r}")
    return int(low), int(high)


def symbols_of(given: Iterable | None, what: str) -> Iterable:
    """What was given, nothing for None.

    Raises:
        ConfigError: it cannot hold symbols.
    """
    if given is None:
        return ()
    if not isinstance(given, Iterable):
        raise ConfigError(f"{what} are symbols of elements, not {given!r}")
    return given
