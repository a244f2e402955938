"""Uniqueness and novelty: what StructureMatcher calls the same, and nothing else."""

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from crystalvae.crystal import AsymmetricUnit
from crystalvae.data.prototypes import prototype_crystals
from crystalvae.screening import uniqueness
from crystalvae.screening.match import Match, could_match
from crystalvae.screening.reduced import reduced_cell
from crystalvae.screening.uniqueness import (
    Distinct,
    ReferenceIndex,
    default_matcher,
    duplicate_of,
    find_known,
)
from tests.conftest import REFERENCE, random_setting


def unit(structure):
    return AsymmetricUnit.from_structure(structure, symprec=1e-3)


def same(one, other):
    first, second = reduced_cell(one), reduced_cell(other)
    return Match(first)(second)


def made(rng):
    """One to eight atoms of C or NaCl anywhere in a random cell."""
    size = int(rng.integers(1, 5))
    species = ["C"] * size if rng.random() < 0.5 else ["Na", "Cl"] * size
    angles = rng.uniform(75, 105, 3)
    lattice = Lattice.from_parameters(*rng.uniform(3, 5, 3), *angles)
    return Structure(lattice, species, rng.random((len(species), 3)))


def distorted(structure, rng):
    strain = np.eye(3) + rng.normal(size=(3, 3)) * rng.choice([0.01, 0.05, 0.1])
    moves = rng.normal(size=(len(structure), 3)) * rng.choice([0.02, 0.2, 0.5])
    return Structure(
        structure.lattice.matrix @ strain,
        structure.species,
        structure.cart_coords @ strain + moves,
        coords_are_cartesian=True,
    )


def random_crystals(count, seed):
    """Prototypes of NaCl, random cells, and distorted copies of both."""
    rng = np.random.default_rng(seed)
    found = []
    for name, crystal in prototype_crystals():
        if name.endswith("-NaCl"):
            found.append(crystal)
    assert len(found) >= 2
    while len(found) < count:
        if rng.random() < 0.5:
            base = found[int(rng.integers(len(found)))].to_structure()
            structure = distorted(base, rng)
        else:
            structure = made(rng)
        if structure.is_valid(0.5):
            found.append(unit(structure))
    return found


@pytest.fixture(scope="module")
def small():
    return random_crystals(20, 0)


@pytest.fixture(scope="module")
def fits(small):
    """What StructureMatcher says of every pair, ``(20, 20)``."""
    structures = [crystal.to_structure() for crystal in small]
    fit = default_matcher().fit
    return np.array([[fit(a, b) for b in structures] for a in structures], bool)


def test_verdicts_are_those_of_structure_matcher(small, fits):
    cells = [reduced_cell(crystal) for crystal in small]
    lengths = np.array([cell.lengths for cell in cells])
    assert (~np.eye(len(small), dtype=bool) & fits).sum() >= 10
    assert (~fits).sum() >= 100
    for cell, expected in zip(cells, fits):
        match = Match(cell)
        assert [match(other) for other in cells] == expected.tolist()
        assert could_match(cell.lengths, lengths)[expected].all()


def test_lookup_is_brute_force(small, fits):
    found = find_known(small[::2], ReferenceIndex(small[1::2]), num_workers=1)
    for row, expected in zip(found, fits[::2, 1::2]):
        assert expected.any() == (row is not None)
        assert row is None or expected[row]


def test_duplicates_are_brute_force(small, fits):
    firsts = []
    for index, label in enumerate(duplicate_of(small, num_workers=1)):
        equal = [first for first in firsts if fits[index, first]]
        assert label in equal if equal else label == index
        if not equal:
            firsts.append(index)


def test_any_description_of_a_crystal_is_known(crystals):
    rng = np.random.default_rng(1)
    index = ReferenceIndex(crystals)
    copies = []
    for structure, _ in REFERENCE.values():
        large = structure.get_primitive_structure()
        large.make_supercell([[1, 1, 0], [0, 1, 0], [0, 0, 2]])
        copies.append(unit(random_setting(large, rng)))
    assert find_known(copies, index, num_workers=1) == list(range(len(crystals)))


def test_cells_that_pymatgen_would_shrink_are_shrunk():
    doubled = Structure(
        Lattice.orthorhombic(3, 3.2, 7), ["C", "C"], [[0, 0, 0], [0.02, 0, 0.49]]
    )
    crystal = unit(doubled)
    assert len(crystal.to_structure()) == 2
    assert reduced_cell(crystal).counts == ((6, 1),)
    single = unit(Structure(Lattice.orthorhombic(3, 3.2, 3.5), ["C"], [[0, 0, 0]]))
    assert same(crystal, single)
    assert default_matcher().fit(crystal.to_structure(), single.to_structure())


def test_volume_does_not_count_and_structure_does(crystals):
    for place, crystal in enumerate(crystals):
        swollen = crystal.to_structure()
        swollen.scale_lattice(1.3 * swollen.volume)
        assert same(unit(swollen), crystal)
        known = ReferenceIndex(crystals[:place] + crystals[place + 1 :])
        assert find_known([crystal], known, num_workers=1) == [None]


def test_the_same_elements_in_another_structure_are_new():
    salt = REFERENCE["nacl"][0]
    other = Structure.from_spacegroup(
        221, Lattice.cubic(3.4), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]
    )
    index = ReferenceIndex([unit(salt)])
    assert find_known([unit(other)], index, num_workers=1) == [None]


def test_processes_change_nothing(small, monkeypatch):
    monkeypatch.setattr(uniqueness, "CHUNK", 8)
    alone = find_known(small, ReferenceIndex(small[::3]), num_workers=1)
    assert find_known(small, ReferenceIndex(small[::3]), num_workers=2) == alone


def test_degenerate_cells_end():
    lattice = np.diag([0.01, 0.01, 5000.0])
    site = np.array([0]), np.array([6]), np.zeros((1, 3))
    needle = AsymmetricUnit(1, lattice, *site)
    broken = AsymmetricUnit(1, lattice * np.nan, *site)
    index = ReferenceIndex([needle] * 12)
    assert len(find_known([needle], index, num_workers=1)) == 1
    assert find_known([broken], index, num_workers=1) == [None]
    assert duplicate_of([broken, needle, broken], num_workers=1)[0] == 0


def test_one_after_the_other_the_same_are_left_out():
    crystals = random_crystals(60, seed=5)
    labels = duplicate_of(crystals, num_workers=1)
    seen = Distinct()
    new = [seen.add(crystal) for crystal in crystals]
    assert new == [label == place for place, label in enumerate(labels)]
    assert 0 < sum(new) < len(new)


def test_large_supercells_are_what_they_repeat():
    salt = REFERENCE["nacl"][0]
    large = salt.to_conventional()
    large.make_supercell([5, 5, 1])
    large.perturb(0.05)
    assert len(large) == 200
    assert same(unit(salt), AsymmetricUnit.from_structure(large, symprec=1e-3))
    assert default_matcher().fit(salt, large)
