import numpy as np
import pytest
import torch

from crystalvae.batch import CrystalStore
from crystalvae.crystal import AsymmetricUnit
from crystalvae.encoders import ENCODERS, orbit_data
from crystalvae.graph import orbit_graph
from crystalvae.model import CrystalVAE
from tests.conftest import REFERENCE, random_setting, tiny_config


@pytest.fixture(params=sorted(ENCODERS))
def model(request):
    torch.manual_seed(0)
    return CrystalVAE(tiny_config(request.param)).eval()


def pooled(model, crystals):
    batch = CrystalStore.from_crystals(crystals).batch(torch.arange(len(crystals)))
    return model.encoder(orbit_data(batch))


def test_shape_dtype_and_gradients(model, crystals):
    found = pooled(model, crystals)
    assert found.shape == (len(crystals), model.encoder.out_dim)
    assert found.dtype == torch.float32
    found.square().sum().backward()
    for name, parameter in model.encoder.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_batching_equals_one_by_one(model, crystals):
    together = pooled(model, crystals)
    single = torch.cat([pooled(model, [crystal]) for crystal in crystals])
    torch.testing.assert_close(together, single, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", sorted(REFERENCE))
def test_posterior_does_not_depend_on_the_input_cell(model, name):
    structure, _ = REFERENCE[name]
    rng = np.random.default_rng(3)
    settings = [structure] + [random_setting(structure, rng) for _ in range(3)]
    doubled = structure.copy()
    doubled.make_supercell([1, 2, 1])
    settings.append(doubled)
    found = model.encode([AsymmetricUnit.from_structure(s) for s in settings])
    for moment in (found.mu, found.logvar):
        torch.testing.assert_close(
            moment, moment[:1].expand_as(moment), rtol=0, atol=1e-4
        )


def full_periodic_graph(crystal, num_neighbors=16):
    """Every atom a node, with neighbours found by summing over images in the open."""
    lattice, coords, _, site = crystal.expand()
    reach = range(-5, 6)
    cells = np.array([[i, j, k] for i in reach for j in reach for k in reach])
    everywhere = (coords[None] + cells[:, None]).reshape(-1, 3) @ lattice
    owner = np.tile(np.arange(len(coords)), len(cells))
    neighbor, distance, direction = [], [], []
    for centre in coords @ lattice:
        vectors = everywhere - centre
        lengths = np.linalg.norm(vectors, axis=1)
        order = np.argsort(lengths)[1 : num_neighbors + 1]
        neighbor.append(owner[order])
        distance.append(lengths[order])
        direction.append(vectors[order] / lengths[order, None])
    return site, np.array(neighbor), np.array(distance), np.array(direction)


@pytest.mark.parametrize(
    "name", ["nacl", "rutile", "wurtzite", "calcite", "perovskite"]
)
def test_orbit_graph_is_exactly_the_full_periodic_graph(model, name):
    crystal = AsymmetricUnit.from_structure(REFERENCE[name][0])
    quotient = orbit_data(
        CrystalStore.from_crystals([crystal]).batch(torch.tensor([0]))
    )
    expected = model.encoder(quotient)

    site, neighbor, distance, direction = full_periodic_graph(crystal)
    count = len(site)
    target = np.repeat(np.arange(count), neighbor.shape[1])
    full = quotient.clone()
    for key in ("species", "wyckoff", "number", "coords"):
        full[key] = quotient[key][torch.as_tensor(site)]
    full.edge_index = torch.as_tensor(np.stack([neighbor.ravel(), target]))
    full.num_nodes = count
    full.owner = torch.zeros(count, dtype=torch.long)
    full.distance = torch.as_tensor(distance, dtype=torch.float)
    full.direction = torch.as_tensor(direction, dtype=torch.float)
    # the share is a feature of the orbit and a weight of the pooling
    state = model.encoder.embedding(quotient)[torch.as_tensor(site)]
    full.share = torch.full((count,), 1 / count)
    found = model.encoder.pooling(model.encoder.update(state, full), full)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "coordination"),
    [("po", 6), ("fe", 8), ("cu", 12), ("diamond", 4), ("nacl", 6), ("cscl", 8)],
)
def test_known_coordination_numbers(name, coordination):
    crystal = AsymmetricUnit.from_structure(REFERENCE[name][0])
    _, distance, direction = orbit_graph(crystal)
    shell = np.isclose(distance, distance[:, :1], rtol=1e-3)
    assert (shell.sum(1) == coordination).all()
    np.testing.assert_allclose(np.linalg.norm(direction, axis=-1), 1, atol=1e-5)


@pytest.mark.parametrize("name", sorted(REFERENCE))
def test_neighbours_agree_with_pymatgen(name):
    crystal = AsymmetricUnit.from_structure(REFERENCE[name][0])
    _, distance, _ = orbit_graph(crystal)
    structure = crystal.to_structure(primitive=False)
    first = np.cumsum([0, *crystal.multiplicities[:-1]])
    for row, index in enumerate(first):
        near = structure.get_neighbors(structure[int(index)], distance[row, -1] + 1e-3)
        expected = sorted(n.nn_distance for n in near)[:16]
        np.testing.assert_allclose(distance[row], expected, atol=1e-4)
