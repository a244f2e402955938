"""Build ``crystalvae/symmetry/tables.npz`` from PyXtal's and spglib's tables.

Run ``python tools/build_symmetry_tables.py`` (needs ``pyxtal``); it takes a minute or
two. Fractions are stored as integer numerators over 24, which every translation of
the 230 space groups and of their normalisers is a multiple of.

The normaliser of a group G is the set of affine maps N with N G N⁻¹ = G. A map
(R, t) belongs to it when, for every operation (S, s) of G,

    t - S' t ≡ s' - R s   (mod lattice),   S' = R S R⁻¹,  (S', s') in G,

which is solved on the grid of 24ths. Components of t along polar axes are free and set
to zero. References: International Tables for Crystallography A (2016), chapter 3.5.
"""

import argparse
import itertools
from pathlib import Path

import numpy as np
import spglib
from pyxtal.symmetry import Group

GRID = 24
LETTERS = "abcdefghijklmnopqrstuvwxyzA"
SOHNCKE_ROTATIONS = 1e-6
SYSTEM_STARTS = (1, 3, 16, 75, 143, 168, 195)
PRIMITIVE = {
    "P": np.eye(3) * 6,
    "A": [[6, 0, 0], [0, 3, -3], [0, 3, 3]],
    "C": [[3, 3, 0], [-3, 3, 0], [0, 0, 6]],
    "I": [[-3, 3, 3], [3, -3, 3], [3, 3, -3]],
    "F": [[0, 3, 3], [3, 0, 3], [3, 3, 0]],
    "R": [[4, 2, 2], [-2, 2, 2], [-2, -4, 2]],
}


def to_grid(values: np.ndarray) -> np.ndarray:
    """Numerators over 24 of fractions, asserting that they are such."""
    scaled = np.asarray(values, float) * GRID
    rounded = np.round(scaled)
    assert np.abs(scaled - rounded).max(initial=0) < 1e-3, values
    return rounded.astype(int)


def choose_hall_number(number: int, types: list) -> int:
    own = [t for t in types if t.number == number]
    second = [t for t in own if t.choice == "2"]
    return (second or own)[0].hall_number


def database_operations(hall: int) -> tuple[np.ndarray, np.ndarray]:
    found = spglib.get_symmetry_from_database(hall)
    return found["rotations"].astype(int), to_grid(found["translations"]) % GRID


def operation_key(rotation: np.ndarray, translation: np.ndarray) -> tuple:
    return (*rotation.ravel().tolist(), *(translation % GRID).tolist())


def free_coordinates(matrix: np.ndarray, offset: np.ndarray):
    """Re-express x = matrix p + offset by those coordinates of x that are free."""
    free: list[int] = []
    for row in range(3):
        if np.linalg.matrix_rank(matrix[[*free, row]]) == len(free) + 1:
            free.append(row)
    if not free:
        return np.zeros(3, bool), np.zeros((3, 3), int), offset % GRID
    block = matrix[free]
    pivots = [c for c in range(3) if np.abs(matrix[:, c]).any()]
    assert len(pivots) == len(free), "parameters are not separate columns"
    square = block[:, pivots]
    assert abs(round(np.linalg.det(square))) == 1, "free block is not unimodular"
    inverse = np.round(np.linalg.inv(square)).astype(int)
    columns = matrix[:, pivots] @ inverse
    embed = np.zeros((3, 3), int)
    embed[:, free] = columns
    mask = np.zeros(3, bool)
    mask[free] = True
    return mask, embed, (offset - columns @ offset[free]) % GRID


def polar_axes(rotations: np.ndarray) -> np.ndarray:
    """Axes along which every rotation leaves the point alone."""
    mean = rotations.mean(axis=0)
    polar = np.array([np.allclose(mean @ axis, axis) for axis in np.eye(3)])
    assert round(np.trace(mean)) == polar.sum(), "a polar direction is not an axis"
    return polar


def primitive_orbit(embed, offset, rotations, translations, centring, rng):
    """Operations that make the orbit: distinct modulo centring first, then centred."""
    point = (embed @ rng.random(3) + offset / GRID) % 1
    images = (rotations @ point + translations / GRID) % 1
    chosen: list[int] = []
    for k, image in enumerate(images):
        seen = images[chosen][:, None] + centring[None] / GRID - image
        if not (np.abs(seen - np.round(seen)).max(-1) < 1e-6).any():
            chosen.append(k)
    lookup = {
        operation_key(r, t): k for k, (r, t) in enumerate(zip(rotations, translations))
    }
    return [
        lookup[operation_key(rotations[k], translations[k] + c)]
        for c in centring
        for k in chosen
    ]


