"""Several sets of known crystals as one."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING

from crystalvae.data.packed import PackedDataset, material_id

if TYPE_CHECKING:
    from crystalvae.crystal import AsymmetricUnit

KnownSet = PackedDataset | Sequence["AsymmetricUnit"]


class NamedCrystals(Sequence):
    """Crystals in memory, with their identifiers.

    Args:
        material_ids: one a crystal.
        crystals: as many.
    """

    def __init__(self, material_ids: Sequence[str], crystals: Sequence[AsymmetricUnit]):
        self.material_ids = list(material_ids)
        self.crystals = list(crystals)

    def __len__(self) -> int:
        return len(self.crystals)

    def __getitem__(self, index: int) -> AsymmetricUnit:
        """The crystal at ``index``."""
        return self.crystals[index]


class JoinedSets(Sequence):
    """Data sets one after the other, none of them copied.

    Args:
        parts: packed data sets, or crystals in memory.
    """

    def __init__(self, parts: Sequence[KnownSet]):
        self.parts = list(parts)
        self.starts = [0, *accumulate(len(part) for part in self.parts)]

    def __len__(self) -> int:
        return self.starts[-1]

    def __getitem__(self, index: int) -> AsymmetricUnit:
        """The crystal at ``index``, counted through all parts."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"{index} is out of range for {len(self)} crystals")
        index %= len(self)
        part = bisect_right(self.starts, index) - 1
        return self.parts[part][index - self.starts[part]]

    @cached_property
    def material_ids(self) -> list[str]:
        """Identifiers; places in their set where crystals have none."""
        return [
            material_id(part, row) or str(row)
            for part in self.parts
            for row in range(len(part))
        ]


def parts_of(known: KnownSet | JoinedSets) -> list[tuple[int, KnownSet]]:
    """First row and set of each part; a single set is one."""
    if isinstance(known, JoinedSets):
        return list(zip(known.starts, known.parts))
    return [(0, known)]
