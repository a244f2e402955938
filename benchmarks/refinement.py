"""What refining does to draws, in a potential that had no part in the training.

    pip install ".[stability]"
    python benchmarks/refinement.py mp_20 -n 100 --passes 0 1 3 5 10

The same draws, refined in more and more passes, each time from what the decoder made,
and last as the model's card says, with its repeats: their energies relative to those of
the unrefined ones, and the largest force and stress in CHGNet (single points, no
relaxation). The last column is the time for all draws.
"""

import argparse
import time
import warnings
from dataclasses import replace
from itertools import islice

import numpy as np
import torch

from crystalvae.batch import CrystalStore
from crystalvae.design.sample import check_crystal, draws
from crystalvae.design.settings import refinement_of
from crystalvae.generation.options import Generated, Refinement, SamplingOptions
from crystalvae.generation.refine import refine
from crystalvae.geometry.lattice import coords_to_lattice
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


def as_generated(crystals: list) -> Generated:
    """Crystals as what a decoder gives."""
    batch = CrystalStore.from_crystals(crystals).batch(torch.arange(len(crystals)))
    no = torch.zeros(len(crystals), dtype=torch.bool)
    return Generated(
        number=batch.number,
        lattice=coords_to_lattice(batch.lattice_coords),
        num_sites=batch.num_sites,
        wyckoff=batch.wyckoff,
        atomic_numbers=batch.atomic_numbers,
        frac_coords=batch.frac_coords,
        complete=~no,
        collides=no,
        residual=torch.zeros(len(crystals)),
        element=batch.comp_element,
        count=batch.comp_count,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("-n", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--passes", type=int, nargs="+", default=[0, 1, 3, 5, 10])
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    model = CrystalVAE.from_pretrained(args.model, device="cpu")
    refiner = model.require_refiner()
    card = refinement_of(model)
    calculator = load_potential("chgnet")
    stream = draws(model, seed=args.seed, batch_size=args.n, refine={"passes": 0})
    drawn = [
        crystal
        for crystal in islice(stream, args.n)
        if crystal is not None and first_failure(check_crystal(crystal)) is None
    ]
    before = single_points(drawn, calculator)
    print(f"{len(drawn)} draws; {card}")
    print("| passes | energy, mean, median (eV/atom) | lower | force | stress | s |")
    print("|---|---|---|---|---|---|")
    settings = [
        (str(passes), replace(card, passes=passes, repeats=0)) for passes in args.passes
    ]
    for name, how in [*settings, ("card", card)]:
        began = time.perf_counter()
        found = refined(drawn, refiner, how)
        seconds = time.perf_counter() - began
        after = single_points(found, calculator)
        change = after[:, 0] - before[:, 0]
        force, stress = np.median(after[:, 1:], axis=0)
        print(
            f"| {name} | {change.mean():+.3f}, {np.median(change):+.3f} "
            f"| {(change < 0).mean():.0%} | {force:.2f} eV/Å | {stress:.1f} GPa "
            f"| {seconds:.1f} |",
            flush=True,
        )


def refined(crystals: list, refiner, how: Refinement) -> list:
    """Crystals after refinement, or as they are where it failed."""
    made = as_generated(crystals)
    if how.passes:
        refine(refiner, made, how, SamplingOptions().min_distance)
    return made.crystals()


if __name__ == "__main__":
    main()