def candidate_rotations(number: int) -> np.ndarray:
    """Integer matrices that may belong to the normaliser, identity first."""
    if number <= 2:
        grids = np.array(list(itertools.product((-1, 0, 1), repeat=9))).reshape(
            -1, 3, 3
        )
    elif number <= 15:
        plane = np.array(list(itertools.product((-1, 0, 1), repeat=4)))
        grids = np.zeros((2 * len(plane), 3, 3), int)
        for k, (sign, (a, b, c, d)) in enumerate(itertools.product((1, -1), plane)):
            grids[k] = [[a, 0, b], [0, sign, 0], [c, 0, d]]
    elif 143 <= number <= 194:
        grids = database_operations(485)[0]
    else:
        grids = np.array(
            [
                np.diag(signs)[list(order)]
                for order in itertools.permutations(range(3))
                for signs in itertools.product((1, -1), repeat=3)
            ]
        )
    determinant = np.round(np.linalg.det(grids)).astype(int)
    grids = grids[np.abs(determinant) == 1]
    determinant = np.round(np.linalg.det(grids)).astype(int)
    off_diagonal = np.abs(grids - np.eye(3, dtype=int)).sum(axis=(1, 2))
    return grids[np.lexsort((off_diagonal, -determinant))]


def solve_translations(rotation, rotations, translations, lookup, polar, lattice_index):
    """Grid translations (numerators) that make (rotation, t) normalise the group."""
    axes = [np.zeros(1, int) if p else np.arange(GRID) for p in polar]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    inverse = np.round(np.linalg.inv(rotation)).astype(int)
    for s_rotation, s_translation in zip(rotations, translations):
        image = rotation @ s_rotation @ inverse
        targets = lookup.get(tuple(image.ravel()))
        if targets is None:
            return grid[:0]
        left = grid - grid @ image.T
        residual = (left[:, None] - targets[None] + rotation @ s_translation) % GRID
        grid = grid[(residual == 0).all(-1).any(-1)]
        if not len(grid):
            return grid
    keep: list[int] = []
    centre = translations[lattice_index]
    for k, t in enumerate(grid):
        difference = (t - grid[keep])[:, None] + centre[None]
        same = (difference % GRID == 0) | polar
        if not same.all(-1).any():
            keep.append(k)
    return grid[keep]


def normaliser(number, rotations, translations, polar):
    points = np.unique(rotations, axis=0)
    proper_only = (np.round(np.linalg.det(points)) > 0).all()
    lookup: dict = {}
    for r, t in zip(rotations, translations):
        lookup.setdefault(tuple(r.ravel()), []).append(t)
    lookup = {key: np.array(value) for key, value in lookup.items()}
    lattice_index = (rotations == np.eye(3, dtype=int)).all(axis=(1, 2))
    seen: set = set()
    out_rotations, out_translations = [], []
    for rotation in candidate_rotations(number):
        if proper_only and round(np.linalg.det(rotation)) < 0:
            continue
        if tuple(rotation.ravel()) in seen:
            continue
        seen.update(tuple((rotation @ p).ravel()) for p in points)
        for t in solve_translations(
            rotation, rotations, translations, lookup, polar, lattice_index
        ):
            out_rotations.append(rotation)
            out_translations.append(t)
    return np.array(out_rotations), np.array(out_translations)


def map_letters(
    norm_r, norm_t, rotations, translations, multiplicity, dof, embed, offset, rng
):
    """For each normaliser element and letter, the letter of the image position."""
    count = int((multiplicity > 0).sum())
    result = np.full((len(norm_r), len(LETTERS)), -1)
    for w in range(count):
        point = embed[w] @ rng.random(3) + offset[w] / GRID
        image = norm_r @ point + norm_t / GRID
        orbit = np.einsum("mij,cj->cmi", rotations, image) + translations / GRID
        for other in range(count):
            if multiplicity[other] != multiplicity[w] or dof[other] != dof[w]:
                continue
            residual = orbit @ embed[other].T + offset[other] / GRID - orbit
            residual -= np.round(residual)
            hit = (np.abs(residual).max(-1) < 1e-7).any(-1)
            assert (result[hit, w] == -1).all(), "a point on two positions"
            result[hit, w] = other
    assert (np.sort(result[:, :count], axis=1) == np.arange(count)).all()
    return result


def origin_shift(number, hall, rotations, translations) -> np.ndarray:
    """Numerators p with x(ours) = x(spglib's default) + p."""
    default = spglib.get_symmetry_from_database(
        min(t for t in range(1, 531) if spglib.get_spacegroup_type(t).number == number)
    )
    own: dict = {}
    for r, t in zip(rotations, translations):
        own.setdefault(tuple(r.ravel()), []).append(t)
    axis = np.arange(GRID)
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    for r, t in zip(default["rotations"], to_grid(default["translations"])):
        target = np.array(own[tuple(r.astype(int).ravel())])
        moved = t + grid - grid @ r.T.astype(int)
        grid = grid[((moved[:, None] - target[None]) % GRID == 0).all(-1).any(-1)]
    return grid[np.abs((grid + 12) % GRID - 12).sum(-1).argmin()]


