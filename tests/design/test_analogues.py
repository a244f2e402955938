import dataclasses

import numpy as np
import pytest

from crystalvae.crystal import AsymmetricUnit
from crystalvae.data.packed import PackedDataset, pack, write_packed
from crystalvae.design.analogues import Analogues, analogue_names, element_distances
from crystalvae.screening.elements import periodic_place
from tests.conftest import REFERENCE


def unit(name):
    return AsymmetricUnit.from_structure(REFERENCE[name][0])


@pytest.mark.parametrize(
    ("z", "place"),
    [
        (1, (1, 1, False)),
        (2, (18, 1, False)),
        (13, (13, 3, False)),
        (26, (8, 4, False)),
        (57, (3, 6, True)),
        (71, (3, 6, False)),
        (82, (14, 6, False)),
        (92, (3, 7, True)),
    ],
)
def test_places_of_the_periodic_table(z, place):
    assert periodic_place(z) == place


def test_distances_are_a_metric_and_know_families():
    table = element_distances()
    np.testing.assert_allclose(table, table.T)
    assert (np.diag(table) == 0).all()
    assert table[11, 19] < table[11, 17]
    assert table[17, 35] < table[17, 55]


def test_a_known_crystal_is_its_own_first_analogue(crystals):
    analogues = Analogues(crystals)
    for crystal in crystals:
        first = analogues.propose(crystal.composition, 1)[0]
        assert first.distance == 0
        assert crystals[first.row].composition == crystal.composition
        assert first.crystal.volume == pytest.approx(crystals[first.row].volume)


def test_elements_go_to_their_like():
    perovskite = unit("perovskite")  # Sr Ti O3
    found = Analogues([perovskite]).propose({56: 1, 40: 1, 8: 3}, 5)
    assert len(found) == 2
    assert found[0].distance < found[1].distance
    nearest = found[0].crystal.to_structure()
    oxygen = {z: nearest.get_neighbors(site, 2.4) for z, site in _sites(nearest)}
    assert len(oxygen["Zr"]) == 6
    assert len(oxygen["Ba"]) == 0


def test_crystals_are_named_after_those_whose_structure_they_have(tmp_path):
    salt, caesium = unit("nacl"), unit("cscl")
    write_packed(tmp_path / "k", pack([salt, caesium]), ["rock", "box"], {})
    wanted = {19: 1, 35: 1}  # KBr
    rock, box = (
        recoloured(salt, {11: 19, 17: 35}),
        recoloured(caesium, {55: 19, 17: 35}),
    )
    wide = dataclasses.replace(box, lattice=1.02 * box.lattice)
    found = [wide, unit("wurtzite"), rock]
    known = PackedDataset(tmp_path / "k")
    named = analogue_names(Analogues(known), [wanted], found, num_workers=1)
    assert named == ["CsCl (box)", "", "NaCl (rock)"]
    named = analogue_names(Analogues([caesium]), [wanted], found, num_workers=1)
    assert named == ["CsCl", "", ""]


def _sites(structure):
    return [(site.specie.symbol, site) for site in structure]


def test_similar_crystals_vote(crystals):
    salt, caesium = unit("nacl"), unit("cscl")
    # two rock salts at some distance outvote one caesium chloride that is nearer
    one = recoloured(caesium, {55: 19, 17: 17})
    others = [recoloured(salt, {11: z, 17: 17}) for z in (3, 11)]
    target = {19: 1, 35: 1}
    alone = Analogues([one, *others]).propose(target, 1)[0]
    assert alone.crystal.number == caesium.number
    crowd = Analogues([one, *others * 60]).propose(target, 2)
    assert [a.crystal.number for a in crowd] == [salt.number, caesium.number]


def recoloured(crystal, elements):
    species = np.array([elements[z] for z in crystal.atomic_numbers.tolist()])
    return dataclasses.replace(crystal, atomic_numbers=species)


def test_cells_grow_with_the_radii():
    salt = unit("nacl")
    larger = Analogues([salt]).propose({55: 1, 53: 1}, 1)[0].crystal
    radii = {11: 1.66, 17: 1.02, 55: 2.44, 53: 1.39}
    ratio = (radii[55] ** 3 + radii[53] ** 3) / (radii[11] ** 3 + radii[17] ** 3)
    assert larger.volume / salt.volume == pytest.approx(ratio)
    assert larger.number == salt.number


def test_only_the_same_numbers_of_atoms_have_analogues():
    analogues = Analogues([unit("nacl"), unit("rutile")])
    assert analogues.propose({22: 1, 8: 2}, 3) == []
    assert analogues.propose({40: 2, 8: 4}, 3)[0].row == 1


def test_equal_templates_are_proposed_once():
    salt = unit("nacl")
    other = dataclasses.replace(salt, lattice=1.1 * salt.lattice)
    assert len(Analogues([salt, other]).propose({11: 1, 17: 1}, 9)) == 1


def test_sites_stay_in_canonical_order():
    perovskite = unit("perovskite")
    for found in Analogues([perovskite]).propose({3: 1, 92: 1, 9: 3}, 9):
        sites = list(
            zip(found.crystal.wyckoffs.tolist(), found.crystal.atomic_numbers.tolist())
        )
        assert sites == sorted(sites)
