"""How far is a crystal from the nearest known one? A continuous answer in ångström."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree

from crystalvae.errors import InvalidStructureError
from crystalvae.files import replacing
from crystalvae.parallel import process_map

if TYPE_CHECKING:
    from pathlib import Path

    from crystalvae.crystal import AsymmetricUnit
    from crystalvae.data.packed import PackedDataset

NUM_DISTANCES = 100
"""Neighbours that enter the fingerprint."""
CHUNK = 512
"""Crystals a task."""


def average_minimum_distances(
    crystal: AsymmetricUnit, num_distances: int = NUM_DISTANCES
) -> np.ndarray:
    """Average over atoms of the distance to the k-th neighbour, k = 1, 2, ...

    Equal for every description of a crystal and continuous under displacements, of
    which it changes by at most twice the largest. Elements do not enter.

    Args:
        crystal: the crystal.
        num_distances: neighbours K.

    Returns:
        Distances in Å, ascending, ``(K,)``.

    Raises:
        InvalidStructureError: the cell is too large for a neighbour search.

    References:
        D. Widdowson et al., MATCH Commun. Math. Comput. Chem. 87, 529 (2022), def. 5.
    """
    lattice, coords, _, site = crystal.expand_primitive()
    return mean_distances(lattice, coords, site, num_distances)


def mean_distances(
    lattice: np.ndarray, coords: np.ndarray, site: np.ndarray, num_distances: int
) -> np.ndarray:
    """Average minimum distances of a cell, see :func:`average_minimum_distances`.

    Args:
        lattice: rows in any unit of length, ``(3, 3)``.
        coords: fractional coordinates ``(N, 3)``.
        site: orbit of each atom ``(N,)``; of each orbit only one atom is looked at.
        num_distances: neighbours K.

    Returns:
        Distances in the unit of the lattice, ascending, ``(K,)``.

    Raises:
        InvalidStructureError: the cell is too large for a neighbour search.
    """
    from pymatgen.optimization.neighbors import find_points_in_spheres

    lattice = np.ascontiguousarray(lattice)
    cart = np.ascontiguousarray(coords @ lattice)
    sites, first, size = np.unique(site, return_index=True, return_counts=True)
    centres = np.ascontiguousarray(cart[first])
    density = len(cart) / abs(np.linalg.det(lattice))
    radius = (3 * 1.3 * num_distances / (4 * math.pi * density)) ** (1 / 3)
    periodic = np.ones(3, dtype=np.int64)
    for _ in range(8):
        centre, _, _, distance = find_points_in_spheres(
            cart, centres, r=radius, pbc=periodic, lattice=lattice, tol=1e-8
        )
        other = distance > 1e-6
        centre, distance = centre[other], distance[other]
        if np.bincount(centre, minlength=len(sites)).min() >= num_distances:
            break
        radius *= 1.3
    else:
        raise InvalidStructureError("the cell is too large for its fingerprint")
    order = np.lexsort((distance, centre))
    start = np.searchsorted(centre[order], np.arange(len(sites)))
    rows = distance[order[start[:, None] + np.arange(num_distances)]]
    return (rows * size[:, None]).sum(0) / size.sum()


def _of_crystals(crystals: list[AsymmetricUnit]) -> np.ndarray:
    return np.stack([average_minimum_distances(crystal) for crystal in crystals])


def reference_fingerprints(
    dataset: PackedDataset | Sequence[AsymmetricUnit], num_workers: int | None = None
) -> np.ndarray:
    """Fingerprints of known crystals, ``(M, 100)``, kept beside a packed data set.

    Args:
        dataset: the known crystals.
        num_workers: processes; None is one a core.
    """
    parts = getattr(dataset, "parts", None)
    if parts is not None:
        return np.concatenate([reference_fingerprints(p, num_workers) for p in parts])
    path: Path | None = getattr(dataset, "path", None)
    cached = None if path is None else path / "fingerprints.npy"
    if cached is not None:
        with suppress(OSError, ValueError, EOFError):
            found = np.load(cached)
            if found.shape == (len(dataset), NUM_DISTANCES):
                return found
    rows = range(len(dataset))
    starts = rows[::CHUNK]
    chunks = ([dataset[i] for i in rows[s : s + CHUNK]] for s in starts)
    with process_map(num_workers, len(starts) >= 4) as each:
        parts = list(each(_of_crystals, chunks))
    found = np.concatenate([np.zeros((0, NUM_DISTANCES)), *parts]).astype(np.float32)
    if cached is not None:
        with suppress(OSError), replacing(cached, shared=True) as partial:
            np.save(partial, found)
    return found


class NearestKnown:
    """The known crystal whose fingerprint is nearest.

    Args:
        fingerprints: those of the known crystals ``(M, K)``.
    """

    def __init__(self, fingerprints: np.ndarray):
        self.tree = cKDTree(fingerprints)

    def __call__(
        self, fingerprints: np.ndarray, num_workers: int = -1
    ) -> tuple[np.ndarray, np.ndarray]:
        """Largest difference of a distance (Å) to the nearest one, and its row.

        Args:
            fingerprints: ``(N, K)``.
            num_workers: threads; -1 is one a core.

        Returns:
            ``(N,)`` distances in Å and ``(N,)`` rows.
        """
        return self.tree.query(fingerprints, p=np.inf, workers=num_workers)
