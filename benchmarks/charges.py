"""How well the charge check tells known crystals from ones with a wrong metal.

    python benchmarks/charges.py runs/data/mp_20_val

Each crystal that holds metals and nonmetals is checked once as it is and once with one
of its metals exchanged for another, drawn as often as it occurs in the data set; the
table gives the shares that fail by the most electronegative nonmetal.
"""

import argparse
from collections import Counter, defaultdict

import numpy as np

from crystalvae.data.load import load_crystals
from crystalvae.screening.base import Candidate, element_table
from crystalvae.screening.charge import check_charge


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset")
    parser.add_argument("-n", type=int, help="crystals drawn at random (all)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    table = element_table()
    crystals = load_crystals(args.dataset, args.n, args.seed)
    candidates = [Candidate.of(crystal) for crystal in crystals if crystal is not None]
    rng = np.random.default_rng(args.seed)
    metals = Counter(
        z for c in candidates for z in c.reduced_composition if table[z]["metal"]
    )
    symbols = np.array(list(metals))
    odds = np.array(list(metals.values())) / metals.total()
    fails = defaultdict(lambda: np.zeros(3, int))
    failed = sum(check_charge(c).passed is False for c in candidates)
    for known in candidates:
        own = [z for z in known.reduced_composition if table[z]["metal"]]
        nonmetals = [z for z in known.reduced_composition if not table[z]["metal"]]
        if not own or not nonmetals:
            continue
        other = rng.choice(symbols, p=odds)
        while other in own:
            other = rng.choice(symbols, p=odds)
        species = known.atomic_numbers.copy()
        species[species == rng.choice(own)] = other
        exchanged = Candidate(known.lattice, known.frac_coords, species)
        anion = max(nonmetals, key=lambda z: table[z]["electronegativity"] or 0)
        verdicts = [check_charge(c).passed is False for c in (known, exchanged)]
        fails[table[anion]["symbol"]] += [1, *verdicts]
    print(
        f"{failed} of {len(candidates)} crystals fail ({failed / len(candidates):.1%})"
    )
    print("anion  crystals  known  exchanged")
    for symbol, (count, real, wrong) in sorted(fails.items(), key=lambda x: -x[1][0]):
        print(f"{symbol:5s} {count:9d} {real / count:6.1%} {wrong / count:10.1%}")


if __name__ == "__main__":
    main()
