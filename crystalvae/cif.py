"""CIF text without detours: symmetrised, or with all atoms in P1."""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from math import gcd
from typing import TYPE_CHECKING

import numpy as np

from crystalvae.symmetry.spglib_wrapper import hall_symbol
from crystalvae.symmetry.tables import symmetry_tables

if TYPE_CHECKING:
    from crystalvae.crystal import AsymmetricUnit


@cache
def operation_triplets(number: int) -> tuple[str, ...]:
    """General positions as ``x, y, z`` triplets, centring included."""
    rotations, translations = symmetry_tables().general_ops(number)
    triplets = []
    for rotation, translation in zip(rotations, translations):
        parts = []
        for row, shift in zip(rotation, translation):
            text = ""
            for name, factor in zip("xyz", row.tolist()):
                if factor:
                    text += ("+" if factor > 0 else "-") + name
            fraction = Fraction(float(shift % 1)).limit_denominator(24)
            if fraction:
                text += f"+{fraction}"
            parts.append(text.removeprefix("+"))
        triplets.append(", ".join(parts))
    return tuple(triplets)


@cache
def _operations_loop(number: int) -> str:
    lines = ["loop_", " _space_group_symop_id", " _space_group_symop_operation_xyz"]
    triplets = operation_triplets(number)
    lines += [f"  {i}  '{text}'" for i, text in enumerate(triplets, 1)]
    return "\n".join(lines)


def write_cif(
    crystal: AsymmetricUnit,
    *,
    symmetrized: bool = True,
    name: str | None = None,
    extra: dict[str, str] | None = None,
) -> str:
    """CIF text of a crystal in its conventional cell.

    Args:
        crystal: the crystal.
        symmetrized: write the space group, its operations and the occupied Wyckoff
            positions; otherwise all atoms in P1.
        name: of the data block; the reduced formula if None.
        extra: more tags and values of the block, written as quoted strings.
    """
    from ase.data import chemical_symbols

    lattice = crystal.lattice
    lengths = np.sqrt((lattice**2).sum(1))
    pairs = ((1, 2), (0, 2), (0, 1))
    angles = [
        np.degrees(np.arccos(lattice[i] @ lattice[j] / lengths[i] / lengths[j]))
        for i, j in pairs
    ]
    divisor = gcd(*crystal.composition.values())
    formula = crystal.formula
    counts = {chemical_symbols[z]: n for z, n in crystal.composition.items()}
    structural = " ".join(f"{s}{n // divisor}" for s, n in sorted(counts.items()))
    units = divisor * int(symmetry_tables().centring[crystal.number])
    number = crystal.number if symmetrized else 1
    symbol = crystal.symbol.replace("_", "") if symmetrized else "P1"
    head = [
        f"data_{(name or formula).replace(' ', '_')}",
        f"_chemical_formula_structural  '{formula}'",
        f"_chemical_formula_sum  '{structural}'",
        f"_cell_length_a  {lengths[0]:.8f}",
        f"_cell_length_b  {lengths[1]:.8f}",
        f"_cell_length_c  {lengths[2]:.8f}",
        f"_cell_angle_alpha  {angles[0]:.8f}",
        f"_cell_angle_beta  {angles[1]:.8f}",
        f"_cell_angle_gamma  {angles[2]:.8f}",
        f"_cell_volume  {crystal.volume:.6f}",
        f"_cell_formula_units_Z  {units}",
        f"_space_group_IT_number  {number}",
        f"_space_group_name_H-M_alt  '{symbol}'",
        f"_space_group_name_Hall  '{hall_symbol(number)}'",
    ]
    for tag, value in (extra or {}).items():
        head.append(f"{tag}  '{value}'")
    head.append(_operations_loop(number))
    head += [
        "loop_",
        " _atom_site_type_symbol",
        " _atom_site_label",
        " _atom_site_site_symmetry_multiplicity",
        " _atom_site_Wyckoff_symbol",
        " _atom_site_fract_x",
        " _atom_site_fract_y",
        " _atom_site_fract_z",
        " _atom_site_occupancy",
    ]
    if symmetrized:
        rows = zip(
            crystal.site_symbols,
            crystal.multiplicities.tolist(),
            crystal.letters,
            crystal.frac_coords.tolist(),
        )
    else:
        _, coords, species, _ = crystal.expand()
        symbols = [chemical_symbols[z] for z in species]
        rows = zip(symbols, [1] * len(symbols), "a" * len(symbols), coords.tolist())
    for index, (element, multiplicity, letter, (x, y, z)) in enumerate(rows):
        head.append(
            f"  {element}  {element}{index}  {multiplicity}  {letter}"
            f"  {x:.8f}  {y:.8f}  {z:.8f}  1"
        )
    return "\n".join(head) + "\n"
