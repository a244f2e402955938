"""Do draws have the property that they were told?

    python benchmarks/conditions.py mp_20 mp_20_val band_gap 0 1 2 4 6 [-n 1500]
        [--beta 1] [--strength 2] [--within 0.5]

Draws that match a held-out crystal have that crystal's property, which neither the
model nor this script computed. For each value: how many held-out crystals were met, and
the quartiles and outer deciles of what they have. With ``--within`` only draws count
whose estimate by the model's property network is that near to what they were told.
"""

import argparse

import numpy as np

from crystalvae.data.packed import PackedDataset
from crystalvae.design.sample import raw_draws
from crystalvae.model import CrystalVAE
from crystalvae.properties.score import property_estimates
from crystalvae.screening.uniqueness import ReferenceIndex, find_known

SHARES = (10, 25, 50, 75, 90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("data", help="held-out crystals, made by prepare")
    parser.add_argument("property", help="one that the model can be told")
    parser.add_argument("values", type=float, nargs="+")
    parser.add_argument("-n", type=int, default=1500, help="draws for each value")
    parser.add_argument("--beta", type=float, default=1.0)
    parser.add_argument("--strength", type=float, default=2.0)
    parser.add_argument("--within", type=float, default=np.inf)
    parser.add_argument("--seed", type=int, default=3)
    args = parser.parse_args()
    model = CrystalVAE.from_pretrained(args.model)
    dataset = PackedDataset(args.data)
    truth = dataset.properties[args.property]
    index = ReferenceIndex(dataset)
    shares = " ".join(f"{share:>7}%" for share in SHARES)
    print(f"{'told':>8} {'kept':>6} {'met':>5} {shares} {'mean absolute distance':>24}")
    for value in args.values:
        drawn = raw_draws(
            model,
            args.n,
            seed=args.seed,
            beta=args.beta,
            conditions={args.property: value},
            condition_strength=args.strength,
        )
        drawn = [crystal for crystal in drawn if crystal]
        if args.within < np.inf:
            judged = property_estimates(model.require_properties(), drawn)
            drawn = [
                crystal
                for crystal, columns in zip(drawn, judged)
                if abs(columns[args.property].value - value) <= args.within
            ]
        rows = find_known(drawn, index)
        kept = f"{len(drawn) / args.n:6.1%}"
        met = truth[sorted({row for row in rows if row is not None})]
        met = met[np.isfinite(met)]
        if not len(met):
            print(f"{value:8g} {kept} {0:5d}")
            continue
        found = " ".join(f"{level:8.2f}" for level in np.percentile(met, SHARES))
        distance = np.abs(met - value).mean()
        print(f"{value:8g} {kept} {len(met):5d} {found} {distance:24.2f}")


if __name__ == "__main__":
    main()
