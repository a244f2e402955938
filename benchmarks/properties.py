"""How well does a property network know crystals that it never saw?

    python benchmarks/properties.py mp_20 mp_20_val [--skip 2000]

For each property: mean absolute error and R2 of its median, beside the error of the
training set's median as the only guess, and the share within its uncertainty; where
many crystals have exactly 0 (band gaps), how often it tells these from the others (area
under the curve) and the error of those that have more.
"""

import argparse

import numpy as np
import torch

from crystalvae.data.packed import PackedDataset
from crystalvae.model import CrystalVAE
from crystalvae.properties.score import property_estimates
from crystalvae.training.stability import area_under_curve

MANY = 0.1
"""Share of zeros from which on they are a class of their own."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("data", help="held-out crystals, made by prepare")
    parser.add_argument("--skip", type=int, default=0, help="first of them left out")
    args = parser.parse_args()
    model = CrystalVAE.from_pretrained(args.model)
    network = model.require_properties()
    dataset = PackedDataset(args.data)
    rows = np.arange(args.skip, len(dataset))
    found = property_estimates(network, [dataset[int(row)] for row in rows])
    print(
        f"{'property':28} {'known':>6} {'MAE':>7} {'R2':>6} {'guess':>7} {'within':>7}"
    )
    for name in network.names:
        truth = dataset.properties[name][rows]
        value = np.array([columns[name].value for columns in found])
        doubt = np.array([columns[name].uncertainty for columns in found])
        known = np.isfinite(truth)
        truth, value, doubt = truth[known], value[known], doubt[known]
        error = np.abs(value - truth)
        spread = ((truth - truth.mean()) ** 2).sum()
        guess = np.abs(truth - np.median(truth)).mean()
        explained = 1 - (error**2).sum() / spread
        print(
            f"{name:28} {len(truth):6d} {error.mean():7.4f} {explained:6.3f} "
            f"{guess:7.3f} {(error <= doubt).mean():7.1%}"
        )
        zero = truth == 0
        if MANY < zero.mean() < 1:
            area = area_under_curve(torch.tensor(value), torch.tensor(~zero))
            right = ((value > 0.05) == ~zero).mean()
            print(
                f"  {zero.mean():.1%} are 0: area {area:.3f}, right with 0.05 as the "
                f"border {right:.1%}; MAE of the others {error[~zero].mean():.3f}"
            )


if __name__ == "__main__":
    main()
