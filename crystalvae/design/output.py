"""Results as files that people can open: CIF, extxyz, CSV, JSON."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crystalvae.data.readers.base import is_number
from crystalvae.errors import DataError, InvalidStructureError
from crystalvae.files import replacing

if TYPE_CHECKING:
    from ase import Atoms

    from crystalvae.crystal import AsymmetricUnit

logger = logging.getLogger(__name__)

MAX_NAME = 200
"""Bytes of a file name without suffix; most file systems end at 255."""


def require_empty(path: Path) -> None:
    """Refuse a directory that holds files, before work that its output is for.

    Raises:
        DataError: it does.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise DataError(f"{path} is not empty; choose a new directory with -o")


def open_directory(path: Path) -> Path:
    """Make an output directory, or take an empty one.

    Raises:
        DataError: it holds files, or cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        require_empty(path)
    except OSError as error:
        raise DataError(f"cannot use {path} as output directory ({error})") from error
    return path


def resume_directory(path: Path, work: str) -> Path:
    """Make an output directory, or take an empty or an interrupted one.

    Args:
        path: the directory.
        work: name of the entry that marks an interrupted run.

    Raises:
        DataError: it holds other files, or cannot be made.
    """
    return path if (path / work).is_dir() else open_directory(path)


def clear_results(directory: Path) -> None:
    """Remove what an earlier attempt wrote of a screening, and nothing else.

    Raises:
        DataError: something cannot be removed.
    """
    written = [
        *(directory / name for name in ("table.csv", "summary.json", "report.html")),
        *directory.glob("*.extxyz"),
        *directory.glob("[0-9]*-*.cif"),
        *(directory / "relaxed").glob("[0-9]*-*.cif"),
    ]
    try:
        for path in written:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"cannot clear {directory} ({error})") from error


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all.

    Raises:
        DataError: the disk is full or the place is not writable.
    """
    try:
        with replacing(path) as partial:
            partial.write_text(text, encoding="utf-8")
    except OSError as error:
        raise DataError(
            f"cannot write {path} ({error}); free some disk space"
        ) from error


def formula_name(crystal: AsymmetricUnit) -> str:
    """The formula, without the brackets that a shell would see."""
    return crystal.formula.replace("(", "-").replace(")", "-")


def unused_name(material_id: str, used: set[str]) -> str:
    """A file name for a material, added to those that are used."""
    name = "".join("_" if c in "/\\" or not c.isprintable() else c for c in material_id)
    while len(name.encode()) > MAX_NAME:
        name = name[:-1]
    name = name or "unnamed"
    while name in used:
        name += "_"
    used.add(name)
    return name


def write_crystals(
    directory: Path,
    crystals: Sequence[AsymmetricUnit],
    names: Sequence[str],
    rows: Sequence[dict[str, Any]],
    summary: dict[str, Any],
) -> None:
    """Write one CIF a crystal, ``crystals.extxyz``, ``table.csv``, ``summary.json``.

    The frames of ``crystals.extxyz`` carry the numbers of the table, so that what reads
    them (``crystalvae screen --rank-by``) can go on with these.

    Args:
        directory: an empty directory.
        crystals: what to write.
        names: their file names without suffix.
        rows: one row of the table a crystal.
        summary: anything JSON can hold.
    """
    frames = []
    for crystal, name, row in zip(crystals, names, rows):
        write_text(directory / f"{name}.cif", crystal.to_cif(name=name))
        atoms = crystal.to_atoms()
        atoms.info = {"material_id": name, "space_group": crystal.number}
        atoms.info |= {key: value for key, value in row.items() if is_number(value)}
        frames.append(atoms)
    write_frames(directory / "crystals.extxyz", frames)
    write_table(directory / "table.csv", rows)
    write_text(directory / "summary.json", json.dumps(summary, indent=1) + "\n")


def write_cifs(directory: Path, frames: Sequence[Atoms], names: Sequence[str]) -> None:
    """Write symmetrised CIFs of those frames whose ``material_id`` is among some names.

    One whose symmetry cannot be described is left out, with a warning.

    Args:
        directory: made if need be.
        frames: crystals with ``material_id`` in ``info``.
        names: file names without suffix.
    """
    from crystalvae.crystal import AsymmetricUnit

    wanted = set(names)
    for frame in frames:
        name = frame.info["material_id"]
        if name not in wanted:
            continue
        try:
            text = AsymmetricUnit.from_atoms(frame).to_cif(name=name)
        except InvalidStructureError as error:
            logger.warning(f"{name}: no CIF of the relaxed crystal ({error})")
            continue
        directory.mkdir(exist_ok=True)
        write_text(directory / f"{name}.cif", text)


def write_frames(path: Path, frames: Sequence[Atoms]) -> None:
    """Write ASE ``Atoms`` as extxyz, their ``info`` included."""
    import io

    from ase.io.extxyz import write_extxyz

    buffer = io.StringIO()
    if frames:
        write_extxyz(buffer, frames)
    write_text(path, buffer.getvalue())


def write_table(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows as CSV; the columns are the union of their keys, in order."""
    import io

    names = list(dict.fromkeys(key for row in rows for key in row))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, buffer.getvalue())


def describe(crystal: AsymmetricUnit) -> dict[str, Any]:
    """Columns that every table starts with: what it is, and its conventional cell."""
    from ase.geometry import cell_to_cellpar

    cell = [round(float(value), 4) for value in cell_to_cellpar(crystal.lattice)]
    return {
        "formula": crystal.formula,
        "space_group": crystal.number,
        "symbol": crystal.symbol,
        "num_sites": len(crystal.wyckoffs),
        "num_primitive_atoms": crystal.num_primitive_atoms,
        "volume_per_atom": round(crystal.volume / crystal.num_atoms, 4),
        "mass_density": round(crystal.density, 4),
        **dict(zip(("a", "b", "c", "alpha", "beta", "gamma"), cell)),
    }
