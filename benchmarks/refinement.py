"""What refining does to draws, in a potential that had no part in the training.

    pip install ".[stability]"
    python benchmarks/refinement.py mp_20 -n 100 --passes 0 1 3 5 10

The same draws, refined in more and more passes, each time from what the decoder made:
their energies relative to those of the unrefined ones, and the largest force and stress
in CHGNet (single points, no relaxation). The last column is the time for all draws.
"""

import argparse
import time
import warnings
from itertools import islice

import numpy as np

from crystalvae.design.sample import check_crystal, draws, refinement_of
from crystalvae.model import CrystalVAE
from crystalvae.screening.checks import first_failure
from crystalvae.screening.potentials import load_potential

GPA = 160.2177


def single_points(crystals: list, calculator) -> np.ndarray:
    """Energy (eV/atom), largest force (eV/Å) and stress (GPa) of each, ``(N, 3)``."""
    rows = []
    for crystal in crystals:
        atoms = crystal.to_atoms()
        atoms.calc = calculator
        force = np.linalg.norm(atoms.get_forces(), axis=1).max()
        stress = np.abs(atoms.get_stress()).max() * GPA
        rows.append((atoms.get_potential_energy() / len(atoms), force, stress))
    return np.array(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("-n", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--passes", type=int, nargs="+", default=[0, 1, 3, 5, 10])
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    model = CrystalVAE.from_pretrained(args.model, device="cpu")
    card = refinement_of(model)
    calculator = load_potential("chgnet")
    kept = before = None
    print(f"noise {card.noise} Å, strain {card.strain}")
    print("| passes | energy, mean, median (eV/atom) | lower | force | stress | s |")
    print("|---|---|---|---|---|---|")
    for passes in args.passes:
        began = time.perf_counter()
        found = draws(
            model,
            seed=args.seed,
            batch_size=args.n,
            refine={"passes": passes, "limit": None, "repeats": 0},
        )
        crystals = list(islice(found, args.n))
        seconds = time.perf_counter() - began
        if kept is None:
            kept = [
                place
                for place, crystal in enumerate(crystals)
                if crystal is not None and first_failure(check_crystal(crystal)) is None
            ]
        found = single_points([crystals[place] for place in kept], calculator)
        before = found if before is None else before
        change = found[:, 0] - before[:, 0]
        force, stress = np.median(found[:, 1:], axis=0)
        print(
            f"| {passes} | {change.mean():+.3f}, {np.median(change):+.3f} "
            f"| {(change < 0).mean():.0%} | {force:.2f} eV/Å | {stress:.1f} GPa "
            f"| {seconds:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