def build() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    types = [spglib.get_spacegroup_type(hall) for hall in range(1, 531)]
    shape = (231, len(LETTERS))
    table = {
        "multiplicity": np.zeros(shape, np.uint8),
        "dof": np.zeros(shape, np.int8),
        "free": np.zeros((*shape, 3), bool),
        "embed": np.zeros((*shape, 3, 3), np.int8),
        "offset": np.zeros((*shape, 3), np.int8),
        "centring": np.zeros(231, np.int8),
        "polar": np.zeros((231, 3), bool),
        "system": np.zeros(231, np.int8),
        "hall_number": np.zeros(231, np.int16),
        "default_hall_number": np.zeros(231, np.int16),
        "default_origin": np.zeros((231, 3), np.int8),
        "primitive": np.zeros((231, 3, 3), np.int8),
        "orbit_start": np.zeros(shape, np.int32),
        "operation_start": np.zeros(232, np.int32),
        "normalizer_start": np.zeros(232, np.int32),
    }
    flat: dict[str, list] = {
        k: []
        for k in (
            "rotations",
            "translations",
            "orbit",
            "normalizer_rotations",
            "normalizer_translations",
            "normalizer_letters",
        )
    }
    symbols = [""]
    for number in range(1, 231):
        hall = choose_hall_number(number, types)
        positions = sorted(
            Group(number).Wyckoff_positions, key=lambda wp: LETTERS.index(wp.letter)
        )
        affine = np.array([op.affine_matrix for op in positions[-1].ops])
        rotations = np.round(affine[:, :3, :3]).astype(int)
        translations = to_grid(affine[:, :3, 3]) % GRID
        keys = {operation_key(r, t) for r, t in zip(rotations, translations)}
        expected = {operation_key(r, t) for r, t in zip(*database_operations(hall))}
        assert keys == expected, (number, "PyXtal and spglib differ")
        assert (rotations[0] == np.eye(3)).all()
        assert not translations[0].any()
        centring = translations[(rotations == np.eye(3, dtype=int)).all(axis=(1, 2))]
        symbols.append(types[hall - 1].international_short)
        table["hall_number"][number] = hall
        table["default_hall_number"][number] = next(
            t.hall_number for t in types if t.number == number
        )
        table["default_origin"][number] = origin_shift(
            number, hall, rotations, translations
        )
        table["centring"][number] = len(centring)
        table["primitive"][number] = PRIMITIVE[symbols[-1][0]]
        polar = polar_axes(np.unique(rotations, axis=0))
        table["polar"][number] = polar
        table["system"][number] = np.searchsorted(SYSTEM_STARTS, number, "right") - 1
        for w, position in enumerate(positions):
            assert position.letter == LETTERS[w]
            matrix = position.ops[0].affine_matrix
            free, embed, offset = free_coordinates(
                np.round(matrix[:3, :3]).astype(int), to_grid(matrix[:3, 3])
            )
            orbit = primitive_orbit(
                embed, offset, rotations, translations, centring, rng
            )
            assert len(orbit) == len(position.ops) == position.multiplicity
            assert orbit[0] == 0
            table["multiplicity"][number, w] = len(orbit)
            table["dof"][number, w] = free.sum()
            table["free"][number, w] = free
            table["embed"][number, w] = embed
            table["offset"][number, w] = offset
            table["orbit_start"][number, w] = len(flat["orbit"])
            flat["orbit"].extend(orbit)
        norm_r, norm_t = normaliser(number, rotations, translations, polar)
        assert (norm_r[0] == np.eye(3)).all()
        assert not norm_t[0].any()
        letters = map_letters(
            norm_r,
            norm_t,
            rotations,
            translations,
            table["multiplicity"][number],
            table["dof"][number],
            table["embed"][number].astype(int),
            table["offset"][number].astype(int),
            rng,
        )
        assert (letters[0, : len(positions)] == np.arange(len(positions))).all()
        flat["rotations"].extend(rotations)
        flat["translations"].extend(translations)
        flat["normalizer_rotations"].extend(norm_r)
        flat["normalizer_translations"].extend(norm_t)
        flat["normalizer_letters"].extend(letters)
        table["operation_start"][number + 1] = len(flat["rotations"])
        table["normalizer_start"][number + 1] = len(flat["normalizer_rotations"])
        print(number, symbols[-1], len(rotations), "operations", len(norm_r), "cosets")
    for name, values in flat.items():
        table[name] = np.array(values, np.uint8 if name == "orbit" else np.int8)
    table["symbol"] = np.array(symbols)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(__file__).parents[1] / "crystalvae" / "symmetry" / "tables.npz"
    parser.add_argument("--out", type=Path, default=default, help="%(default)s")
    out = parser.parse_args().out
    np.savez_compressed(out, **build())
    print(f"{out}: {out.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
