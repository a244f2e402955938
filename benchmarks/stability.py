"""How well stability is estimated, and what it is compared with.

    python benchmarks/stability.py choose runs/data/mp_20_substituted -n 100 -o some
    crystalvae screen some -o screened --reference runs/data/mp_20_train --relax chgnet
    python benchmarks/stability.py judge mp_20 screened ...

``choose`` writes random crystals of a data set that pass the checks of ``sample``, as a
baseline for draws. ``judge`` reads screenings with relaxations and says how the
estimates of a model's networks sort what was judged stable from what was not.
"""

import argparse
import csv
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr

from crystalvae import AsymmetricUnit, CrystalVAE
from crystalvae.data.load import load_crystals
from crystalvae.design.output import formula_name, write_crystals
from crystalvae.design.sample import check_crystal
from crystalvae.refinement.score import residuals
from crystalvae.screening.base import THRESHOLD
from crystalvae.screening.checks import first_failure
from crystalvae.stability.score import stability_estimates
from crystalvae.training.stability import area_under_curve

EDGES = (0.0, 0.25, 0.5, 0.8, 0.95, 1.01)


def choose(args: argparse.Namespace) -> None:
    kept = []
    for crystal in load_crystals(args.dataset, 2 * args.n, args.seed):
        if crystal is not None and first_failure(check_crystal(crystal)) is None:
            kept.append(crystal)
    kept = kept[: args.n]
    names = [f"{i:04d}_{formula_name(c)}" for i, c in enumerate(kept)]
    args.output.mkdir(parents=True)
    rows = [{"file": f"{name}.cif"} for name in names]
    write_crystals(args.output, kept, names, rows, {"dataset": args.dataset})


def judge(args: argparse.Namespace) -> None:
    model = CrystalVAE.from_pretrained(args.model)
    rows = []
    for folder in args.screened:
        with (folder / "table.csv").open(newline="") as file:
            rows += [row for row in csv.DictReader(file) if row["stable_value"]]
    crystals = [AsymmetricUnit.from_file(row["source"]) for row in rows]
    above = np.array([float(row["stable_value"]) for row in rows])
    stable = above <= THRESHOLD
    found = stability_estimates(model.require_stability(), crystals)
    probability = np.array([estimate.probability for estimate in found])
    energy = np.array([estimate.e_above_hull for estimate in found])
    residual = np.array(residuals(model.require_refiner(), crystals))
    print(
        "| probability | crystals | stable | on or below the hull |\n|---|---|---|---|"
    )
    for low, high in pairwise(EDGES):
        own = (probability >= low) & (probability < high)
        if own.any():
            share = f"{stable[own].mean():.0%} | {(above[own] <= 0).mean():.0%}"
            print(f"| from {low:g} | {own.sum()} | {share} |")
    share = f"{stable.mean():.0%} | {(above <= 0).mean():.0%}"
    print(f"| all | {len(rows)} | {share} |")
    for name, score in (("probability", probability), ("residual", -residual)):
        area = area_under_curve(torch.tensor(score), torch.tensor(stable))
        print(f"area under the curve of the {name}: {area:.3f}")
    rank = spearmanr(energy, above).statistic
    print(f"rank correlation of the estimated with the computed energy: {rank:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("choose")
    verb.add_argument("dataset")
    verb.add_argument("-n", type=int, default=100)
    verb.add_argument("--seed", type=int, default=8)
    verb.add_argument("-o", "--output", type=Path, required=True)
    verb.set_defaults(run=choose)
    verb = verbs.add_parser("judge")
    verb.add_argument("model")
    verb.add_argument("screened", type=Path, nargs="+")
    verb.set_defaults(run=judge)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
