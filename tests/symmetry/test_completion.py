import itertools

import numpy as np
import pytest

from crystalvae.symmetry.completion import can_complete
from crystalvae.symmetry.tables import symmetry_tables

TABLES = symmetry_tables()


def brute_force(number, remaining):
    """Exhaustive search over letters in order, elements ascending within a letter."""
    letters = np.flatnonzero(TABLES.multiplicity[number])
    seen = set()

    def search(letter, place, rest):
        if not any(rest):
            return True
        if (letter, place, rest) in seen:
            return False
        seen.add((letter, place, rest))
        for following in letters:
            if following < letter:
                continue
            again = following == letter
            if again and TABLES.dof[number, following] == 0:
                continue
            size = int(TABLES.multiplicity[number, following])
            for element in range(len(rest)):
                if rest[element] < size or (again and element < place):
                    continue
                fewer = list(rest)
                fewer[element] -= size
                if search(following, element, tuple(fewer)):
                    return True
        return False

    return search(-1, 0, tuple(remaining))


@pytest.mark.parametrize("number", [1, 2, 14, 47, 62, 123, 166, 194, 216, 221, 225])
def test_agrees_with_exhaustive_search(number):
    unit = int(TABLES.centring[number])
    for counts in itertools.product(range(1, 4), range(1, 4)):
        remaining = tuple(unit * n for n in counts)
        assert can_complete(number, -1, 0, remaining) == brute_force(number, remaining)


def test_three_single_atoms_do_not_fit_in_fm3m():
    assert can_complete(225, -1, 0, (4, 4, 8))
    assert not can_complete(225, -1, 0, (4, 4, 4))
    assert can_complete(216, -1, 0, (4, 4, 4))


def test_elements_ascend_within_a_letter():
    general = int((TABLES.multiplicity[2] > 0).sum()) - 1
    assert can_complete(2, general, 0, (2, 2))
    assert not can_complete(2, general, 1, (2, 2))
