"""Crystals as scenes of atoms and bonds that the report's page can turn."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from crystalvae.screening.base import element_array, element_table

if TYPE_CHECKING:
    from crystalvae.crystal import AsymmetricUnit

MAX_ATOMS = 400
"""Atoms of one scene; a larger cell is drawn without the repeats on its faces."""
_ON_FACE = 0.02


def scene(crystal: AsymmetricUnit) -> dict[str, Any]:
    """The conventional cell, atoms on its faces repeated, with bonds.

    Args:
        crystal: what to draw.

    Returns:
        ``points`` in Å about the centre of the cell ``(N, 3)``, ``kinds`` into
        ``elements`` (symbol, colour and radius in Å), ``bonds`` as pairs of points and
        ``cell``, its rows in Å ``(3, 3)``; all plain lists.
    """
    lattice, coords, species, _ = crystal.expand()
    if len(coords) <= MAX_ATOMS:
        coords, species = _with_faces(coords, species)
    points = (coords - 0.5) @ lattice
    table, radius = element_table(), element_array("radius")
    elements = np.unique(species)
    return {
        "points": points.round(3).tolist(),
        "kinds": np.searchsorted(elements, species).tolist(),
        "elements": [
            {
                "symbol": table[z]["symbol"],
                "color": _colour(z),
                "radius": round(0.25 + 0.27 * float(radius[z]), 3),
            }
            for z in elements.tolist()
        ],
        "bonds": _bonds(points, species).tolist() if len(points) < 4000 else [],
        "cell": lattice.round(4).tolist(),
    }


def _with_faces(
    coords: np.ndarray, species: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    coords = coords - (coords > 1 - _ON_FACE)
    found, kinds = [], []
    for shift in itertools.product((0, 1), repeat=3):
        wanted = ((np.array(shift) == 0) | (coords < _ON_FACE)).all(1)
        found.append(coords[wanted] + shift)
        kinds.append(species[wanted])
    return np.concatenate(found), np.concatenate(kinds)


def _bonds(points: np.ndarray, species: np.ndarray) -> np.ndarray:
    """Pairs near the shortest distance of their two elements, ``(B, 2)``.

    Two metals are joined only where there is nothing else.
    """
    from scipy.spatial import cKDTree

    table, radius = element_table(), element_array("radius")
    metal = np.array([table[z]["metal"] for z in species.tolist()])
    reach = 2.3 * float(radius[species].max())
    pairs = cKDTree(points).query_pairs(reach, output_type="ndarray")
    if not len(pairs):
        return pairs.reshape(0, 2)
    first, second = pairs.T
    distance = np.linalg.norm(points[first] - points[second], axis=1)
    near = distance < 1.15 * (radius[species[first]] + radius[species[second]])
    if not metal.all():
        near &= ~(metal[first] & metal[second])
    pairs, distance = pairs[near], distance[near]
    kinds = np.sort(species[pairs], axis=1)
    factor = 1.1 if metal.all() else 1.25
    keep = np.zeros(len(pairs), bool)
    for kind in np.unique(kinds, axis=0):
        own = (kinds == kind).all(1)
        keep |= own & (distance < factor * distance[own].min())
    return pairs[keep]


def _colour(z: int) -> str:
    from ase.data.colors import jmol_colors

    red, green, blue = (int(255 * value) for value in jmol_colors[min(z, 109)])
    return f"#{red:02x}{green:02x}{blue:02x}"
