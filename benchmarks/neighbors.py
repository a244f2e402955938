"""What the draws around known crystals are, from small to large β.

    python benchmarks/neighbors.py mp_20 runs/data/mp_20_val runs/data/mp_20_train

Every structure is drawn around as often; shares of the draws that pass the checks.
"""

import argparse
import random
from collections import Counter

from crystalvae import CrystalVAE
from crystalvae.data.packed import PackedDataset
from crystalvae.design.alike import Listed, change
from crystalvae.design.neighbors import neighbors
from crystalvae.screening.uniqueness import ReferenceIndex


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("dataset", help="crystals that are drawn around")
    parser.add_argument("known", help="crystals that novelty is judged against")
    parser.add_argument("--structures", type=int, default=200)
    parser.add_argument("-n", type=int, default=2000, help="draws at each beta")
    parser.add_argument(
        "--beta", type=float, nargs="+", default=[0.03, 0.07, 0.15, 0.25, 0.4, 0.8]
    )
    args = parser.parse_args()
    model = CrystalVAE.from_pretrained(args.model)
    dataset = PackedDataset(args.dataset)
    rows = random.Random(0).sample(range(len(dataset)), args.structures)
    known = [dataset[row] for row in rows]
    listed = Listed(ReferenceIndex(PackedDataset(args.known)))
    print(
        "| β | fell | the crystal | distorted | elements exchanged | other structure "
    )
    print(
        "of the composition | else | of the last three distinct | of these unlisted |"
    )
    for beta in args.beta:
        found, report = neighbors(model, known, args.n, beta=beta)
        kinds: Counter[str] = Counter()
        for item in found:
            what = change(known[item.origin], item.crystal)
            kind = "exchanged" if "→" in what else what
            kinds[kind if kind in ("exchanged", "structure") else "else"] += item.count
        old = listed([item.crystal for item in found])
        cells = [
            1 - report.draws.kept / report.draws.draws,
            report.same / args.n,
            report.distorted / args.n,
            *(kinds[kind] / args.n for kind in ("exchanged", "structure", "else")),
            len(found) / max(sum(item.count for item in found), 1),
            1 - sum(old) / max(len(old), 1),
        ]
        print(f"| {beta:g} | " + " | ".join(f"{100 * v:.1f}" for v in cells) + " |")


if __name__ == "__main__":
    main()
