import numpy as np
import torch

from crystalvae.crystal import AsymmetricUnit
from crystalvae.graph import orbit_graph
from crystalvae.nn.wyckoff import WyckoffTables
from crystalvae.refinement.neighbors import orbit_neighbors
from crystalvae.refinement.score import refiner_inputs
from tests.conftest import REFERENCE


def test_neighbors_are_those_of_the_orbit_graph(crystals):
    sites, lattice, coords = refiner_inputs(crystals)
    data = orbit_neighbors(sites, lattice, coords, WyckoffTables(), 16)
    graphs = [orbit_graph(crystal, 16) for crystal in crystals]
    distance = np.concatenate([graph[1] for graph in graphs])
    np.testing.assert_allclose(data.distance.numpy(), distance, atol=2e-3)
    # the last shell may be cut, so only what lies well inside is compared
    inner = distance < distance[:, -1:] - 0.01
    vectors = torch.where(
        torch.from_numpy(inner)[..., None], data.distance[..., None] * data.direction, 0
    )
    known = np.concatenate([g[1][..., None] * g[2] for g in graphs])
    known[~inner] = 0
    moments = torch.einsum("nki,nkj->nij", vectors, vectors)
    np.testing.assert_allclose(
        moments.numpy(), np.einsum("nki,nkj->nij", known, known), rtol=1e-3, atol=0.2
    )


def test_thin_flat_and_skewed_cells_have_all_their_images():
    cells = [
        np.diag([1.2, 9.0, 11.0]),
        np.diag([1.0, 1.1, 25.0]),
        np.array([[3.0, 0, 0], [7.5, 2.5, 0], [-6.0, 5.5, 2.8]]),
    ]
    rng = np.random.default_rng(0)
    odd = [
        AsymmetricUnit(1, cell, np.zeros(3, int), np.array([6, 8, 14]), coords)
        for cell, coords in zip(cells, rng.random((3, 3, 3)))
    ]
    data = orbit_neighbors(*refiner_inputs(odd), WyckoffTables(), 16)
    known = np.concatenate([orbit_graph(crystal, 16)[1] for crystal in odd])
    np.testing.assert_allclose(data.distance.numpy(), known, atol=2e-3)


def test_atoms_that_coincide_are_neighbors():
    twice = AsymmetricUnit(
        1, 4 * np.eye(3), np.zeros(2, int), np.array([6, 8]), np.full((2, 3), 0.25)
    )
    data = orbit_neighbors(*refiner_inputs([twice]), WyckoffTables(), 6)
    assert (data.distance[:, 0] < 1e-3).all()
    assert (data.distance[:, 1] > 3.9).all()


def test_neighbors_belong_to_the_crystal_and_elements_are_right(crystals):
    sites, lattice, coords = refiner_inputs(crystals)
    data = orbit_neighbors(sites, lattice, coords, WyckoffTables(), 6)
    source, target = data.edge_index
    assert (sites.owner[source] == sites.owner[target]).all()
    place = list(REFERENCE).index("nacl")
    rows = (sites.owner == place).nonzero().squeeze(1)
    species = sites.species[source].view_as(data.distance)[rows]
    assert (species == sites.species[rows].flip(0)[:, None]).all()
    torch.testing.assert_close(data.distance[rows], torch.full((2, 6), 2.82))


def test_a_site_with_too_few_neighbors_within_reach_is_padded_there():
    # a molecule of twelve atoms in a large box
    grid = np.stack(np.meshgrid(range(3), range(2), range(2)), -1).reshape(-1, 3)
    molecule = AsymmetricUnit(
        1, 40 * np.eye(3), np.zeros(12, int), np.full(12, 6), grid * 1.5 / 40
    )
    data = orbit_neighbors(*refiner_inputs([molecule]), WyckoffTables(), 16)
    assert (data.distance[0].diff() >= -1e-6).all()
    found = data.direction[0].norm(dim=-1) > 0.5
    assert int(found.sum()) == 11
    assert (data.distance[0][~found] == data.distance[0, -1]).all()


def test_shares_add_up_to_one(crystals):
    sites, *_ = refiner_inputs(crystals)
    total = torch.zeros(len(crystals))
    total.index_add_(0, sites.owner, sites.share(WyckoffTables()))
    torch.testing.assert_close(total, torch.ones(len(crystals)))
