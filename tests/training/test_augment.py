import numpy as np
import pytest
import torch

from crystalvae.batch import CrystalStore
from crystalvae.crystal import AsymmetricUnit
from crystalvae.geometry.lattice import coords_to_lattice
from crystalvae.nn.wyckoff import WyckoffTables
from crystalvae.symmetry.spglib_wrapper import space_group_number
from crystalvae.training.augment import disturb, drop_sites, exchange_elements


@pytest.fixture
def batch(crystals):
    return CrystalStore.from_crystals(crystals).batch(torch.arange(len(crystals)))


def crystal_of(batch, row):
    size = int(batch.num_sites[row])
    return AsymmetricUnit(
        int(batch.number[row]),
        coords_to_lattice(batch.lattice_coords[row].double()).numpy(),
        batch.wyckoff[row, :size].numpy(),
        batch.atomic_numbers[row, :size].numpy(),
        batch.frac_coords[row, :size].double().numpy(),
    )


def everything(batch):
    return torch.ones(len(batch), dtype=torch.bool)


def test_exchanged_elements_keep_the_stoichiometry(batch, crystals):
    generator = torch.Generator().manual_seed(0)
    frequency = torch.ones(119)
    frequency[0] = 0
    changed = exchange_elements(batch, everything(batch), frequency, generator, 1.0)
    for row, crystal in enumerate(crystals):
        other = crystal_of(changed, row)
        assert sorted(other.composition.values()) == sorted(
            crystal.composition.values()
        )
        assert not set(other.composition) & set(crystal.composition)
        elements = changed.comp_element[row][changed.comp_element[row] > 0].tolist()
        counts = changed.comp_count[row][: len(elements)].tolist()
        assert dict(zip(elements, counts)) == other.composition
        keys = list(zip(other.wyckoffs.tolist(), other.atomic_numbers.tolist()))
        assert keys == sorted(keys)
        size = int(changed.num_sites[row])
        assert (
            sorted(changed.neighbor[row, :size].flatten().tolist())
            == sorted(batch.neighbor[row, :size].flatten().tolist())
            or len(set(crystal.wyckoffs.tolist())) < size
        )


def test_only_elements_that_occur_are_put_in(batch):
    frequency = torch.zeros(119)
    frequency[[8, 11, 17]] = 1.0
    before = set(batch.comp_element.unique().tolist())
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        new = exchange_elements(batch, everything(batch), frequency, generator, 1.0)
        came = set(new.comp_element.unique().tolist()) - before
        assert came <= {8, 11, 17}
        assert (new.comp_element > 0).sum() == (batch.comp_element > 0).sum()


def test_what_is_not_chosen_is_not_changed(batch):
    generator = torch.Generator().manual_seed(0)
    nothing = ~everything(batch)
    frequency = torch.ones(119)
    same = exchange_elements(batch, nothing, frequency, generator)
    same = disturb(same, nothing, WyckoffTables(), generator)
    same = drop_sites(same, nothing, WyckoffTables().centring, generator)
    for name in batch.__dataclass_fields__:
        torch.testing.assert_close(getattr(same, name), getattr(batch, name))


def test_disturbed_crystals_keep_their_group(batch, crystals):
    generator = torch.Generator().manual_seed(0)
    changed = disturb(batch, everything(batch), WyckoffTables(), generator)
    for row, crystal in enumerate(crystals):
        other = crystal_of(changed, row)
        lattice, coords, species, _ = other.expand_primitive()
        assert space_group_number(lattice, coords, species, 1e-3) == crystal.number
        assert not np.allclose(other.lattice, crystal.lattice, rtol=1e-5)


def test_disturbed_crystals_have_their_own_neighbors(batch):
    generator = torch.Generator().manual_seed(0)
    chosen = torch.arange(len(batch)) % 3 > 0
    changed = disturb(batch, chosen, WyckoffTables(), generator)
    others = [crystal_of(changed, row) for row in range(len(batch))]
    fresh = CrystalStore.from_crystals(others).batch(torch.arange(len(batch)))
    torch.testing.assert_close(changed.distance, fresh.distance, atol=2e-3, rtol=0)
    assert (changed.distance - batch.distance)[chosen].abs().amax() > 0.05
    for row in range(len(batch)):
        for site in range(int(batch.num_sites[row])):
            for graph in (changed, fresh):
                assert (graph.neighbor[row, site] < batch.num_sites[row]).all()
            near = changed.distance[row, site] < changed.distance[row, site, -1] - 0.01
            species = changed.atomic_numbers[row]
            seen = [
                sorted(species[graph.neighbor[row, site][near]].tolist())
                for graph in (changed, fresh)
            ]
            assert seen[0] == seen[1]


def test_crystals_that_lose_sites_stay_crystals(batch, crystals):
    generator = torch.Generator().manual_seed(0)
    centring = WyckoffTables().centring
    changed = drop_sites(batch, everything(batch), centring, generator, 0.5)
    smaller = 0
    for row, crystal in enumerate(crystals):
        other = crystal_of(changed, row)
        size = int(changed.num_sites[row])
        smaller += size < len(crystal.wyckoffs)
        assert size >= 1
        assert int(changed.num_atoms[row]) == other.num_atoms
        elements = changed.comp_element[row][changed.comp_element[row] > 0].tolist()
        counts = changed.comp_count[row][: len(elements)].tolist()
        assert dict(zip(elements, counts)) == other.composition
        assert not changed.comp_count[row][len(elements) :].any()
        volume = np.linalg.det(other.lattice) / other.num_atoms
        assert volume == pytest.approx(
            np.linalg.det(crystal.lattice) / crystal.num_atoms, rel=1e-4
        )
        assert (changed.neighbor[row, :size] < size).all()
        assert (changed.distance[row, :size].diff(dim=-1) >= 0).all()
    assert smaller > 0


def test_distances_left_are_those_of_the_smaller_crystal(batch):
    generator = torch.Generator().manual_seed(0)
    centring = WyckoffTables().centring
    changed = drop_sites(batch, everything(batch), centring, generator, 0.5)
    others = [crystal_of(changed, row) for row in range(len(batch))]
    fresh = CrystalStore.from_crystals(others).batch(torch.arange(len(batch)))
    for row in range(len(batch)):
        for site in range(int(changed.num_sites[row])):
            found, true = changed.distance[row, site], fresh.distance[row, site]
            inside = int((found < found[-1] - 1e-3).sum())
            torch.testing.assert_close(
                found[:inside], true[:inside], rtol=1e-3, atol=1e-3
            )
