"""Shards of a data set in the making, and their merger with flat memory."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from crystalvae.data.packed import (
    COMP_ARRAYS,
    CRYSTAL_ARRAYS,
    FORMAT_VERSION,
    MANIFEST,
    SITE_ARRAYS,
    one_line,
    pack,
    save_columns,
)
from crystalvae.files import replacing


def write_shard(
    path: Path,
    crystals: Sequence,
    graphs: Sequence,
    kept: Sequence[tuple[str, dict[str, float]]],
    refused: Sequence[tuple[str, str, str]],
    total: int,
) -> None:
    """Write what became of one chunk, atomically.

    Args:
        path: the shard.
        crystals: converted crystals.
        graphs: their orbit graphs.
        kept: their ids and properties.
        refused: (id, source, reason) of the others.
        total: entries in the chunk.
    """
    meta = {"kept": list(kept), "refused": list(refused), "total": total}
    arrays = pack(crystals, graphs) if crystals else {}
    with replacing(path) as partial:
        np.savez(partial, meta=np.array(json.dumps(meta)), **arrays)


def read_shard(
    path: Path, arrays: bool = False
) -> tuple[dict[str, np.ndarray], list[str], list[dict], list[tuple], int]:
    """Arrays (if asked for), ids, properties, refusals and total of a shard."""
    with np.load(path) as data:
        meta = json.loads(str(data["meta"]))
        content = {n: data[n] for n in data.files if n != "meta"} if arrays else {}
    ids = [name for name, _ in meta["kept"]]
    numbers = [values for _, values in meta["kept"]]
    return content, ids, numbers, [tuple(r) for r in meta["refused"]], meta["total"]


def merge_shards(paths: Sequence[Path], output: Path, info: dict) -> Path:
    """Put shards together, one at a time in memory.

    Args:
        paths: shards in order.
        output: directory of the data set.
        info: more for the manifest.

    Returns:
        The finished directory under a temporary name beside ``output``.
    """
    partial = output.with_name(output.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    sizes, names = [], set()
    for path in paths:
        content, ids, numbers, _, _ = read_shard(path, arrays=True)
        names.update(name for values in numbers for name in values)
        if ids:
            ends = (content["site_offset"][-1], content["comp_offset"][-1])
            sizes.append((len(ids), *map(int, ends)))
    crystals, sites, comps = (sum(size[i] for size in sizes) for i in range(3))
    widths = {"lattice_coords": (6,), "frac_coords": (3,)}
    files: dict[str, np.ndarray] = {}

    def create(name: str, rows: int, dtype: type, width: tuple[int, ...]) -> None:
        files[name] = np.lib.format.open_memmap(
            partial / f"{name}.npy", mode="w+", dtype=dtype, shape=(rows, *width)
        )

    first = next(
        content
        for content, ids, *_ in (read_shard(path, arrays=True) for path in paths)
        if ids
    )
    for kinds, rows in (
        (CRYSTAL_ARRAYS, crystals),
        (SITE_ARRAYS, sites),
        (COMP_ARRAYS, comps),
    ):
        for name, dtype in kinds.items():
            create(name, rows, dtype, widths.get(name, first[name].shape[1:]))
    for name in ("site_offset", "comp_offset"):
        create(name, crystals + 1, np.int64, ())
        files[name][0] = 0
    columns = {name: np.full(crystals, np.nan) for name in sorted(names)}
    row = site = comp = 0
    with (partial / "material_ids.txt").open("w", encoding="utf-8") as id_file:
        for path in paths:
            content, ids, numbers, _, _ = read_shard(path, arrays=True)
            if not ids:
                continue
            spans = (
                (CRYSTAL_ARRAYS, row, len(ids)),
                (SITE_ARRAYS, site, int(content["site_offset"][-1])),
                (COMP_ARRAYS, comp, int(content["comp_offset"][-1])),
            )
            for kinds, start, count in spans:
                for name in kinds:
                    files[name][start : start + count] = content[name]
            rows = slice(row + 1, row + 1 + len(ids))
            files["site_offset"][rows] = content["site_offset"][1:] + site
            files["comp_offset"][rows] = content["comp_offset"][1:] + comp
            for index, values in enumerate(numbers):
                for name, value in values.items():
                    columns[name][row + index] = value
            id_file.write(("\n" if row else "") + "\n".join(map(one_line, ids)))
            row, site, comp = row + len(ids), site + spans[1][2], comp + spans[2][2]
    for array in files.values():
        array.flush()
    save_columns(partial / "properties.npz", columns)
    manifest = {
        "format_version": FORMAT_VERSION,
        "num_crystals": crystals,
        "num_sites": sites,
        "properties": sorted(names),
        **info,
    }
    (partial / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    return partial
