"""CIF: gemmi first, for speed; pymatgen where gemmi is not sure."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from pathlib import Path

import gemmi
import numpy as np

from crystalvae.data.readers.base import _DISORDERED, NO_ELEMENT, Entry, checked

NO_SITES = "it lists no atom sites"
CELL = (
    *(f"_cell_length_{axis}" for axis in "abc"),
    *(f"_cell_angle_{name}" for name in ("alpha", "beta", "gamma")),
)
"""Without these gemmi takes a cube of 1 Å."""
OPERATIONS = (
    "_symmetry_equiv_pos_as_xyz",
    "_space_group_symop_operation_xyz",
    "_space_group_symop.operation_xyz",
)
NUMBERS = ("_symmetry_Int_Tables_number", "_space_group_IT_number")
ICSD = {"S": "1", "Z": "2", "H": "H", "R": "R"}
"""Letters with which the ICSD ends symbols, and gemmi's names of the settings."""


def parse_cif(
    text: str,
    material_id: str,
    source: str,
    properties: dict[str, float] | None = None,
) -> Entry:
    """One entry from the text of a CIF."""
    properties = properties or {}
    if not text.strip():
        return Entry(material_id, source, error="it is empty")
    try:
        document = gemmi.cif.read_string(text)
        holding = [b for b in document if b.find_loop("_atom_site_label")]
        if len(holding) > 1:
            error = f"it holds {len(holding)} structures; give each a file of its own"
            return Entry(material_id, source, error=error)
        block = holding[0] if holding else document.sole_block()
        small = gemmi.make_small_structure_from_block(block)
    except Exception as error:
        return _parse_slowly(
            text, material_id, source, properties, str(error), explained=True
        )
    if not len(small.sites):
        return _parse_slowly(text, material_id, source, properties, NO_SITES)
    for tag in CELL:
        value = gemmi.cif.as_string(block.find_value(tag) or "?")
        if not math.isfinite(gemmi.cif.as_number(value)):
            error = f"{tag} is missing or no number; add it to the file"
            return Entry(material_id, source, error=error)
    if min(small.cell.parameters) <= 0:
        error = "its cell has a length or an angle that is not positive"
        return Entry(material_id, source, error=error)
    if any(site.occ < 0.999 or site.disorder_group for site in small.sites):
        return Entry(material_id, source, error=_DISORDERED)
    if small.spacegroup is None:
        _take_icsd_setting(small)
    if small.spacegroup is None:
        symbol = small.spacegroup_hm.strip(" ?.")
        explained = any(block.find_loop(tag) for tag in OPERATIONS) or any(
            block.find_value(tag) for tag in NUMBERS
        )
        if symbol and not explained:
            error = f"its space group {symbol!r} is unknown and it lists no operations"
            return Entry(material_id, source, error=f"{error}; correct the symbol")
        return _parse_slowly(text, material_id, source, properties, "no space group")
    sites = small.get_all_unit_cell_sites()
    if any(site.element.name == "X" for site in sites):
        return Entry(material_id, source, error=NO_ELEMENT)
    lattice = np.array(small.cell.orth.mat.tolist()).T
    coords = np.array([site.fract.tolist() for site in sites])
    numbers = np.array([site.element.atomic_number for site in sites])
    entry = checked(material_id, source, lattice, coords, numbers, properties)
    if small.spacegroup.number > 1:
        entry.declared_group = small.spacegroup.number
    return entry


def _take_icsd_setting(small: gemmi.SmallStructure) -> None:
    """Understand symbols that end with the ICSD's letter for a setting."""
    name = small.spacegroup_hm.strip()
    symbol, letter = name[:-1].strip(), name[-1:]
    found = gemmi.find_spacegroup_by_name(f"{symbol}:{ICSD.get(letter, letter)}")
    if symbol and letter in ICSD and found is not None:
        small.spacegroup = found
        small.setup_cell_images()


def _parse_slowly(
    text: str,
    material_id: str,
    source: str,
    properties: dict,
    reason: str,
    explained: bool = False,
) -> Entry:
    from pymatgen.io.cif import CifParser

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            structures = CifParser.from_str(text).parse_structures(primitive=False)
    except Exception as error:
        cause = reason if explained or reason == NO_SITES else str(error or reason)
        first = cause.strip().splitlines()
        detail = first[0][:160] if first else type(error).__name__
        return Entry(
            material_id,
            source,
            error=f"it is no readable CIF ({detail}); export it again",
        )
    if not structures:
        error = f"it is no readable CIF ({reason}); export it again"
        return Entry(material_id, source, error=error)
    return Entry.from_structure(structures[0], material_id, source, properties)


def read_cif_file(path: Path) -> Iterator[Entry]:
    """The entry of one CIF file."""
    yield parse_cif_bytes(path.read_bytes(), path.stem, str(path))


def parse_cif_bytes(content: bytes, material_id: str, source: str) -> Entry:
    """As :func:`parse_cif` from bytes: UTF-8, or Latin-1 where that fails."""
    if b"\0" in content:
        error = "it is not text; save it as UTF-8"
        return Entry(material_id, source, error=error)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    if not text.strip():
        return Entry(material_id, source, error="it is empty")
    return parse_cif(text, material_id, source)
