"""One description for each crystal, out of the many that its normaliser allows.

The same crystal can be written in several ways in the same setting: another origin,
another choice among equivalent axes. Left alone they would be noise for a model and
would make its output depend on the cell that the input came in.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from crystalvae.symmetry.tables import symmetry_tables

LENGTH_TOLERANCE = 2e-3
"""Relative difference below which lengths count as equal."""
MAX_CANDIDATES = 2_000_000
"""Bound on descriptions × atoms that are compared."""
_RESOLUTION = 1000


def wrap(coords: np.ndarray) -> np.ndarray:
    """Into [-1e-4, 1 - 1e-4), so that 0.99999 counts as 0."""
    return coords - np.floor(coords + 1e-4)


def _ordinal(coords: np.ndarray) -> np.ndarray:
    """Integers that order coordinates ``(..., 3)`` lexicographically at 1e-3."""
    steps = np.floor(wrap(coords) * _RESOLUTION + 0.3).astype(np.int64)
    base = 2 * _RESOLUTION
    return (steps[..., 0] * base + steps[..., 1]) * base + steps[..., 2]


@cache
def _unique_rotations(number: int) -> tuple[np.ndarray, np.ndarray]:
    rotations = symmetry_tables().normalizer(number)[0]
    flat = rotations.reshape(len(rotations), 9)
    unique, inverse = np.unique(flat, axis=0, return_inverse=True)
    return np.linalg.inv(unique.reshape(-1, 3, 3)), inverse.ravel()


def _best_lattices(number: int, metric: np.ndarray) -> np.ndarray:
    """Cosets that give the preferred cell: short and ordered, then obtuse."""
    inverses, owner = _unique_rotations(number)
    alive = np.arange(len(owner))
    system = symmetry_tables().system[number]
    if system > 2:
        return alive
    metrics = np.einsum("cji,jk,ckl->cil", inverses, metric, inverses)
    lengths = np.sqrt(np.einsum("cii->ci", metrics))
    a, b, c = lengths.T
    tolerance = LENGTH_TOLERANCE * lengths[0].max()
    keys = [(a + c, tolerance), (a, tolerance), (b, tolerance), (c, tolerance)]
    if system < 2:
        cosines = [
            metrics[:, 1, 2] / (b * c),
            metrics[:, 0, 2] / (a * c),
            metrics[:, 0, 1] / (a * b),
        ]
        keys += [(cosine, 1e-3) for cosine in cosines]
    if system == 2:
        keys = keys[1:]
    good = np.ones(len(inverses), bool)
    for value, margin in keys:
        good &= value <= value[good].min() + margin
    return alive[good[owner]]


def canonical_sites(
    number: int,
    metric: np.ndarray,
    frac_coords: np.ndarray,
    atomic_numbers: np.ndarray,
    letters: np.ndarray,
    orbits: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Choose among all descriptions of a crystal in its setting.

    The preferred cell comes first, then the smallest list of (letter, element), then
    the smallest coordinates; along polar axes an atom of the rarest kind of site is
    put at 0.

    Args:
        number: space-group number.
        metric: metric tensor of the conventional cell ``(3, 3)``.
        frac_coords: all atoms of the conventional cell ``(N, 3)``.
        atomic_numbers: ``(N,)``.
        letters: Wyckoff letter index of each atom ``(N,)``.
        orbits: orbit of each atom, any integers, ``(N,)``.

    Returns:
        Metric tensor ``(3, 3)``, letters ``(S,)``, atomic numbers ``(S,)`` and
        coordinates ``(S, 3)`` of the chosen description, sites sorted.

    Raises:
        ValueError: an orbit has no atom on the first triplet of its position.
    """
    tables = symmetry_tables()
    order = np.argsort(orbits, kind="stable")
    coords, species, letters = frac_coords[order], atomic_numbers[order], letters[order]
    starts = np.flatnonzero(np.r_[True, np.diff(orbits[order]) != 0])
    sizes = np.diff(np.r_[starts, len(order)])
    orbit_letters, orbit_species = letters[starts], species[starts]

    rotations, shifts, letter_maps = tables.normalizer(number)
    cosets = _best_lattices(number, metric)
    kinds = letter_maps[cosets][:, orbit_letters] * 128 + orbit_species
    ranked = np.sort(kinds, axis=1)
    best = np.lexsort(ranked.T[::-1])[0]
    keep = (ranked == ranked[best]).all(1)
    cosets, kinds, ranked = cosets[keep], kinds[keep], ranked[best]

    polar = tables.polar[number]
    if not tables.dof[number, orbit_letters].any() and not polar.any():
        cosets, kinds = cosets[:1], kinds[:1]
    moved = np.einsum("cij,nj->cni", rotations[cosets], coords)
    moved = moved + shifts[cosets][:, None]  # (M, N, 3)
    if polar.any():
        names = np.unique(kinds[0])
        weight = np.array(
            [sizes[kinds[0] == name].sum() for name in names], dtype=np.int64
        )
        rarest = names[np.lexsort((names, weight))[0]]
        anchors, cosets_of = [], []
        for row in range(len(cosets)):
            member = np.repeat(kinds[row] == rarest, sizes)
            points = np.where(polar, moved[row][member], 0.0)
            _, unique = np.unique(_ordinal(points), return_index=True)
            anchors.append(points[unique])
            cosets_of.append(np.full(len(unique), row))
        anchor, row = np.concatenate(anchors), np.concatenate(cosets_of)
        limit = max(1, MAX_CANDIDATES // len(coords))
        anchor, row = anchor[:limit], row[:limit]
        moved = moved[row] - anchor[:, None]
        cosets, kinds = cosets[row], kinds[row]
    limit = max(1, MAX_CANDIDATES // len(coords))
    moved, cosets, kinds = moved[:limit], cosets[:limit], kinds[:limit]

    new_letters = kinds // 128  # (M, S)
    per_atom = np.repeat(new_letters, sizes, axis=1)
    embed, offset = tables.embed[number], tables.offset[number]
    exact = np.einsum("mnij,mnj->mni", embed[per_atom], moved) + offset[per_atom]
    gap = exact - moved
    gap -= np.round(gap)
    distance = np.einsum("mni,ij,mnj->mn", gap, metric, gap)
    moved = wrap(moved + gap)
    ordinal = np.where(distance < 0.04, _ordinal(moved), np.iinfo(np.int64).max)
    chosen = np.empty(kinds.shape, np.int64)
    for site, (start, size) in enumerate(zip(starts, sizes)):
        chosen[:, site] = start + ordinal[:, start : start + size].argmin(1)
    rows = np.arange(len(kinds))[:, None]
    keys = ordinal[rows, chosen]
    if (keys.min(0) == np.iinfo(np.int64).max).any():
        raise ValueError("an orbit has no atom on the first triplet of its position")
    sorting = np.lexsort((keys, kinds), axis=1)
    keys = np.take_along_axis(keys, sorting, 1)
    best = np.lexsort(keys.T[::-1])[0]
    sites = sorting[best]
    inverse = np.linalg.inv(rotations[cosets[best]])
    result = moved[best, chosen[best, sites]]
    result = np.where(np.abs(result) < 1e-9, 0.0, result)
    return (
        inverse.T @ metric @ inverse,
        new_letters[best, sites],
        orbit_species[sites],
        result - np.floor(result),
    )
