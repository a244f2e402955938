import numpy as np
import pytest
import torch

from crystalvae.crystal import AsymmetricUnit
from crystalvae.refinement.network import Refiner, RefinerConfig

TINY = RefinerConfig(
    dim=16, num_layers=2, message_dim=8, num_radial=8, num_channels=4, num_neighbors=16
)


def tiny_refiner(config=TINY):
    """An untrained refiner whose output is not zero."""
    torch.manual_seed(1)
    refiner = Refiner(config).eval()
    torch.nn.init.normal_(refiner.out[1].weight, std=0.5)
    return refiner


def as_crystals(sites, lattice, coords):
    """The reverse of :func:`crystalvae.refinement.score.refiner_inputs`."""
    return [
        AsymmetricUnit(
            number=int(number),
            lattice=lattice[i].double().numpy(),
            wyckoffs=sites.wyckoff[sites.owner == i].numpy(),
            atomic_numbers=sites.species[sites.owner == i].numpy(),
            frac_coords=coords[sites.owner == i].double().numpy(),
        )
        for i, number in enumerate(sites.number)
    ]


def without_symmetry(crystal):
    """The same primitive cell in P1, and the site of each of its atoms."""
    lattice, coords, species, site = crystal.expand_primitive()
    factor = np.linalg.cholesky(lattice @ lattice.T)
    plain = AsymmetricUnit(1, factor, np.zeros_like(species), species, coords)
    return plain, lattice, site


@pytest.fixture
def refiner():
    """A small network with random weights."""
    return tiny_refiner()
