from dataclasses import replace

import numpy as np
import pytest

from crystalvae.crystal import AsymmetricUnit
from crystalvae.errors import InvalidStructureError
from crystalvae.screening.uniqueness import default_matcher
from tests.conftest import REFERENCE, random_setting


def copied(crystal):
    arrays = ("lattice", "wyckoffs", "atomic_numbers", "frac_coords")
    return replace(crystal, **{name: getattr(crystal, name).copy() for name in arrays})


def test_equal_numbers_are_equal_and_hash_alike(crystals):
    for crystal in crystals:
        again = copied(crystal)
        narrow = replace(again, wyckoffs=again.wyckoffs.astype(np.int8))
        signed = replace(again, frac_coords=again.frac_coords * 1.0 - 0.0)
        for other in (again, narrow, signed):
            assert other == crystal
            assert hash(other) == hash(crystal)
    assert len(set(crystals) | {copied(c) for c in crystals}) == len(crystals)
    assert [crystals.index(copied(c)) for c in crystals] == list(range(len(crystals)))


def test_any_other_number_makes_crystals_differ(crystals):
    for crystal in crystals:
        changed = [
            replace(crystal, number=crystal.number % 230 + 1),
            replace(crystal, lattice=crystal.lattice * (1 + 1e-12)),
            replace(crystal, wyckoffs=crystal.wyckoffs + 1),
            replace(crystal, atomic_numbers=crystal.atomic_numbers + 1),
            replace(crystal, frac_coords=crystal.frac_coords + 1e-12),
            replace(crystal, frac_coords=crystal.frac_coords[:0]),
        ]
        assert all(other != crystal for other in changed)
    assert crystals[0] != "Po"
    assert crystals[0] != crystals[0].to_structure()


def test_zeros_of_either_sign_are_one_number(crystals):
    crystal = crystals[0]
    lattice = np.where(crystal.lattice == 0, -0.0, crystal.lattice)
    other = replace(crystal, lattice=lattice)
    assert other == crystal
    assert hash(other) == hash(crystal)


def test_any_description_matches(reference):
    structure, _ = reference
    crystal = AsymmetricUnit.from_structure(structure)
    other = random_setting(structure, np.random.default_rng(3))
    assert crystal.matches(other)
    assert crystal.matches(AsymmetricUnit.from_structure(other))
    assert crystal.matches(crystal.to_atoms(primitive=False))


def test_a_match_is_what_structure_matcher_says():
    rng = np.random.default_rng(0)
    verdicts = []
    for name in ("rutile", "quartz", "polar", "triclinic"):
        crystal = AsymmetricUnit.from_structure(REFERENCE[name][0])
        for size in np.linspace(0.05, 1.2, 8):
            structure = REFERENCE[name][0].copy()
            structure.perturb(size, seed=int(rng.integers(1000)))
            other = AsymmetricUnit.from_structure(structure)
            own = (crystal.to_structure(), other.to_structure())
            verdicts.append(crystal.matches(other))
            assert verdicts[-1] == default_matcher().fit(*own)
    assert any(verdicts)
    assert not all(verdicts)


def test_what_is_no_crystal_cannot_match(crystals):
    with pytest.raises(InvalidStructureError, match="a str is no crystal"):
        crystals[0].matches("Po")
    assert not any(crystals[0].matches(other) for other in crystals[1:])
