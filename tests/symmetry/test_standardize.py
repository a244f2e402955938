import numpy as np
import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure

from crystalvae.crystal import AsymmetricUnit
from crystalvae.errors import InvalidStructureError
from crystalvae.symmetry.spglib_wrapper import space_group_number
from tests.conftest import random_setting


def assert_same(one, other, tolerance=1e-4):
    assert one.number == other.number
    np.testing.assert_array_equal(one.wyckoffs, other.wyckoffs)
    np.testing.assert_array_equal(one.atomic_numbers, other.atomic_numbers)
    np.testing.assert_allclose(one.lattice, other.lattice, atol=tolerance)
    shift = one.frac_coords - other.frac_coords
    np.testing.assert_allclose(shift - np.round(shift), 0, atol=tolerance)


def test_known_space_group(reference):
    structure, number = reference
    assert AsymmetricUnit.from_structure(structure).number == number


def test_round_trip_matches_and_keeps_the_group(reference):
    structure, number = reference
    crystal = AsymmetricUnit.from_structure(structure)
    for primitive in (True, False):
        again = crystal.to_structure(primitive=primitive)
        distance = StructureMatcher().get_rms_dist(structure, again)
        assert distance is not None
        assert distance[0] < 1e-4
        found = space_group_number(
            again.lattice.matrix, again.frac_coords, again.atomic_numbers, 1e-3
        )
        assert found == number


@pytest.mark.parametrize("trial", range(5))
def test_description_does_not_depend_on_the_input_cell(reference, trial):
    structure, _ = reference
    other = random_setting(structure, np.random.default_rng(trial))
    assert_same(
        AsymmetricUnit.from_structure(structure), AsymmetricUnit.from_structure(other)
    )


def test_supercell_gives_the_same_crystal(reference):
    structure, _ = reference
    doubled = structure.copy()
    doubled.make_supercell([[1, 0, 0], [0, 2, 0], [1, 0, 1]])
    assert_same(
        AsymmetricUnit.from_structure(structure), AsymmetricUnit.from_structure(doubled)
    )


def test_left_handed_cell_is_not_mirrored():
    quartz = Structure.from_spacegroup(
        154,
        Lattice.hexagonal(4.916, 5.405),
        ["Si", "O"],
        [[0.4697, 0, 0], [0.4133, 0.2672, 0.1188]],
    )
    swap = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1]])
    left = Structure(
        Lattice(swap @ quartz.lattice.matrix),
        quartz.species,
        quartz.frac_coords @ swap,
    )
    assert np.linalg.det(left.lattice.matrix) < 0
    assert AsymmetricUnit.from_structure(left).number == 154


def test_disorder_is_refused():
    alloy = Structure(Lattice.cubic(3), [{"Cu": 0.5, "Au": 0.5}], [[0, 0, 0]])
    with pytest.raises(InvalidStructureError, match="disordered"):
        AsymmetricUnit.from_structure(alloy)


def test_composition_is_that_of_the_primitive_cell(crystals):
    by_formula = {crystal.formula: crystal for crystal in crystals}
    assert by_formula["NaCl"].composition == {11: 1, 17: 1}
    assert by_formula["NaCl"].num_atoms == 8
    assert by_formula["CaCO3"].num_primitive_atoms == 10


def test_overlapping_atoms_are_an_error():
    bad = Structure(Lattice.cubic(3), ["Cu", "Cu"], [[0, 0, 0], [1e-6, 0, 0]])
    with pytest.raises(InvalidStructureError):
        AsymmetricUnit.from_structure(bad)


def test_all_descriptions_have_one_canonical_form(reference):
    from crystalvae.symmetry.tables import symmetry_tables

    crystal = AsymmetricUnit.from_structure(reference[0])
    tables = symmetry_tables()
    rotations, shifts, letter_maps = tables.normalizer(crystal.number)
    others = 0
    for rotation, shift, letters in zip(rotations, shifts, letter_maps):
        inverse = np.linalg.inv(rotation)
        metric = inverse.T @ (crystal.lattice @ crystal.lattice.T) @ inverse
        _, coords, _, site = crystal.expand()
        moved = coords @ rotation.T + shift
        wyckoffs = letters[crystal.wyckoffs]
        points = []
        for number, letter in enumerate(wyckoffs):
            own = moved[site == number]
            embed = tables.embed[crystal.number, letter]
            offset = tables.offset[crystal.number, letter]
            gap = own @ embed.T + offset - own
            points.append(own[np.abs(gap - np.round(gap)).max(1).argmin()])
        other = AsymmetricUnit(
            crystal.number,
            np.linalg.cholesky(metric),
            wyckoffs,
            crystal.atomic_numbers,
            np.array(points),
        )
        others += other.wyckoffs.tolist() != crystal.wyckoffs.tolist()
        assert_same(other.canonical(), crystal, 1e-3)
    assert_same(crystal.canonical(), crystal, 1e-4)
