"""How many real structures become asymmetric units, and do they match their input?

    python benchmarks/round_trip.py mp_20/val.csv.gz perov_5/val.csv.gz ...

Prints, for each input, the share that converts, the share of those whose
reconstruction from the asymmetric unit matches under StructureMatcher's defaults, the
mean RMSE of the matches (the representation's floor) and the speed.
"""

import argparse
import time

import numpy as np

from crystalvae.benchmark.matching import match_distances
from crystalvae.data.readers import read_structures
from crystalvae.errors import InvalidStructureError
from crystalvae.symmetry.standardize import standardize


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("inputs", nargs="+")
    parser.add_argument("--workers", type=int, default=None)
    args = parser.parse_args()
    for path in args.inputs:
        entries = list(read_structures(path))
        crystals, references = [], []
        began = time.perf_counter()
        for entry in entries:
            if entry.error is not None:
                continue
            try:
                crystal = standardize(
                    entry.lattice, entry.frac_coords, entry.atomic_numbers
                )
            except InvalidStructureError:
                continue
            crystals.append(crystal)
            references.append(entry)
        seconds = time.perf_counter() - began
        distances = match_distances(
            [crystal.to_structure() for crystal in crystals],
            [entry.structure for entry in references],
            num_workers=args.workers,
            stol=0.3,
            ltol=0.2,
            angle_tol=5,
        )
        matched = [d for d in distances if d is not None]
        print(
            f"{path}: {len(crystals)}/{len(entries)} converted "
            f"({len(crystals) / len(entries):.4%}), {len(matched)} match "
            f"({len(matched) / len(crystals):.4%}), RMSE {np.mean(matched):.5f}, "
            f"{1e3 * seconds / len(entries):.2f} ms each"
        )


if __name__ == "__main__":
    main()
