"""Shortest distance between atoms, all periodic images included, an atom's own too.

The validity check that many repositories copied pads the diagonal of the distance
matrix, so that an atom is never compared with its own images: a one-atom cell of
0.4 × 10 × 10 Å passes it, and fails here.
"""

from __future__ import annotations

import math

import numpy as np

from crystalvae.screening.base import Candidate, CheckResult, element_array

MIN_DISTANCE = 0.5
"""Å; T. Xie et al., CDVAE, ICLR 2022, appendix B."""
MIN_RADIUS_SHARE = 0.6
"""Share of the sum of covalent radii; the smallest in MP-20's 26,332 training crystals
is 0.62 (LeMat-GenBench asks for 0.5)."""
MIN_NONMETAL_SHARE = 0.75
"""The same between two nonmetals, metalloids included, where the smallest is 0.78."""
MIN_HEIGHT = 1e-2
"""Å between opposite faces of the cell; a flatter one is not searched."""
_SEARCH = 3.0


def shortest_pairs(candidate: Candidate, radius: float = _SEARCH) -> tuple:
    """Pairs closer than ``radius`` Å: indices, indices, distances.

    An atom's distance to itself (zero) is left out, to its images is not.
    """
    from pymatgen.optimization.neighbors import find_points_in_spheres

    coords = candidate.frac_coords - np.floor(candidate.frac_coords)
    lattice = np.ascontiguousarray(candidate.lattice, float)
    cart = np.ascontiguousarray(coords @ lattice)
    first, second, image, distance = find_points_in_spheres(
        cart,
        cart,
        r=radius,
        pbc=np.ones(3, dtype=np.int64),
        lattice=lattice,
        tol=1e-8,
    )
    other = (first != second) | (np.abs(image).sum(1) > 0)
    return first[other], second[other], distance[other]


def check_distance(candidate: Candidate) -> CheckResult:
    """No two atoms, images included, closer than 0.5 Å."""
    if not len(candidate.atomic_numbers) or candidate.volume < 1e-3:
        return CheckResult("distance", False, 0.0, "no atoms or no volume")
    height = _least_height(candidate)
    if height < MIN_HEIGHT:
        return CheckResult("distance", False, height, "the cell is flat")
    _, _, distance = pairs_within(candidate, MIN_DISTANCE)
    if len(distance):
        value = float(distance.min())
        return CheckResult(
            "distance", False, value, f"two atoms are {value:.2f} Å apart"
        )
    return CheckResult("distance", True)


def unsearchable(candidate: Candidate) -> str | None:
    """Why distances cannot be searched in a cell; None where they can."""
    if not len(candidate.atomic_numbers) or candidate.volume < 1e-3:
        return "no atoms or no volume"
    return "the cell is flat" if _least_height(candidate) < MIN_HEIGHT else None


def pairs_within(candidate: Candidate, radius: float) -> tuple:
    """As :func:`shortest_pairs`, but no pairs in cells that cannot be searched.

    What was searched further serves those that ask for less.
    """
    if unsearchable(candidate) is not None:
        return np.zeros(0, int), np.zeros(0, int), np.zeros(0)
    searched, pairs = candidate.cache.get("pairs", (0.0, None))
    if pairs is None or radius > searched:
        searched = max(radius, _reach(candidate.atomic_numbers), MIN_DISTANCE)
        pairs = shortest_pairs(candidate, searched)
        candidate.cache["pairs"] = searched, pairs
    first, second, distance = pairs
    near = distance <= radius
    return first[near], second[near], distance[near]


def radius_share(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Least share of the sum of covalent radii at which two elements may lie.

    Args:
        first: atomic numbers.
        second: atomic numbers that broadcast with ``first``.
    """
    metal = element_array("metal").astype(bool)
    return np.where(metal[first] | metal[second], MIN_RADIUS_SHARE, MIN_NONMETAL_SHARE)


def check_radii(candidate: Candidate) -> CheckResult:
    """No two atoms closer than a share of the sum of their covalent radii.

    The share is 0.6, and 0.75 between nonmetals.
    """
    why = unsearchable(candidate)
    if why is not None:
        return CheckResult("radii", None, None, why)
    species = candidate.atomic_numbers
    radii = element_array("radius")[species]
    first, second, distance = pairs_within(candidate, _reach(species))
    if not len(distance):
        return CheckResult("radii", True)
    share = distance / (radii[first] + radii[second])
    least = radius_share(species[first], species[second])
    worst = int((share / least).argmin())
    value = float(share[worst])
    passed = bool(value >= least[worst])
    message = (
        ""
        if passed
        else f"two atoms are at {value:.2f} of the sum of covalent radii, less than "
        f"{least[worst]}"
    )
    return CheckResult("radii", passed, value, message)


def _reach(species: np.ndarray) -> float:
    """Å beyond which no two of the elements are too close."""
    radii = element_array("radius")[species]
    return 2 * float((radius_share(species, species) * radii).max())


def _least_height(candidate: Candidate) -> float:
    """Least distance in Å between opposite faces of the cell."""
    a, b, c = candidate.lattice.tolist()
    faces = (_cross(a, b), _cross(b, c), _cross(c, a))
    return candidate.volume / max(1e-12, *(math.hypot(*face) for face in faces))


def _cross(a: list[float], b: list[float]) -> tuple[float, float, float]:
    return (
        a[1] * b[2] - a[2] * b[1],
        a[2] * b[0] - a[0] * b[2],
        a[0] * b[1] - a[1] * b[0],
    )
