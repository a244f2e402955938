"""Reference crystals, a tiny model, and where real data may be found."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from pymatgen.core import Lattice, Structure

from crystalvae.crystal import AsymmetricUnit
from crystalvae.decoder import DecoderConfig
from crystalvae.latent import LatentConfig
from crystalvae.model import CrystalVAE
from crystalvae.model_config import EncoderConfig, ModelConfig

warnings.filterwarnings("ignore", category=UserWarning, module="pymatgen")

SHARED = Path(__file__).resolve().parents[2] / "shared" / "datasets"

TINY_OPTIONS = {"dim": 16, "num_layers": 2, "message_dim": 8, "num_radial": 8}


def from_group(number, lattice, species, coords):
    return Structure.from_spacegroup(number, lattice, species, coords)


def reference_crystals():
    """Name → (structure, space group); literature cells, conventional settings."""
    cubic = Lattice.cubic
    hexagonal = Lattice.hexagonal
    return {
        "po": (from_group(221, cubic(3.35), ["Po"], [[0, 0, 0]]), 221),
        "fe": (from_group(229, cubic(2.87), ["Fe"], [[0, 0, 0]]), 229),
        "cu": (from_group(225, cubic(3.61), ["Cu"], [[0, 0, 0]]), 225),
        "diamond": (from_group(227, cubic(5.43), ["Si"], [[0, 0, 0]]), 227),
        "nacl": (
            from_group(225, cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
            225,
        ),
        "cscl": (
            from_group(221, cubic(4.12), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
            221,
        ),
        "wurtzite": (
            from_group(
                186,
                hexagonal(3.82, 6.26),
                ["Zn", "S"],
                [[1 / 3, 2 / 3, 0.1], [1 / 3, 2 / 3, 0.475]],
            ),
            186,
        ),
        "rutile": (
            from_group(
                136,
                Lattice.tetragonal(4.594, 2.958),
                ["Ti", "O"],
                [[0, 0, 0], [0.305, 0.305, 0]],
            ),
            136,
        ),
        "perovskite": (
            from_group(
                221,
                cubic(3.905),
                ["Sr", "Ti", "O"],
                [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0]],
            ),
            221,
        ),
        "calcite": (
            from_group(
                167,
                hexagonal(4.99, 17.06),
                ["Ca", "C", "O"],
                [[0, 0, 0], [0, 0, 0.25], [0.257, 0, 0.25]],
            ),
            167,
        ),
        "quartz": (
            from_group(
                154,
                hexagonal(4.916, 5.405),
                ["Si", "O"],
                [[0.4697, 0, 0], [0.4133, 0.2672, 0.1188]],
            ),
            154,
        ),
        "monoclinic": (
            from_group(
                14,
                Lattice.from_parameters(5.15, 5.21, 5.32, 90, 99.2, 90),
                ["Zr", "O", "O"],
                [[0.276, 0.041, 0.208], [0.07, 0.332, 0.345], [0.449, 0.758, 0.479]],
            ),
            14,
        ),
        "polar": (
            from_group(
                26,
                Lattice.orthorhombic(4.1, 5.3, 6.7),
                ["Pb", "O", "S"],
                [[0, 0.2, 0.11], [0.5, 0.3, 0.37], [0, 0.7, 0.52]],
            ),
            26,
        ),
        "triclinic": (
            Structure(
                Lattice.from_parameters(4.1, 5.3, 6.9, 83, 97, 104),
                ["K", "O", "O", "S"],
                [[0.1, 0.2, 0.3], [0.55, 0.6, 0.8], [0.9, 0.45, 0.6], [0.4, 0.9, 0.1]],
            ),
            1,
        ),
    }


REFERENCE = reference_crystals()


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    torch.set_num_threads(1)


@pytest.fixture(params=sorted(REFERENCE))
def reference(request):
    """(structure, space-group number) of each reference crystal in turn."""
    return REFERENCE[request.param]


@pytest.fixture(scope="session")
def crystals():
    """All reference crystals as asymmetric units."""
    return [AsymmetricUnit.from_structure(s) for s, _ in REFERENCE.values()]


def tiny_config(encoder="moment", **latent):
    return ModelConfig(
        encoder=EncoderConfig(encoder, TINY_OPTIONS),
        latent=LatentConfig(**{"dim": 8, "hidden_dim": 16, "pair_dim": 8} | latent),
        decoder=DecoderConfig(dim=32, num_layers=2, num_heads=4, max_sites=24),
    )


@pytest.fixture
def tiny_model():
    """A model small enough for every test, untrained."""
    torch.manual_seed(0)
    return CrystalVAE(tiny_config()).eval()


@pytest.fixture
def shared_data():
    """Folder of the real benchmark data; the test is skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("the benchmark data are not here")
    return SHARED


def random_setting(structure, rng):
    """The same crystal rotated, translated, permuted and in another cell."""
    basis = np.zeros((3, 3))
    while abs(round(np.linalg.det(basis))) != 1:
        basis = rng.integers(-1, 2, (3, 3)).astype(float)
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    rotation *= np.sign(np.linalg.det(rotation))
    coords = (structure.frac_coords + rng.random(3)) @ np.linalg.inv(basis)
    order = rng.permutation(len(structure))
    lattice = basis @ structure.lattice.matrix @ rotation
    species = [structure[int(i)].specie for i in order]
    return Structure(Lattice(lattice), species, coords[order])
