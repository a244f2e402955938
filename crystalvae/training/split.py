"""Hold crystals out of a data set, to validate with."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np

from crystalvae.data.packed import PackedDataset, compositions_of, pack, write_packed
from crystalvae.errors import ConfigError, DataError
from crystalvae.screening.uniqueness import Formula, formula_key

REPORTS = ("report.json", "refused.csv")
"""Files of :func:`crystalvae.data.prepare.prepare` that stay where they are."""
INFO = ("source", "options")
"""What it says in the manifest."""


def hold_out(
    compositions: Iterable[Mapping[int, int]], share: float, seed: int
) -> np.ndarray:
    """Choose crystals that validate, with all others of their formulas.

    What is tested on polymorphs of what it was trained on looks too good. Where the
    formulas are too few for that, crystals are chosen one by one.

    Args:
        compositions: atomic number → count, of N crystals.
        share: of them, about.
        seed: any integer.

    Returns:
        Which they are ``(N,)``.
    """
    formulas: dict[Formula, list[int]] = defaultdict(list)
    for row, composition in enumerate(compositions):
        formulas[formula_key(composition)].append(row)
    rng, groups = np.random.default_rng(seed), list(formulas.values())
    size = sum(map(len, groups))
    wanted, held = max(1, round(share * size)), np.zeros(size, bool)
    wanted = min(wanted, size - 1)
    for number in rng.permutation(len(groups)):
        if held.sum() + len(groups[number]) <= wanted:
            held[groups[number]] = True
        if held.sum() == wanted:
            break
    if held.sum() < wanted / 2:
        held[rng.permutation(size)[:wanted]] = True
    return held


def held_out_path(path: Path) -> Path:
    """Where the crystals that are held out of a data set go."""
    return path.with_name(f"{path.name}_val")


def split(path: Path, share: float, seed: int = 0) -> tuple[int, int]:
    """Move crystals of a data set to one beside it, which ends with ``_val``.

    Args:
        path: the data set, which keeps the others.
        share: of the crystals, about, in whole formulas where these are enough.
        seed: any integer.

    Returns:
        Crystals that are left and that were moved.

    Raises:
        ConfigError: the share is not between 0 and 1.
        DataError: there are fewer than two crystals, or the disk refuses.
    """
    require_share(share)
    dataset = PackedDataset(path)
    if len(dataset) < 2:
        raise DataError(f"{path} has one crystal; nothing can be held out of it")
    held = hold_out(compositions_of(dataset), share, seed)
    crystals, ids = list(dataset), dataset.material_ids
    parts = [slice(*ends) for ends in pairwise(dataset.site_offset.tolist())]
    names = ("neighbor", "distance", "direction")
    graphs = [tuple(np.array(getattr(dataset, n)[p]) for n in names) for p in parts]
    properties = dataset.properties
    reports = [path / name for name in REPORTS if (path / name).exists()]
    texts = {file: file.read_bytes() for file in reports}
    info = {name: dataset.info[name] for name in INFO if name in dataset.info}
    del dataset
    for target, chosen in ((held_out_path(path), held), (path, ~held)):
        rows = np.flatnonzero(chosen)
        write_packed(
            target,
            pack([crystals[row] for row in rows], [graphs[row] for row in rows]),
            [ids[row] for row in rows],
            {name: values[rows] for name, values in properties.items()},
            info,
        )
    for file, text in texts.items():
        file.write_bytes(text)
    return int((~held).sum()), int(held.sum())


def require_share(share: float) -> None:
    """Refuse what is not between 0 and 1.

    Raises:
        ConfigError: it is not.
    """
    if not 0 < share < 1:
        raise ConfigError(f"a share to hold out lies between 0 and 1, not {share}")
