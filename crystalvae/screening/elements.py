"""Where elements stand in the periodic table."""

from __future__ import annotations

NOBLE = (0, 2, 10, 18, 36, 54, 86, 118)
"""Atomic numbers with which periods end."""


def periodic_place(z: int) -> tuple[int, int, bool]:
    """Group (3 for f elements), period, and whether the element is of the f block."""
    period = next(p for p in range(1, 8) if z <= NOBLE[p])
    place, length = z - NOBLE[period - 1], NOBLE[period] - NOBLE[period - 1]
    if length == 32 and 3 <= place <= 16:
        return 3, period, True
    first = 1 if period == 1 else 2
    return place if place <= first else place + 18 - length, period, False
