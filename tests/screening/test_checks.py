import itertools

import numpy as np
import pytest
import smact.screening
from pymatgen.core import Composition, Element, Lattice, Structure

from crystalvae.screening.base import Candidate, element_table
from crystalvae.screening.charge import reachable_zero, smact_valid
from crystalvae.screening.checks import CHECKS, Record, run_checks
from crystalvae.symmetry.tables import symmetry_tables
from tests.conftest import REFERENCE


def candidate(structure, declared=None):
    return Candidate(
        structure.lattice.matrix,
        structure.frac_coords,
        np.array(structure.atomic_numbers),
        declared,
    )


def cell(lattice, numbers, coords=None, declared=None):
    coords = np.zeros((len(numbers), 3)) if coords is None else np.array(coords)
    return Candidate(np.array(lattice, float), coords, np.array(numbers), declared)


NACL = candidate(REFERENCE["nacl"][0], 225)
SLIVER = cell([[3, 0, 0], [0, 3, 0], [2.999, 2.999, 0.02]], [11])
FAILING = {
    "volume": cell(np.eye(3) * 1.0, [14]),
    "density": cell(np.eye(3) * 1.9, [76]),
    "distance": cell(np.diag([0.4, 10, 10]), [14]),
    "radii": cell(np.diag([1.0, 10, 10]), [55]),
    "smact": cell(np.eye(3) * 4, [11, 11, 17], [[0, 0, 0], [0.5, 0, 0], [0, 0.5, 0]]),
    "charge": cell(np.eye(3) * 4, [11, 11, 17], [[0, 0, 0], [0.5, 0, 0], [0, 0.5, 0]]),
    "group": Candidate(NACL.lattice, NACL.frac_coords, NACL.atomic_numbers, 221),
}
NOT_COMPUTABLE = {
    "group": cell(np.eye(3) * 4, [14]),
    "charge": candidate(REFERENCE["cu"][0]),
    "density": cell(np.eye(3) * 1e-3, [14]),
    "radii": cell(np.zeros((3, 3)), [14]),
}


@pytest.mark.parametrize("name", CHECKS)
def test_rock_salt_passes(name):
    assert run_checks(NACL, [name])[name].passed is True


@pytest.mark.parametrize(
    ("pair", "distance", "passes"),
    [
        ((7, 7), 1.10, True),  # N2
        ((6, 8), 1.13, True),  # CO
        ((6, 7), 1.16, True),  # cyanide
        ((1, 1), 0.74, True),  # H2
        ((92, 8), 1.77, True),  # uranyl
        ((5, 5), 1.18, False),
        ((8, 8), 0.95, False),
        ((92, 8), 1.50, False),
        ((55, 55), 2.80, False),
    ],
)
def test_short_bonds_pass_and_shorter_ones_do_not(pair, distance, passes):
    box = cell(np.diag([12.0] * 3), pair, [[0, 0, 0], [distance / 12, 0, 0]])
    assert run_checks(box, ["radii"])["radii"].passed is passes


def test_verdicts_do_not_depend_on_the_description_of_the_cell():
    """A long rhombohedral crystal, whose primitive cell is a needle, and a sliver."""
    a, c = 2.9, 70.0
    hexagonal = np.array([[a, 0, 0], [-a / 2, a * 3**0.5 / 2, 0], [0, 0, c]])
    obverse = np.array([[2, 1, 1], [-1, 1, 1], [-1, -2, 1]]) / 3
    height = np.arange(4) / 12
    primitive = np.stack([height, height, height], 1)
    needle = cell(obverse @ hexagonal, [14, 6, 14, 6], primitive)
    for name, result in run_checks(needle, ["volume", "density", "distance"]).items():
        assert result.passed, name
    for lattice in (SLIVER.lattice, SLIVER.lattice - SLIVER.lattice[[2, 2, 0]]):
        assert run_checks(cell(lattice, [11]), ["distance"])["distance"].passed is False


@pytest.mark.parametrize("name", CHECKS)
def test_each_check_can_fail(name):
    result = run_checks(FAILING[name], [name])[name]
    assert result.passed is False
    assert result.message


