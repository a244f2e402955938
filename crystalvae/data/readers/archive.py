"""Folders, zip and tar archives of CIF and POSCAR files."""

from __future__ import annotations

import logging
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from crystalvae.data.readers.base import UNREADABLE, Entry, printable
from crystalvae.data.readers.cif import parse_cif_bytes
from crystalvae.data.readers.text import parse_poscar
from crystalvae.errors import DataError
from crystalvae.files import PREFIX

logger = logging.getLogger(__name__)

OTHERS = (".csv", ".csv.gz", ".db", ".json", ".json.gz", ".xyz", ".zip", ".tar.gz")
"""Ends of names of files that may hold structures and are not looked for in folders."""
OURS = ("summary.json", "table.csv", "report.json", "refused.csv", "metrics.json")
"""Files that stand beside structures that this package wrote."""


def is_poscar(name: str) -> bool:
    """Whether a file name is one of VASP's for structures."""
    upper = PurePosixPath(name).name.upper()
    return upper.startswith(("POSCAR", "CONTCAR")) or upper.endswith(
        (".VASP", ".POSCAR")
    )


def is_structure_file(name: str) -> bool:
    """Whether a file name is that of a CIF or POSCAR."""
    return name.lower().endswith(".cif") or is_poscar(name)


def parse_member(name: str, content: bytes, source: str) -> Entry:
    """One entry from a file's name and bytes."""
    stem = PurePosixPath(name).name
    if is_poscar(name) and not name.lower().endswith(".cif"):
        return parse_poscar(content, stem, source)
    return parse_cif_bytes(content, stem.removesuffix(".cif"), source)


def folder_files(path: Path, warn: bool = False) -> list[Path]:
    """CIF and POSCAR files of a folder, sorted, subfolders included.

    Files that an interrupted program was writing are left out.

    Args:
        path: the folder.
        warn: say which others there are that may hold structures.

    Raises:
        DataError: there are none.
    """
    files = [p for p in path.rglob("*") if not p.name.startswith(PREFIX)]
    found = sorted(p for p in files if is_structure_file(p.name))
    if not found:
        raise DataError(
            f"{path} holds no .cif or POSCAR file; name a folder that does, or a .csv "
            "with a cif column"
        )
    others = sorted(p.name for p in files if p.name.lower().endswith(OTHERS))
    others = [name for name in others if name not in OURS]
    if others and warn:
        shown = printable(", ".join(others[:3])) + (", ..." if len(others) > 3 else "")
        logger.warning(
            f"of {path} only CIF and POSCAR files are read, not {len(others)} others "
            f"({shown}); give these by themselves, tables of numbers as --properties"
        )
    return found


def read_folder(path: Path) -> Iterator[Entry]:
    """Entries of a folder's files."""
    for file in folder_files(path, warn=True):
        yield read_member_file(file)


def read_member_file(file: Path) -> Entry:
    """The entry of one file of a folder, whatever is wrong with it."""
    if file.is_dir():
        text = "it is a directory, not a file; rename it"
        return Entry(file.stem, str(file), error=text)
    try:
        content = file.read_bytes()
    except OSError as error:
        return Entry(file.stem, str(file), error=f"it cannot be read ({error})")
    return parse_member(file.name, content, str(file))


def read_zip(path: Path) -> Iterator[Entry]:
    """Entries of a zip archive.

    Raises:
        DataError: it is broken or holds no structure files.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = sorted(n for n in archive.namelist() if is_structure_file(n))
            if not names:
                raise DataError(f"{path} holds no .cif or POSCAR file")
            for name in names:
                source = f"{path}:{name}"
                try:
                    content = archive.read(name)
                except (*UNREADABLE, RuntimeError, zipfile.BadZipFile) as error:
                    yield Entry(name, source, error=f"it cannot be unpacked ({error})")
                    continue
                yield parse_member(name, content, source)
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{path} is no readable zip archive ({error})") from error


def read_tar(path: Path) -> Iterator[Entry]:
    """Entries of a tar archive, compressed or not.

    Raises:
        DataError: it is broken or holds no structure files.
    """
    count = 0
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                if not (member.isfile() and is_structure_file(member.name)):
                    continue
                count += 1
                file = archive.extractfile(member)
                content = file.read() if file else b""
                yield parse_member(member.name, content, f"{path}:{member.name}")
    except (*UNREADABLE, tarfile.TarError) as error:
        raise DataError(f"{path} is no readable tar archive ({error})") from error
    if not count:
        raise DataError(f"{path} holds no .cif or POSCAR file")
