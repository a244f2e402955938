"""Packed data sets: flat, memory-mapped arrays, one gather away from a batch."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from itertools import chain, pairwise
from pathlib import Path

import numpy as np

from crystalvae.crystal import AsymmetricUnit
from crystalvae.errors import DataError
from crystalvae.graph import NUM_NEIGHBORS, orbit_graph

PARTIAL = ".partial"
"""Ends the names of data sets that are being written."""
FORMAT_VERSION = 1
MANIFEST = "dataset.json"

CRYSTAL_ARRAYS = {
    "number": np.int16,
    "lattice_coords": np.float32,
    "num_sites": np.int32,
    "num_atoms": np.int32,
    "num_primitive_atoms": np.int32,
}
SITE_ARRAYS = {
    "wyckoff": np.int8,
    "atomic_number": np.int16,
    "frac_coords": np.float32,
    "multiplicity": np.int16,
    "neighbor": np.int16,
    "distance": np.float32,
    "direction": np.float32,
}
COMP_ARRAYS = {"comp_element": np.int16, "comp_count": np.int32}
OFFSETS = ("site_offset", "comp_offset")


def log_cholesky(lattice: np.ndarray) -> np.ndarray:
    """Log-Cholesky coordinates of lower-triangular lattices ``(..., 3, 3)``, NumPy.

    See :mod:`crystalvae.geometry.lattice`.
    """
    diagonal = np.diagonal(lattice, axis1=-2, axis2=-1)
    ratios = np.stack(
        [
            lattice[..., 1, 0] / lattice[..., 1, 1],
            lattice[..., 2, 0] / lattice[..., 2, 2],
            lattice[..., 2, 1] / lattice[..., 2, 2],
        ],
        -1,
    )
    return np.concatenate([np.log(diagonal), ratios], -1)


def cholesky_from_coords(coords: np.ndarray) -> np.ndarray:
    """Inverse of :func:`log_cholesky` for ``(6,)``; gives ``(3, 3)``."""
    x, y, z = np.exp(coords[:3])
    p, q, r = coords[3:]
    return np.array([[x, 0, 0], [p * y, y, 0], [q * z, r * z, z]], dtype=float)


def pack(
    crystals: Sequence[AsymmetricUnit], graphs: Sequence[tuple] | None = None
) -> dict[str, np.ndarray]:
    """Arrays of a data set from crystals.

    Args:
        crystals: asymmetric units.
        graphs: their :func:`crystalvae.graph.orbit_graph`; built if None.

    Returns:
        Every array of the packed format, by name.
    """
    graphs = [orbit_graph(c) for c in crystals] if graphs is None else graphs
    compositions = [list(c.composition.items()) for c in crystals]

    def flat(parts: list, name: str, empty: tuple = (0,)) -> np.ndarray:
        dtype = {**SITE_ARRAYS, **COMP_ARRAYS}[name]
        return np.concatenate(parts).astype(dtype) if parts else np.zeros(empty, dtype)

    def offset(sizes: list[int]) -> np.ndarray:
        return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)

    k = NUM_NEIGHBORS
    lattices = np.array([c.lattice for c in crystals]).reshape(-1, 3, 3)
    return {
        "number": np.array([c.number for c in crystals], np.int16),
        "lattice_coords": log_cholesky(lattices).astype(np.float32),
        "num_sites": np.array([len(c.wyckoffs) for c in crystals], np.int32),
        "num_atoms": np.array([c.num_atoms for c in crystals], np.int32),
        "num_primitive_atoms": np.array(
            [c.num_primitive_atoms for c in crystals], np.int32
        ),
        "site_offset": offset([len(c.wyckoffs) for c in crystals]),
        "comp_offset": offset([len(c) for c in compositions]),
        "wyckoff": flat([c.wyckoffs for c in crystals], "wyckoff"),
        "atomic_number": flat([c.atomic_numbers for c in crystals], "atomic_number"),
        "frac_coords": flat([c.frac_coords for c in crystals], "frac_coords", (0, 3)),
        "multiplicity": flat([c.multiplicities for c in crystals], "multiplicity"),
        "neighbor": flat([g[0] for g in graphs], "neighbor", (0, k)),
        "distance": flat([g[1] for g in graphs], "distance", (0, k)),
        "direction": flat([g[2] for g in graphs], "direction", (0, k, 3)),
        "comp_element": np.array([z for c in compositions for z, _ in c], np.int16),
        "comp_count": np.array([n for c in compositions for _, n in c], np.int32),
    }


def join(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Concatenate arrays of :func:`pack`, shifting the offsets."""
    joined = {}
    for name in parts[0]:
        if name in OFFSETS:
            sizes = np.concatenate([np.diff(part[name]) for part in parts])
            joined[name] = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        else:
            joined[name] = np.concatenate([part[name] for part in parts])
    return joined


