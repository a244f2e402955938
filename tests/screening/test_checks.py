import itertools

import numpy as np
import pytest
import smact.screening
from pymatgen.core import Composition, Element, Lattice, Structure

from crystalvae.screening.base import Candidate, element_table
from crystalvae.screening.bonds import (
    MANY,
    SHARE,
    SOME,
    bond_limits,
    shortest_known,
)
from crystalvae.screening.charge import Ions, reachable_zero, smact_valid
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
    "bonds": cell(np.diag([1.8, 10, 10]), [26, 8], [[0, 0, 0], [0.82, 0, 0]]),
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
    assert "unless O atoms are bonded" in verdicts[1].message
    oxide = candidate(REFERENCE["rutile"][0])
    assert run_checks(oxide, ["charge"])["charge"].passed


def test_charges_by_hand():
    assert smact_valid({11: 1, 17: 1})
    assert smact_valid({26: 2, 8: 3})
    assert smact_valid({29: 3, 79: 1})
    assert not smact_valid({11: 2, 17: 1})
    assert not reachable_zero([Ions(3.44, 1, [2]), Ions(0.93, 2, [-1])])
    magnetite = candidate_of({26: 3, 8: 4})
    assert run_checks(magnetite, ["charge"])["charge"].passed is True


def charge_of(structure):
    return run_checks(candidate(structure), ["charge"])["charge"]


def cubic(group, a, species, coords):
    return Structure.from_spacegroup(group, Lattice.cubic(a), species, coords)


def test_charges_of_polyanions_count_their_bonds():
    half = [0.5, 0.5, 0.5]
    pyrite = cubic("Pa-3", 5.42, ["Fe", "S"], [[0, 0, 0], [0.385] * 3])
    hexaboride = cubic("Pm-3m", 4.15, ["La", "B"], [[0, 0, 0], [0.2, 0.5, 0.5]])
    superoxide = Structure(
        Lattice.tetragonal(4.03, 6.7),
        ["K", "K", "O", "O", "O", "O"],
        [
            [0, 0, 0],
            half,
            [0, 0, 0.405],
            [0, 0, 0.595],
            [0.5, 0.5, 0.905],
            [0.5, 0.5, 0.095],
        ],
    )
    zintl = cubic(  # NaTl's structure, here with Si as in Si-
        "Fd-3m", 7.0, ["Na", "Si"], [[0.125] * 3, [0.375] * 3]
    )
    azide = Structure(
        Lattice.hexagonal(3.65, 15.2),
        ["Na", "N", "N", "N"],
        [[0, 0, 0], half, [0.5, 0.5, 0.5 + 1.17 / 15.2], [0.5, 0.5, 0.5 - 1.17 / 15.2]],
    )
    for known in (pyrite, superoxide, zintl, azide):
        assert charge_of(known).passed is True, known.formula
    assert charge_of(hexaboride).passed is None
    superoxide.apply_strain(1.0)
    assert charge_of(superoxide).passed is False
    apart = Structure(
        azide.lattice, azide.species, [[0, 0, 0.25 * i] for i in range(4)]
    )
    assert charge_of(apart).passed is False


def test_only_the_bonded_atoms_of_an_element_are_polyanions():
    def sheets(symbol):
        """Four sulfur atoms, two of them bonded, and metals of four charges in all."""
        return Structure(
            Lattice.orthorhombic(8, 8, 8),
            ["S", "S", "S", "S", *symbol],
            [
                [0, 0, 0],
                [0.26, 0, 0],
                [0.5, 0.5, 0],
                [0.5, 0.5, 0.5],
                *([0, 0.4 + 0.1 * i, 0.6] for i in range(len(symbol))),
            ],
        )

    assert charge_of(sheets(["Na"] * 6)).passed is True
    assert charge_of(sheets(["Na"] * 4)).passed is True
    assert charge_of(sheets(["Na"] * 3)).passed is False


@pytest.mark.parametrize(
    ("composition", "verdict"),
    [
        ({52: 2, 42: 1}, True),  # MoTe2: Mo is the more electronegative one
        ({52: 2, 78: 1}, True),  # PtTe2
        ({57: 1, 44: 2, 14: 2}, None),  # LaRu2Si2, as its germanide
        ({57: 1, 44: 2, 32: 2}, None),
        ({42: 1, 14: 2}, None),  # MoSi2
        ({11: 1, 17: 2}, False),
        ({20: 1, 17: 1}, False),
        ({20: 1, 8: 2}, False),  # apart; CaO2 is a peroxide
        ({11: 1, 14: 1, 8: 1}, False),  # Si beside O is no silicide
        ({42: 9, 8: 1}, False),  # Mo is no anion where it is a cation
        ({79: 7, 17: 1}, False),
        ({74: 18, 8: 49}, True),  # a Magnéli phase: tungsten of two states
    ],
)
def test_charges_of_compounds(composition, verdict):
    assert run_checks(spread(composition), ["charge"])["charge"].passed is verdict


def spread(composition):
    """Atoms too far from each other to be bonded."""
    numbers = [z for z, n in composition.items() for _ in range(n)]
    sites = [[i % 5, i // 5 % 5, i // 25] for i in range(len(numbers))]
    return cell(np.eye(3) * 25, numbers, np.array(sites) / 5)


def test_bonds_are_as_long_as_known_ones():
    for name in ("nacl", "rutile", "perovskite", "calcite", "diamond", "cu"):
        result = run_checks(candidate(REFERENCE[name][0]), ["bonds"])["bonds"]
        assert result.passed is True, (name, result.message)
    salt = REFERENCE["nacl"][0].copy()
    salt.scale_lattice(salt.volume * 0.7)
    result = run_checks(candidate(salt), ["bonds"])["bonds"]
    assert result.passed is False
    assert "Na–Cl" in result.message or "Cl–Na" in result.message
    assert 0.85 < result.value < SHARE
    assert run_checks(candidate(salt), ["radii"])["radii"].passed is True


def test_table_of_bonds():
    shortest, count = shortest_known()
    np.testing.assert_array_equal(shortest, shortest.T)
    assert 1.1 < shortest[7, 7] < 1.2  # the triple bond of N2
    assert 0.7 < shortest[1, 1] < 0.8
    assert 1.5 < shortest[8, 23] < 1.7
    limits = bond_limits()
    assert ((limits == 0) == (count < SOME)).all()
    assert (limits <= SHARE * shortest + 1e-9).all()
    few = (count >= SOME) & (count < MANY)
    assert (limits[few] < 0.91 * shortest[few]).all()
    assert not bond_limits(0.0).any()


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
