"""Shards of a data set in the making, and their merger with flat memory."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from crystalvae.data.packed import (
    COMP_ARRAYS,
    CRYSTAL_ARRAYS,
    FORMAT_VERSION,
    MANIFEST,
    OFFSETS,
    PARTIAL,
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
    partial = output.with_name(output.name + PARTIAL)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    sizes, names, dtypes = [], set(), {}
    for path in paths:
        content, ids, numbers, _, _ = read_shard(path, arrays=True)
        names.update(name for values in numbers for name in values)
        if ids:
            ends = (content["site_offset"][-1], content["comp_offset"][-1])
            sizes.append((len(ids), *map(int, ends)))
            dtypes = {n: (v.dtype, v.shape[1:]) for n, v in content.items()}
    crystals, sites, comps = (sum(size[i] for size in sizes) for i in range(3))
    columns = {name: np.full(crystals, np.nan) for name in sorted(names)}
    rows = (
        dict.fromkeys(CRYSTAL_ARRAYS, crystals)
        | dict.fromkeys(SITE_ARRAYS, sites)
        | dict.fromkeys(COMP_ARRAYS, comps)
        | dict.fromkeys(OFFSETS, crystals + 1)
    )
    with ExitStack() as stack:
        files = {}
        for name, count in rows.items():
            file = stack.enter_context((partial / f"{name}.npy").open("wb"))
            dtype, width = dtypes[name]
            np.lib.format.write_array_header_1_0(
                file,
                {
                    "descr": np.lib.format.dtype_to_descr(dtype),
                    "fortran_order": False,
                    "shape": (count, *width),
                },
            )
            if name in OFFSETS:
                file.write(np.zeros(1, dtype).tobytes())
            files[name] = file
        id_file = stack.enter_context(
            (partial / "material_ids.txt").open("w", encoding="utf-8")
        )
        start = dict.fromkeys(OFFSETS, 0)
        row = 0
        for path in paths:
            content, ids, numbers, _, _ = read_shard(path, arrays=True)
            if not ids:
                continue
            for name, file in files.items():
                values = content[name]
                if name in OFFSETS:
                    values = values[1:] + start[name]
                    start[name] = int(values[-1])
                file.write(np.ascontiguousarray(values, dtypes[name][0]).tobytes())
            for index, values in enumerate(numbers):
                for name, value in values.items():
                    columns[name][row + index] = value
            id_file.write(("\n" if row else "") + "\n".join(map(one_line, ids)))
            row += len(ids)
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
