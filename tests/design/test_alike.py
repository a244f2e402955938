"""Same, distorted, exchanged."""

import numpy as np
import pytest

from crystalvae.crystal import AsymmetricUnit
from crystalvae.design import alike
from crystalvae.design.alike import (
    Listed,
    change,
    is_distortion,
    merge_distorted,
    occupation,
)
from crystalvae.screening.uniqueness import ReferenceIndex, duplicate_of
from tests.conftest import REFERENCE, random_setting
from tests.design.conftest import exchanged, strained, unit


def test_occupation_does_not_depend_on_the_setting(reference):
    structure, number = reference
    rng = np.random.default_rng(0)
    expected = occupation(AsymmetricUnit.from_structure(structure))
    assert expected[0] == number
    for _ in range(3):
        other = AsymmetricUnit.from_structure(random_setting(structure, rng))
        assert occupation(other) == expected


def test_occupation_ignores_strain_and_sees_elements():
    assert occupation(strained("rutile", 0.2)) == occupation(unit("rutile"))
    assert occupation(exchanged("rutile", Ti="Sn")) != occupation(unit("rutile"))


@pytest.mark.parametrize(
    ("name", "elements", "expected"),
    [
        ("perovskite", {"Sr": "Ba"}, "Sr → Ba"),
        ("perovskite", {"Sr": "Ba", "Ti": "Zr"}, "Sr → Ba, Ti → Zr"),
        ("perovskite", {"Sr": "Ti", "Ti": "Sr"}, "Sr → Ti, Ti → Sr"),
        ("perovskite", {"Sr": "O"}, "Sr → O"),
        ("rutile", {"Ti": "Sn"}, "Ti → Sn"),
    ],
)
def test_exchanges_are_named_by_site(name, elements, expected):
    assert change(unit(name), exchanged(name, **elements)) == expected


def test_an_exchange_on_one_of_two_sites_is_partial():
    known = unit("wurtzite")
    species = known.atomic_numbers.copy()
    twice = known.wyckoffs[0]
    assert twice == known.wyckoffs[-1]
    species[known.wyckoffs == twice] = 30
    all_zinc = AsymmetricUnit(
        known.number, known.lattice, known.wyckoffs, species, known.frac_coords
    )
    species = species.copy()
    species[np.flatnonzero(known.wyckoffs == twice)[0]] = 50
    one_tin = AsymmetricUnit(
        known.number, known.lattice, known.wyckoffs, species, known.frac_coords
    )
    assert change(all_zinc, one_tin) == "some Zn → Sn"


def test_other_changes_are_named():
    nacl = unit("nacl")
    assert change(nacl, strained("nacl", 0.1)) == "geometry"
    assert change(nacl, exchanged("cscl", Cs="Na")) == "structure"
    assert change(unit("rutile"), unit("perovskite")) == "+Sr"
    assert change(unit("perovskite"), unit("rutile")) == "-Sr"
    assert change(unit("rutile"), unit("nacl")) == "+Na +Cl -O -Ti"


def test_a_polymorph_with_another_cell_has_another_structure():
    sulfide = exchanged("wurtzite", S="O")
    rock_salt = exchanged("nacl", Na="Zn", Cl="O")
    assert sulfide.num_primitive_atoms != rock_salt.num_primitive_atoms
    assert change(sulfide, rock_salt) == "structure"


def stretched(factor):
    """Perovskite whose cell is tetragonal, without a match at the usual tolerances."""
    structure = REFERENCE["perovskite"][0].copy()
    structure.apply_strain([0, 0, factor - 1])
    return AsymmetricUnit.from_structure(structure)


def test_distortions_match_with_wide_tolerances_only():
    small, large, other = stretched(1.06), stretched(1.45), stretched(2.4)
    assert occupation(small) == occupation(large) == occupation(other)
    assert duplicate_of([small, large, other], num_workers=1) == [0, 1, 2]
    assert is_distortion(small, large)
    assert not is_distortion(small, other)
    assert merge_distorted([small, large, other], [0, 1, 2]) == [0, 0, 2]


def test_a_bridge_joins_what_is_no_distortion_of_each_other(monkeypatch):
    crystals = [strained("nacl", factor) for factor in (0.0, 0.2, 0.1)]
    volumes = [crystal.volume for crystal in crystals]

    def near(first, second):
        return abs(first.volume - second.volume) < 0.7 * (volumes[1] - volumes[0])

    monkeypatch.setattr(alike, "is_distortion", near)
    assert merge_distorted(crystals, [0, 1, 2]) == [0, 0, 0]
    assert merge_distorted(crystals[:2], [0, 1]) == [0, 1]


def test_links_are_followed_to_the_first_whatever_their_order():
    small, large, cubic = stretched(1.06), stretched(1.45), unit("perovskite")
    for crystals in ([cubic, large, small], [cubic, small, large]):
        matches = duplicate_of(crystals, num_workers=1)
        assert matches[crystals.index(small)] == 0
        assert merge_distorted(crystals, matches) == [0, 0, 0]


def test_a_distortion_of_a_known_crystal_is_listed():
    index = ReferenceIndex([stretched(1.06), unit("rutile")])
    asked = [stretched(1.45), stretched(2.4), exchanged("nacl", Na="K"), unit("rutile")]
    assert Listed(index)(asked, num_workers=1) == [True, False, False, True]
    kept = Listed(index, distortions=True)(asked, num_workers=1)
    assert kept == [False, False, False, True]
