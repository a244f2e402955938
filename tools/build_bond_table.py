"""Rebuild ``crystalvae/screening/bonds.json``: shortest distances in known crystals.

python tools/build_bond_table.py DATA_SET ... [--at-most 0.1]

Prepared sets of relaxed crystals; of those with a property ``e_above_hull`` only what
is at most so many eV/atom above the hull counts. Each pair of elements has the shortest
distance in Å and the number of crystals in which they are neighbours.
"""

import argparse
from collections import Counter
from pathlib import Path

import numpy as np
from ase.data import chemical_symbols

from crystalvae.data.packed import PackedDataset

SIZE = len(chemical_symbols)


def shortest_of(dataset: PackedDataset, row: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of elements that are neighbours in a crystal, and how near they come."""
    sites = slice(dataset.site_offset[row], dataset.site_offset[row + 1])
    species = np.asarray(dataset.atomic_number[sites], int)
    other = species[np.asarray(dataset.neighbor[sites])]
    low = np.minimum(species[:, None], other)
    high = np.maximum(species[:, None], other)
    pairs, place = np.unique((low * SIZE + high).ravel(), return_inverse=True)
    distances = np.full(len(pairs), np.inf)
    np.minimum.at(distances, place.ravel(), np.ravel(dataset.distance[sites]))
    return pairs, distances


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("datasets", nargs="+")
    parser.add_argument("--at-most", type=float, default=0.1)
    args = parser.parse_args()
    shortest, count = {}, Counter()
    for path in args.datasets:
        dataset = PackedDataset(path)
        heights = dataset.properties.get("e_above_hull", np.zeros(len(dataset)))
        for row in np.flatnonzero(np.asarray(heights) <= args.at_most).tolist():
            for pair, distance in zip(*shortest_of(dataset, row)):
                shortest[pair] = min(float(distance), shortest.get(pair, np.inf))
                count[pair] += 1
    lines = []
    for pair in sorted(shortest):
        low, high = (chemical_symbols[z] for z in divmod(int(pair), SIZE))
        lines.append(f'"{low}-{high}": [{round(shortest[pair], 3)}, {count[pair]}]')
    path = Path(__file__).resolve().parents[1] / "crystalvae/screening/bonds.json"
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(f"{len(lines)} pairs of elements in {path}")


if __name__ == "__main__":
    main()
