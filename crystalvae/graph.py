"""The orbit graph: one node per orbit, edges to the neighbours in the crystal."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from pymatgen.optimization.neighbors import find_points_in_spheres

from crystalvae.errors import InvalidStructureError

if TYPE_CHECKING:
    from crystalvae.crystal import AsymmetricUnit

NUM_NEIGHBORS = 16


def orbit_graph(
    crystal: AsymmetricUnit, num_neighbors: int = NUM_NEIGHBORS
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The nearest neighbours of each orbit's representative, all images included.

    Args:
        crystal: the crystal.
        num_neighbors: neighbours K of each site.

    Returns:
        Site of each neighbour ``(S, K)`` int16, distance in Å ascending ``(S, K)``
        float32, and unit vector to it in the frame of ``crystal.lattice`` ``(S, K, 3)``
        float32.

    Raises:
        InvalidStructureError: the cell is too large for neighbours to be found.
    """
    lattice, coords, _, site = crystal.expand_primitive()
    lattice = np.ascontiguousarray(lattice)
    cart = np.ascontiguousarray(coords @ lattice)
    centres = np.ascontiguousarray(crystal.frac_coords @ crystal.lattice)
    num_sites = len(centres)
    density = len(cart) / abs(np.linalg.det(lattice))
    radius = (3 * 1.6 * num_neighbors / (4 * math.pi * density)) ** (1 / 3) + 0.5
    periodic = np.ones(3, dtype=np.int64)
    for _ in range(12):
        centre, point, image, distance = find_points_in_spheres(
            cart, centres, r=radius, pbc=periodic, lattice=lattice, tol=1e-8
        )
        other = distance > 1e-3
        centre, point, image = centre[other], point[other], image[other]
        distance = distance[other]
        if np.bincount(centre, minlength=num_sites).min() >= num_neighbors:
            break
        radius *= 1.35
    else:
        raise InvalidStructureError(
            "no neighbours within reach; is the cell too large?"
        )
    order = np.lexsort((site[point], np.round(distance, 4), centre))
    start = np.searchsorted(centre[order], np.arange(num_sites))
    chosen = order[start[:, None] + np.arange(num_neighbors)]
    target = cart[point[chosen]] + image[chosen] @ lattice
    direction = target - centres[:, None]
    found = np.maximum.accumulate(distance[chosen], axis=1)
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    return (
        site[point[chosen]].astype(np.int16),
        found.astype(np.float32),
        direction.astype(np.float32),
    )
