"""Compute the numbers in crystalvae/benchmark/magpie.py from a prepared data set.

Needs crystalvae[benchmark]. Usage: python tools/build_magpie_scale.py DATASET
"""

import sys

import numpy as np
from matminer.featurizers.composition.composite import ElementProperty
from pymatgen.core import Composition, Element

from crystalvae.data.packed import PackedDataset, compositions_of


def main(path: str) -> None:
    featurizer = ElementProperty.from_preset("magpie")
    dataset = PackedDataset(path)
    rows = []
    for counts in compositions_of(dataset):
        composition = Composition({Element.from_Z(z): n for z, n in counts.items()})
        rows.append(featurizer.featurize(composition))
    features = np.array(rows, float)
    for name, values in (
        ("MEANS", np.nanmean(features, 0)),
        ("SPREADS", np.nanstd(features, 0)),
    ):
        print(f"{name} = (", *(f"    {value:.5g}," for value in values), ")", sep="\n")


if __name__ == "__main__":
    main(sys.argv[1])
