"""What exchanging elements of known crystals finds of unknown ones.

    python benchmarks/substitution.py runs/data/mp_20_train runs/data/mp_20_val

Of the unknown crystals (validation): how many are equal to a known one, or differ from
one in one element. Of the crystals that ``crystalvae substitute`` would draw from the
known ones: how many are unknown crystals, and how many are SMACT-valid.
"""

import argparse
import math

from crystalvae.data.packed import PackedDataset, compositions_of
from crystalvae.design.substitute import (
    balanced,
    draw_exchanges,
    families_of,
    gather_families,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("known")
    parser.add_argument("unknown")
    parser.add_argument("-n", type=int, default=20000, help="exchanges to draw")
    args = parser.parse_args()
    known, unknown = PackedDataset(args.known), PackedDataset(args.unknown)
    families = gather_families(known)
    wanted = [list(families_of(crystal)) for crystal in unknown]
    same = sum(any(e in families.get(f, ()) for f, e in own) for own in wanted)
    near = sum(any(f in families for f, _ in own) for own in wanted)
    pairs = sum(math.comb(len(elements), 2) for elements in families.values())
    print(f"pairs of known crystals that differ in one element: {pairs}")
    print(f"unknown crystals equal to a known one: {same / len(unknown):.1%}")
    print(f"unknown crystals one element from a known one: {near / len(unknown):.1%}")

    targets = {pair for own in wanted for pair in own}
    compositions = list(compositions_of(known))
    drawn = draw_exchanges(known, args.n)
    hits = charged = before = 0
    for exchange in drawn:
        old = compositions[exchange.row]
        own = families_of(known[exchange.row])
        family = next(family for family, z in own if z == exchange.old)
        hits += (family, exchange.new) in targets
        charged += balanced(exchange.of(old))
        before += balanced(old)
    print(f"exchanges that are unknown crystals: {hits / len(drawn):.1%}")
    print(
        f"SMACT-valid: {charged / len(drawn):.1%}, the crystals they come from "
        f"{before / len(drawn):.1%}"
    )


if __name__ == "__main__":
    main()