@pytest.mark.parametrize("name", NOT_COMPUTABLE)
def test_what_cannot_be_computed_says_why(name):
    result = run_checks(NOT_COMPUTABLE[name], [name])[name]
    assert result.passed is None
    assert result.message


def test_an_atom_meets_its_own_image():
    result = run_checks(FAILING["distance"], ["distance"])["distance"]
    assert abs(result.value - 0.4) < 1e-6


@pytest.mark.parametrize("kind", [[], [2, 10], [61, 8], list(range(1, 119)) * 2])
def test_odd_compositions_neither_hang_nor_crash(kind):
    rng = np.random.default_rng(0)
    odd = cell(np.eye(3) * 30, kind, rng.random((len(kind), 3)))
    results = run_checks(odd, CHECKS)
    assert set(results) == set(CHECKS)


def test_unknown_check_is_named():
    with pytest.raises(KeyError, match="colour"):
        run_checks(NACL, ["colour"])


def test_record_collects_failures():
    record = Record("a", "NaCl", run_checks(FAILING["group"], CHECKS))
    assert record.failures() == ["group"]
    assert not record.passed
    assert record.row()["group"] is False


def test_smact_rule_agrees_with_smact():
    rng = np.random.default_rng(0)
    common = [3, 8, 9, 11, 12, 13, 14, 16, 17, 20, 22, 25, 26, 28, 29, 38, 50, 56, 82]
    rare = [2, 10, 18, 36, 54, 61, 63, 70, 86, 91, 93, 94]
    for size, number in itertools.product((2, 3, 4), range(60)):
        numbers = rng.choice(common, size, replace=False).tolist()
        if number >= 40:
            numbers[0] = int(rng.choice(rare))
        counts = rng.integers(1, 5, size).tolist()
        divisor = int(np.gcd.reduce(counts))
        counts = [n // divisor for n in counts]
        composition = Composition(
            {Element.from_Z(z): n for z, n in zip(numbers, counts)}
        )
        expected = smact.screening.smact_validity(
            composition, oxidation_states_set="smact14"
        )
        assert smact_valid(dict(zip(numbers, counts))) == expected, composition


def test_peroxide_ions_are_bonded():
    def sodium_oxide(bond):
        half = bond / 2
        return Structure(
            Lattice.tetragonal(4.0, 6.0),
            ["Na", "Na", "O", "O"],
            [[0, 0, 0], [1, 1, 3], [2, 2, 0 + half], [2, 2, 6 - half]],
            coords_are_cartesian=True,
        )

    verdicts = [
        run_checks(candidate(sodium_oxide(bond)), ["charge"])["charge"]
        for bond in (1.5, 2.6)
    ]
    assert [verdict.passed for verdict in verdicts] == [True, False]
    assert "peroxide" in verdicts[1].message
    oxide = candidate(REFERENCE["rutile"][0])
    assert run_checks(oxide, ["charge"])["charge"].passed


def test_charges_by_hand():
    assert smact_valid({11: 1, 17: 1})
    assert smact_valid({26: 2, 8: 3})
    assert smact_valid({29: 3, 79: 1})
    assert not smact_valid({11: 2, 17: 1})
    assert not reachable_zero([(3.44, 1, [2], False), (0.93, 2, [-1], False)])
    magnetite = candidate_of({26: 3, 8: 4})
    assert run_checks(magnetite, ["charge"])["charge"].passed is True


def candidate_of(composition):
    numbers = [z for z, n in composition.items() for _ in range(n)]
    coords = np.random.default_rng(0).random((len(numbers), 3))
    return cell(np.eye(3) * 8, numbers, coords)


def test_element_table_is_complete():
    table = element_table()
    assert sorted(table) == list(range(1, 119))
    assert table[26]["symbol"] == "Fe"
    assert abs(table[26]["mass"] - 55.845) < 0.01


def test_declared_group_is_found_for_all_reference_crystals(crystals):
    for crystal in crystals:
        lattice, coords, species, _ = crystal.expand_primitive()
        result = run_checks(
            Candidate(lattice, coords, species, crystal.number), ["group"]
        )
        assert result["group"].passed is True, symmetry_tables().symbol[crystal.number]
