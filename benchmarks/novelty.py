"""How fast are uniqueness and novelty, and are they what StructureMatcher says?

    python benchmarks/novelty.py runs/data/mp_20_train runs/data/mp_20_val \
        [--more runs/data/mp_20_extra_train] [--sizes 1000x26332 10000x26332]

The first data set is the reference, the others are looked up in it. Where a size asks
for more crystals than there are, distorted copies follow. Brute force is
StructureMatcher at its defaults on every pair of equal formula until one matches, on a
sample of the crystals looked up; its seconds are scaled to all of them. CPU seconds
count all processes and are what to compare on a busy machine.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import time
from itertools import islice
from pathlib import Path

import numpy as np

from crystalvae.crystal import AsymmetricUnit
from crystalvae.data.packed import PackedDataset
from crystalvae.screening.fingerprint import NearestKnown, reference_fingerprints
from crystalvae.screening.match import Match
from crystalvae.screening.reduced import reduced_cell
from crystalvae.screening.uniqueness import (
    ReferenceIndex,
    default_matcher,
    duplicate_of,
    find_known,
)


class Clock:
    """Seconds since it was made: on the wall, and of all processes."""

    def __init__(self):
        self.wall, self.cpu = time.perf_counter(), self._cpu()

    @staticmethod
    def _cpu() -> float:
        return sum(os.times()[:4])

    def read(self) -> tuple[float, float]:
        return time.perf_counter() - self.wall, self._cpu() - self.cpu


def distorted(crystal: AsymmetricUnit, size: float, rng) -> AsymmetricUnit:
    """Free coordinates moved by about ``size`` Å, volume changed by up to 10 %."""
    scale = rng.uniform(0.97, 1.03)
    moves = rng.normal(size=crystal.frac_coords.shape) * size
    coords = crystal.frac_coords + moves @ np.linalg.inv(crystal.lattice)
    lattice = crystal.lattice * scale
    return dataclasses.replace(crystal, lattice=lattice, frac_coords=coords)


def take(sets: list[PackedDataset], count: int, rng) -> list[AsymmetricUnit]:
    """So many crystals of the sets, then distorted copies of them."""
    found = [c[i] for c in sets for i in range(min(len(c), count))][:count]
    real = len(found)
    while len(found) < count:
        found.append(distorted(found[len(found) % real], 0.05, rng))
    return found


def brute_force(crystals: list[AsymmetricUnit], index: ReferenceIndex) -> list[bool]:
    matcher = default_matcher()
    verdicts = []
    for crystal in crystals:
        own = crystal.to_structure()
        others = (
            index.dataset[row].to_structure()
            for row in index.candidates(crystal.composition)
        )
        verdicts.append(any(matcher.fit(own, other) for other in others))
    return verdicts


def timing(size: str, sets: list[PackedDataset], sample: int) -> None:
    rng = np.random.default_rng(0)
    count, known = map(int, size.split("x"))
    reference = take(sets[:1], known, rng)
    crystals = take(sets[1:], count, rng)
    clock = Clock()
    index = ReferenceIndex(reference)
    rows = find_known(crystals, index)
    novelty = clock.read()
    clock = Clock()
    labels = duplicate_of(crystals)
    unique = clock.read()
    clock = Clock()
    nearest = NearestKnown(reference_fingerprints(reference))
    nearest(reference_fingerprints(crystals))
    continuous = clock.read()
    chosen = rng.choice(count, min(sample, count), replace=False).tolist()
    clock = Clock()
    expected = brute_force([crystals[i] for i in chosen], index)
    brute = clock.read()[1] * count / len(chosen)
    agree = sum(e == (rows[i] is not None) for e, i in zip(expected, chosen))
    print(
        f"{size:>14}  novelty {novelty[0]:7.1f} s ({novelty[1]:7.1f} CPU)"
        f"  uniqueness {unique[0]:7.1f} s ({unique[1]:7.1f} CPU)"
        f"  continuous {continuous[0]:7.1f} s ({continuous[1]:7.1f} CPU)"
        f"  brute-force novelty {brute:8.0f} CPU = {brute / novelty[1]:6.1f} times"
        f"  known {sum(row is not None for row in rows)}"
        f"  unique {sum(i == label for i, label in enumerate(labels))}"
        f"  same verdict {agree}/{len(chosen)}",
        flush=True,
    )


def pairs(sets: list[PackedDataset], rng):
    """Crystals of equal formula: two of the data, or one and its distorted copy."""
    reference = sets[0]
    index = ReferenceIndex(reference)
    while True:
        other = sets[1 + int(rng.integers(len(sets) - 1))]
        crystal = other[int(rng.integers(len(other)))]
        rows = index.candidates(crystal.composition)
        for row in rng.permutation(rows)[:4].tolist():
            yield crystal, reference[row]
        size = float(rng.choice([0.05, 0.2, 0.4, 0.8]))
        yield distorted(crystal, size, rng), crystal


def agreement(sets: list[PackedDataset], wanted: int) -> None:
    matcher = default_matcher()
    table = np.zeros((2, 2), dtype=int)
    spent = np.zeros(2)
    for one, other in islice(pairs(sets, np.random.default_rng(1)), 100 * wanted):
        if table.sum(1).min() >= wanted:
            break
        clock = Clock()
        expected = bool(matcher.fit(one.to_structure(), other.to_structure()))
        seconds = clock.read()[1]
        if table[int(expected)].sum() >= wanted:
            continue
        spent[0] += seconds
        clock = Clock()
        first, second = reduced_cell(one), reduced_cell(other)
        found = bool(first and second and Match(first)(second))
        spent[1] += clock.read()[1]
        table[int(expected), int(found)] += 1
    (new, wrong), (missed, same) = table.tolist()
    print(f"pairs of equal formula: {same + missed} match, {new + wrong} do not")
    print(f"CPU seconds: StructureMatcher {spent[0]:.1f}, here {spent[1]:.1f}")
    print(f"recall {same / max(1, same + missed):.4f}: {missed} missed")
    print(f"precision {same / max(1, same + wrong):.4f}: {wrong} wrong", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("reference", type=Path, help="prepared data set")
    parser.add_argument("crystals", type=Path, help="prepared data set to look up")
    parser.add_argument("--more", type=Path, nargs="*", default=[])
    parser.add_argument("--sizes", nargs="*", default=["1000x26332", "10000x26332"])
    parser.add_argument("--sample", type=int, default=100, help="for brute force")
    parser.add_argument("--pairs", type=int, default=1000, help="of each outcome")
    args = parser.parse_args()
    sets = [PackedDataset(path) for path in (args.reference, args.crystals, *args.more)]
    for size in args.sizes:
        timing(size, sets, args.sample)
    if args.pairs:
        agreement(sets, args.pairs)


if __name__ == "__main__":
    main()
