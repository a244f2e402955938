"""Can a composition still be completed with the Wyckoff positions that are left?

An exact look-ahead for decoding: sites come in the order of (letter, element), a
position without freedom is used once at most, and every element's atoms must be used
up exactly.
"""

from __future__ import annotations

from functools import cache, lru_cache

import numpy as np

from crystalvae.symmetry.tables import symmetry_tables

MAX_TOTAL = 1536
"""Largest number of atoms of an element in a conventional cell that is considered."""


@cache
def _positions(number: int) -> tuple[tuple[int, ...], tuple[bool, ...]]:
    """Multiplicities of a group's letters, and whether each can be used repeatedly."""
    tables = symmetry_tables()
    size = int((tables.multiplicity[number] > 0).sum())
    return (
        tuple(int(m) for m in tables.multiplicity[number, :size]),
        tuple(bool(d > 0) for d in tables.dof[number, :size]),
    )


@cache
def _reachable(number: int, after: int) -> np.ndarray:
    """Totals that free positions above the letter ``after`` can make."""
    multiplicities, repeatable = _positions(number)
    possible = np.zeros(MAX_TOTAL + 1, bool)
    possible[0] = True
    steps = {
        m
        for letter, (m, again) in enumerate(zip(multiplicities, repeatable))
        if again and letter > after
    }
    for step in steps:
        for start in range(step):
            possible[start::step] = np.logical_or.accumulate(possible[start::step])
    return possible


@cache
def _singles(number: int, after: int) -> tuple[tuple[int, int], ...]:
    """(multiplicity, how many) of once-only positions above ``after``, descending."""
    multiplicities, repeatable = _positions(number)
    count: dict[int, int] = {}
    for letter, (m, again) in enumerate(zip(multiplicities, repeatable)):
        if not again and letter > after:
            count[m] = count.get(m, 0) + 1
    return tuple(sorted(count.items(), reverse=True))


@lru_cache(maxsize=500_000)
def can_complete(
    number: int, letter: int, open_from: int, remaining: tuple[int, ...]
) -> bool:
    """Whether ``remaining`` atoms fit exactly on the positions still to come.

    Args:
        number: space-group number.
        letter: letter of the last placed site, -1 before the first.
        open_from: elements at this place of ``remaining`` and later may use
            ``letter`` again, if it has freedom (elements ascend within a letter).
        remaining: atoms of each element left in the conventional cell, in the order of
            atomic numbers.
    """
    if not any(remaining):
        return True
    if max(remaining) > MAX_TOTAL:
        return False
    multiplicities, repeatable = _positions(number)
    later = _reachable(number, letter)
    again = letter >= 0 and repeatable[letter]
    step = multiplicities[letter] if again else 0

    def fills(place: int, amount: int) -> bool:
        if later[amount]:
            return True
        if not again or place < open_from:
            return False
        return any(later[rest] for rest in range(amount - step, -1, -step))

    singles = _singles(number, letter)
    order = sorted(
        (place for place in range(len(remaining)) if remaining[place]),
        key=lambda place: remaining[place],
    )
    seen: set[tuple[int, tuple[int, ...]]] = set()

    def search(depth: int, left: tuple[int, ...]) -> bool:
        if depth == len(order):
            return True
        if (depth, left) in seen:
            return False
        seen.add((depth, left))
        place = order[depth]

        def use(kind: int, amount: int, rest: tuple[int, ...]) -> bool:
            if fills(place, amount) and search(depth + 1, rest):
                return True
            for index in range(kind, len(singles)):
                size = singles[index][0]
                if rest[index] and size <= amount:
                    fewer = (*rest[:index], rest[index] - 1, *rest[index + 1 :])
                    if use(index, amount - size, fewer):
                        return True
            return False

        return use(0, remaining[place], left)

    return search(0, tuple(count for _, count in singles))
