"""Coverage: is every reference crystal near a generated one, and the reverse?

COV-R and COV-P of T. Xie et al., CDVAE, ICLR 2022, appendix B: crystals are near where
both their mean CrystalNN fingerprint and their standardised Magpie features are. Two
things differ from the authors' code, neither in the definition of a fingerprint: only
one atom of each orbit is looked at (symmetry makes the others equal), and the Magpie
features are standardised by :mod:`crystalvae.benchmark.magpie`, whose spreads are those
of MP-20's training set and not exactly their stored constants.
"""

from __future__ import annotations

import hashlib
import warnings
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.spatial.distance import cdist

from crystalvae.benchmark.magpie import MEANS, SPREADS
from crystalvae.errors import ConfigError
from crystalvae.files import replacing
from crystalvae.parallel import process_map

if TYPE_CHECKING:
    from crystalvae.crystal import AsymmetricUnit

CUTOFFS = {"mp_20": (0.4, 10.0), "perov_5": (0.2, 4.0), "carbon_24": (0.2, 4.0)}
"""Benchmark → largest distance of structures and of compositions."""
NUM_STRUCTURE, NUM_COMPOSITION = 61, 132
NOTHING = np.full(NUM_STRUCTURE + NUM_COMPOSITION, np.nan)
"""Of a crystal without a fingerprint."""
CHUNK = 16
ROWS = 1000
"""Crystals whose distances to all others are held at once."""
SAVE_EVERY = 32
"""Chunks between two savings of the cache."""


@cache
def require_featurizers() -> tuple[Any, Any]:
    """CrystalNN's fingerprint and Magpie's features.

    Raises:
        ConfigError: matminer is not installed.
    """
    try:
        from matminer.featurizers.composition.composite import ElementProperty
        from matminer.featurizers.site.fingerprint import CrystalNNFingerprint
    except ImportError as error:
        raise ConfigError(
            "coverage needs matminer; install crystalvae[benchmark]"
        ) from error
    return (
        CrystalNNFingerprint.from_preset("ops"),
        ElementProperty.from_preset("magpie"),
    )


def crystal_fingerprints(
    crystal: AsymmetricUnit,
) -> tuple[np.ndarray, np.ndarray] | None:
    """Mean CrystalNN fingerprint over atoms and Magpie features of the composition.

    Args:
        crystal: the crystal.

    Returns:
        ``(61,)`` and ``(132,)``, or None where CrystalNN fails.

    Raises:
        ConfigError: matminer is not installed.
    """
    site_featurizer, composition_featurizer = require_featurizers()
    structure = crystal.to_structure()
    _, _, _, site = crystal.expand_primitive()
    _, first, size = np.unique(site, return_index=True, return_counts=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        composition = np.array(composition_featurizer.featurize(structure.composition))
        try:
            rows = [site_featurizer.featurize(structure, int(i)) for i in first]
        except Exception:
            return None
    return np.average(rows, axis=0, weights=size), composition


def _chunk(crystals: Sequence[AsymmetricUnit]) -> list:
    return [crystal_fingerprints(crystal) for crystal in crystals]


def _key(crystal: AsymmetricUnit) -> str:
    parts = (
        np.int64(crystal.number),
        np.asarray(crystal.wyckoffs, np.int64),
        np.asarray(crystal.atomic_numbers, np.int64),
        np.asarray(crystal.lattice, np.float64),
        np.asarray(crystal.frac_coords, np.float64),
    )
    return hashlib.sha1(b"".join(part.tobytes() for part in parts)).hexdigest()


class _Kept:
    """Fingerprints by the content of the crystal; a file keeps them if there is one."""

    def __init__(self, path: Path | None):
        self.path = path
        self.rows: dict[str, np.ndarray] = {}
        try:
            if path is not None and path.exists():
                with np.load(path) as kept:
                    self.rows = dict(zip(kept["key"].tolist(), kept["row"]))
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):
            self.rows = {}

    def save(self) -> None:
        if self.path is None or not self.rows:
            return
        key, row = list(self.rows), np.stack(list(self.rows.values()))
        with suppress(OSError), replacing(self.path, shared=True) as partial:
            np.savez(partial, key=np.array(key), row=row)


