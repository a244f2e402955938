import numpy as np
import pytest

from crystalvae.symmetry.tables import symmetry_tables

TABLES = symmetry_tables()
POSITIONS = [
    (number, letter)
    for number in range(1, 231)
    for letter in np.flatnonzero(TABLES.multiplicity[number])
]


def test_there_are_1731_positions():
    assert len(POSITIONS) == 1731


@pytest.mark.parametrize("number", range(1, 231))
def test_orbits_have_their_multiplicity_and_obey_the_group(number):
    rng = np.random.default_rng(number)
    group_r, group_t = TABLES.general_ops(number)
    for letter in np.flatnonzero(TABLES.multiplicity[number]):
        point = TABLES.embed[number, letter] @ rng.random(3)
        point = point + TABLES.offset[number, letter]
        again = TABLES.embed[number, letter] @ point + TABLES.offset[number, letter]
        shift = again - point
        np.testing.assert_allclose(shift - np.round(shift), 0, atol=1e-9)
        rotations, translations = TABLES.orbit_ops(number, int(letter))
        orbit = rotations @ point + translations
        assert len(orbit) == TABLES.multiplicity[number, letter]
        delta = orbit[:, None] - orbit[None]
        delta = np.abs(delta - np.round(delta)).max(-1) + np.eye(len(orbit))
        assert delta.min() > 1e-6
        image = group_r[len(group_r) // 2] @ orbit.T
        image = image.T + group_t[len(group_r) // 2]
        gap = image[:, None] - orbit[None]
        assert (np.abs(gap - np.round(gap)).max(-1).min(1) < 1e-6).all()


def test_dof_counts_free_coordinates():
    np.testing.assert_array_equal(TABLES.free.sum(-1), TABLES.dof)


def test_centring_of_known_lattices():
    assert [TABLES.centring[n] for n in (221, 229, 225, 166, 12)] == [1, 2, 4, 3, 2]


def test_origin_shift_by_half_swaps_a_and_b_in_pm3m():
    _, translations, letters = TABLES.normalizer(221)
    assert len(letters) == 2
    np.testing.assert_allclose(translations[1] % 1, 0.5)
    assert letters[1, :2].tolist() == [1, 0]


@pytest.mark.parametrize("number", [1, 2, 5, 14, 19, 26, 62, 92, 148, 152, 198, 225])
def test_normaliser_maps_the_group_to_itself(number):
    rotations, translations = TABLES.general_ops(number)
    known = {
        (*r.ravel().tolist(), *(np.round(t * 24).astype(int) % 24).tolist())
        for r, t in zip(rotations, translations)
    }
    sohncke = all(np.linalg.det(r) > 0 for r in rotations)
    for matrix, shift, _ in zip(*TABLES.normalizer(number)):
        inverse = np.round(np.linalg.inv(matrix)).astype(int)
        if sohncke:
            assert np.linalg.det(matrix) > 0
        for r, t in zip(rotations, translations):
            image = matrix @ r @ inverse
            moved = matrix @ t + shift - image @ shift
            cells = np.round(moved * 24).astype(int) % 24
            assert (*image.ravel().tolist(), *cells.tolist()) in known


def test_polar_groups():
    assert TABLES.polar[1].all()
    assert TABLES.polar[4].tolist() == [False, True, False]
    assert TABLES.polar[6].tolist() == [True, False, True]
    assert TABLES.polar[186].tolist() == [False, False, True]
    assert not TABLES.polar[[2, 14, 62, 225, 19]].any()
