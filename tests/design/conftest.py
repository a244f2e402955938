import numpy as np
import pytest

from crystalvae.crystal import AsymmetricUnit
from crystalvae.data.packed import PackedDataset, pack, write_packed
from crystalvae.data.prototypes import prototype_crystals
from crystalvae.model import CrystalVAE
from crystalvae.pretrained import shipped_models
from tests.conftest import REFERENCE


def unit(name):
    return AsymmetricUnit.from_structure(REFERENCE[name][0])


def exchanged(name, **elements):
    structure = REFERENCE[name][0].copy()
    structure.replace_species(elements)
    return AsymmetricUnit.from_structure(structure)


def strained(name, factor):
    structure = REFERENCE[name][0].copy()
    structure.apply_strain(factor)
    return AsymmetricUnit.from_structure(structure)


@pytest.fixture(scope="session")
def shipped():
    """The model of MP-20 that comes with the package."""
    if "mp_20" not in shipped_models():
        pytest.skip("no shipped weights")
    return CrystalVAE.from_pretrained("mp_20", device="cpu")


@pytest.fixture(scope="session")
def prototypes(tmp_path_factory):
    """Some of the built-in crystals as a data set, with a property."""
    path = tmp_path_factory.mktemp("data") / "prototypes"
    named = list(prototype_crystals(40))
    crystals = [crystal for _, crystal in named]
    sizes = np.array([crystal.num_primitive_atoms for crystal in crystals], float)
    names = [name for name, _ in named]
    write_packed(path, pack(crystals), names, {"size": sizes, "none": sizes * np.nan})
    return PackedDataset(path)