def fingerprints(
    crystals: Sequence[AsymmetricUnit],
    *,
    num_workers: int | None = None,
    cached: Path | None = None,
    advance: Callable[[int], object] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Fingerprints of those crystals that have one, in parallel.

    Args:
        crystals: N crystals.
        num_workers: processes; None is one a core, 1 is this process.
        cached: ``.npz`` file that keeps them, also after an interruption. A crystal is
            found in it by its content, so sets may share a file.
        advance: called with the number of crystals done.

    Returns:
        ``(M, 61)`` and ``(M, 132)`` with M ≤ N.
    """
    kept = _Kept(cached)
    keys = [_key(crystal) for crystal in crystals]
    missing = {key: i for i, key in enumerate(keys) if key not in kept.rows}
    places = list(missing.values())
    advance = advance or (lambda number: None)
    advance(len(keys) - len(places))
    tasks = [places[i : i + CHUNK] for i in range(0, len(places), CHUNK)]
    work = ([crystals[i] for i in task] for task in tasks)
    try:
        with process_map(num_workers, len(tasks) > 1) as each:
            for number, (task, found) in enumerate(zip(tasks, each(_chunk, work)), 1):
                for place, pair in zip(task, found):
                    row = NOTHING if pair is None else np.concatenate(pair)
                    kept.rows[keys[place]] = row
                advance(len(task))
                if number % SAVE_EVERY == 0:
                    kept.save()
    finally:
        if places:
            kept.save()
    rows = np.array([kept.rows[key] for key in keys]).reshape(len(keys), len(NOTHING))
    rows = rows[~np.isnan(rows[:, :NUM_STRUCTURE]).any(1)]
    return rows[:, :NUM_STRUCTURE], rows[:, NUM_STRUCTURE:]


def coverage(
    generated: tuple[np.ndarray, np.ndarray],
    reference: tuple[np.ndarray, np.ndarray],
    cutoffs: tuple[float, float],
    num_generated: int,
    scale: tuple[np.ndarray, np.ndarray] | None = None,
) -> dict[str, float]:
    """Recall and precision from fingerprints.

    Args:
        generated: of :func:`fingerprints`.
        reference: likewise.
        cutoffs: of structures and compositions.
        num_generated: all draws; those without fingerprints count against precision.
        scale: mean and spread of each feature of a composition; None is
            :mod:`crystalvae.benchmark.magpie`.

    Returns:
        ``cov_recall``, ``cov_precision``, and the mean distances ``amsd_recall``,
        ``amsd_precision`` (structures), ``amcd_recall``, ``amcd_precision``
        (compositions).
    """
    if not len(generated[0]):
        return {"cov_recall": 0.0, "cov_precision": 0.0}
    mean, spread = (MEANS, SPREADS) if scale is None else scale

    def scaled(features: np.ndarray) -> np.ndarray:
        return np.nan_to_num((features - np.array(mean)) / np.array(spread), nan=0.0)

    structure = nearest_distances(generated[0], reference[0])
    composition = nearest_distances(scaled(generated[1]), scaled(reference[1]))
    near = [
        (of_structure <= cutoffs[0]) & (of_composition <= cutoffs[1])
        for of_structure, of_composition in zip(structure, composition)
    ]
    return {
        "cov_recall": float(near[0].mean()),
        "cov_precision": float(near[1].sum() / num_generated),
        "amsd_recall": float(structure[0].mean()),
        "amsd_precision": float(structure[1].mean()),
        "amcd_recall": float(composition[0].mean()),
        "amcd_precision": float(composition[1].mean()),
    }


def nearest_distances(
    generated: np.ndarray, reference: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """How far each reference row ``(R, F)`` is from the nearest of ``(G, F)``.

    Returns:
        Distances of these, ``(R,)``, and of the generated rows from the nearest
        reference, ``(G,)``. No more than :data:`ROWS` times R are held at once.
    """
    recall, precision = np.full(len(reference), np.inf), []
    for start in range(0, len(generated), ROWS):
        distance = cdist(generated[start : start + ROWS], reference)
        recall = np.minimum(recall, distance.min(0))
        precision.append(distance.min(1))
    return recall, np.concatenate(precision)