def save_columns(path: Path, columns: dict[str, np.ndarray]) -> None:
    """``np.savez`` for names of any kind, also those of its own arguments."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, values in columns.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, values)


def one_line(text: str) -> str:
    """A text without line breaks of any kind."""
    return " ".join(text.splitlines())


def write_packed(
    path: Path,
    arrays: dict[str, np.ndarray],
    material_ids: Sequence[str],
    properties: dict[str, np.ndarray],
    info: dict | None = None,
) -> None:
    """Write a packed data set; the directory appears whole or not at all.

    Args:
        path: directory to make; replaced if it exists.
        arrays: of :func:`pack`.
        material_ids: one a crystal.
        properties: float columns, NaN where absent.
        info: more for ``dataset.json``.

    Raises:
        DataError: it cannot be written, for want of space for example.
    """
    partial = path.with_name(path.name + PARTIAL)
    shutil.rmtree(partial, ignore_errors=True)
    try:
        _write_parts(partial, arrays, material_ids, properties, info)
        if path.exists():
            shutil.rmtree(path)
        partial.replace(path)
    except OSError as error:
        raise DataError(
            f"cannot write {path} ({error}); free some disk space"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_parts(
    partial: Path,
    arrays: dict[str, np.ndarray],
    material_ids: Sequence[str],
    properties: dict[str, np.ndarray],
    info: dict | None,
) -> None:
    partial.mkdir(parents=True)
    for name, value in arrays.items():
        np.save(partial / f"{name}.npy", value)
    save_columns(partial / "properties.npz", properties)
    ids = "\n".join(map(one_line, material_ids))
    (partial / "material_ids.txt").write_text(ids, encoding="utf-8")
    manifest = {
        "format_version": FORMAT_VERSION,
        "num_crystals": len(material_ids),
        "num_sites": int(arrays["site_offset"][-1]),
        "properties": sorted(properties),
        **(info or {}),
    }
    (partial / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")


def require_free(path: Path, maker: str = "prepare") -> None:
    """Refuse an output that would cost something else.

    Args:
        path: of a packed data set to make.
        maker: ``made_by`` in the manifests of those that may be replaced; those of
            ``prepare`` have none.

    Raises:
        DataError: it is a file, or another kind of folder or data set.
    """
    if path.exists() and not path.is_dir():
        raise DataError(f"{path} is a file; choose another name")
    if not path.is_dir() or not any(path.iterdir()):
        return
    try:
        info = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        made = info.get("made_by", "prepare")
    except (OSError, ValueError, AttributeError):
        made = None
    if made != maker:
        raise DataError(
            f"{path} exists and is no data set made by {maker}; choose another name"
        )


def require_place(path: Path, maker: str) -> None:
    """As :func:`require_free`, and make the directory where it is not there.

    Raises:
        DataError: it cannot be made, too.
    """
    require_free(path, maker)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot make {path} ({error})") from error


class PackedDataset:
    """A packed data set on disk; arrays are memory-mapped attributes.

    Per crystal: ``number``, ``lattice_coords`` ``(M, 6)``, ``num_sites``,
    ``num_atoms`` (conventional cell), ``num_primitive_atoms``, ``site_offset`` and
    ``comp_offset`` ``(M + 1,)``. Per site: ``wyckoff``, ``atomic_number``,
    ``frac_coords``, ``multiplicity`` and the orbit graph ``neighbor``, ``distance``
    (Å), ``direction``. Per element of a composition: ``comp_element`` and
    ``comp_count`` (primitive cell).

    Args:
        path: directory made by ``crystalvae prepare``.

    Raises:
        DataError: missing, truncated or of another format.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        try:
            text = (self.path / MANIFEST).read_text(encoding="utf-8")
            self.info = json.loads(text)
            version = int(self.info["format_version"])
        except (OSError, ValueError, KeyError) as error:
            raise DataError(
                f"{self.path} is no packed data set ({error}); make one with "
                "`crystalvae prepare INPUT -o DATASET`"
            ) from error
        if version != FORMAT_VERSION:
            raise DataError(
                f"{self.path} has format {version}, not {FORMAT_VERSION}; prepare it "
                "again with this version"
            )
        names = [*CRYSTAL_ARRAYS, *SITE_ARRAYS, *COMP_ARRAYS, *OFFSETS]
        try:
            for name in names:
                array = np.load(self.path / f"{name}.npy", mmap_mode="r")
                setattr(self, name, array)
            with np.load(self.path / "properties.npz") as columns:
                self.properties = {name: columns[name] for name in columns.files}
            ids = (self.path / "material_ids.txt").read_text(encoding="utf-8")
        except (OSError, ValueError, EOFError) as error:
            raise DataError(
                f"{self.path} is truncated ({error}); prepare it again"
            ) from error
        self.material_ids = ids.split("\n") if ids else []
        expected = self.info["num_crystals"]
        ends = (len(self.site_offset) - 1, len(self.number), len(self.material_ids))
        if any(end != expected for end in ends):
            raise DataError(f"{self.path} is inconsistent; prepare it again")

    def __len__(self) -> int:
        return len(self.number)

    def arrays(self) -> dict[str, np.ndarray]:
        """Its arrays by name, as :func:`pack` makes them."""
        names = [*CRYSTAL_ARRAYS, *SITE_ARRAYS, *COMP_ARRAYS, *OFFSETS]
        return {name: getattr(self, name) for name in names}

    def __getitem__(self, index: int) -> AsymmetricUnit:
        """The crystal at ``index``."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"{index} is out of range for {len(self)} crystals")
        index = index % len(self)
        rows = slice(self.site_offset[index], self.site_offset[index + 1])
        return AsymmetricUnit(
            number=int(self.number[index]),
            lattice=cholesky_from_coords(self.lattice_coords[index].astype(float)),
            wyckoffs=self.wyckoff[rows].astype(np.int64),
            atomic_numbers=self.atomic_number[rows].astype(np.int64),
            frac_coords=self.frac_coords[rows].astype(float),
        )


def material_id(
    known: PackedDataset | Sequence[AsymmetricUnit], row: int
) -> str | None:
    """Identifier of a crystal in a data set; None in other sequences."""
    ids = getattr(known, "material_ids", None)
    return ids[row] if ids else None


def compositions_of(
    crystals: PackedDataset | Sequence[AsymmetricUnit],
) -> Iterator[dict[int, int]]:
    """Atomic number → count in the primitive cell of each crystal.

    Of a packed data set no crystal is unpacked.
    """
    parts = getattr(crystals, "parts", None)
    if parts is not None:
        yield from chain.from_iterable(map(compositions_of, parts))
        return
    if not isinstance(crystals, PackedDataset):
        yield from (crystal.composition for crystal in crystals)
        return
    yield from unflatten(
        crystals.comp_element.tolist(),
        crystals.comp_count.tolist(),
        crystals.comp_offset.tolist(),
    )


def unflatten(
    elements: list[int], counts: list[int], offsets: list[int]
) -> Iterator[dict[int, int]]:
    """Compositions of M crystals from flat lists and their ``M + 1`` offsets."""
    for start, end in pairwise(offsets):
        yield dict(zip(elements[start:end], counts[start:end]))
