"""Rebuild ``crystalvae/screening/elements.json`` from SMACT's tables.

python tools/build_element_tables.py
"""

import json
from pathlib import Path

import smact
from ase.data import atomic_masses, chemical_symbols, covalent_radii


def main() -> None:
    metals = set(smact.metals)
    table = {}
    for z, symbol in enumerate(chemical_symbols[1:119], 1):
        row = {
            "z": z,
            "mass": float(atomic_masses[z]),
            "radius": float(covalent_radii[z]) if z < len(covalent_radii) else 1.5,
            "metal": symbol in metals,
            "electronegativity": None,
            "smact14": [],
            "icsd24": [],
        }
        if symbol in smact.ordered_elements(1, 103):
            element = smact.Element(symbol)
            row["electronegativity"] = element.pauling_eneg
            row["smact14"] = list(element.oxidation_states_smact14 or [])
            row["icsd24"] = list(element.oxidation_states_icsd24 or [])
        table[symbol] = row
    path = Path(__file__).resolve().parents[1] / "crystalvae/screening/elements.json"
    lines = [f"{json.dumps(s)}: {json.dumps(row)}" for s, row in table.items()]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
