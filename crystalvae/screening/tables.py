"""Tables and texts of the screening report, as HTML."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from crystalvae.screening.base import (
    ENERGY,
    ESTIMATE,
    PROBABILITY,
    RESIDUAL,
    estimated,
    uncertainty_of,
    window_check,
)
from crystalvae.screening.density import (
    ATOM_VOLUME,
    MASS_DENSITY,
    density_of,
)
from crystalvae.screening.distance import (
    MIN_DISTANCE,
    MIN_NONMETAL_SHARE,
    MIN_RADIUS_SHARE,
)

if TYPE_CHECKING:
    from crystalvae.crystal import AsymmetricUnit
    from crystalvae.screening.campaign import Campaign
    from crystalvae.screening.engine import Inspected
    from crystalvae.screening.relax import Relaxation

MEANING = {
    "structures": "everything that was given",
    "readable": "an ordered crystal whose symmetry can be described",
    "volume": f"{ATOM_VOLUME[0]:g} to {ATOM_VOLUME[1]:g} Å³ an atom",
    "density": f"{MASS_DENSITY[0]:g} to {MASS_DENSITY[1]:g} g/cm³",
    "distance": f"no two atoms within {MIN_DISTANCE:g} Å, own images included",
    "radii": f"no two atoms within {MIN_RADIUS_SHARE:g} of the sum of covalent radii, "
    f"nonmetals {MIN_NONMETAL_SHARE:g}",
    "bonds": "no two atoms closer than in known crystals of their elements",
    "smact": "SMACT's charge balance, for comparison",
    "charge": "known oxidation states can cancel; alloys and the like are exempt",
    "group": "spglib finds the declared space group",
    "unique": "no copy of another one",
    "novel": "not in the reference set",
    "stable": "near or below the hull of the reference",
}
"""What each step of the funnel asks."""
ESTIMATES = {
    PROBABILITY: "probability of being stable",
    ENERGY: "estimated eV/atom above the hull",
    RESIDUAL: "residual",
    estimated("band_gap"): "estimated band gap, eV",
    estimated("formation_energy_per_atom"): "estimated formation energy, eV/atom",
}
"""What the networks of shipped models say of crystals, as the report calls it."""
_REFUSED = 50


def is_estimate(column: str | None) -> bool:
    """Whether a column holds what a network expects."""
    return column is not None and (column in ESTIMATES or column.endswith(ESTIMATE))


def estimate_labels(columns: Iterable[str]) -> dict[str, str]:
    """Those of some columns that hold estimates → what the report calls them."""
    found = dict.fromkeys(columns)
    labels = {name: label for name, label in ESTIMATES.items() if name in found}
    for name in found:
        if name not in labels and is_estimate(name):
            labels[name] = "estimated " + name.removesuffix(ESTIMATE).replace("_", " ")
    return labels


def pretty_formula(formula: str) -> str:
    """A formula with its numbers set low."""
    return re.sub(r"([\d.]+)", r"<sub>\1</sub>", escape(formula))


def pretty_group(symbol: str) -> str:
    """A Hermann-Mauguin symbol with screw axes set low and bars above."""
    text = re.sub(r"_(\d)", r"<sub>\1</sub>", escape(symbol))
    return re.sub(r"-(\d)", r'<span class="over">\1</span>', text)


def funnel_table(campaign: Campaign) -> str:
    """What is left after each step, what it asks, and to how many it did not apply."""
    from crystalvae.screening.campaign import funnel

    steps = funnel(campaign)
    total = max(steps[0][1], 1)
    meanings = MEANING | {
        window_check(name): f"the estimate is {_range(*window)}"
        for name, window in campaign.within.items()
    }
    records = [item.record for item in campaign.inspected]
    rows, before = [], total
    for name, left in steps:
        silent = sum(
            r.error is None and name in r.results and r.results[name].passed is None
            for r in records
        )
        lost = f'<span class="lost">−{before - left:,}</span>' if left < before else ""
        rows.append(
            f'<tr><th>{name}</th><td class="soft">{meanings.get(name, "")}</td>'
            f'<td class="bar"><div style="width:{100 * left / total:.2f}%"></div></td>'
            f'<td class="n">{left:,}</td><td class="n">{left / total:.1%}</td>'
            f'<td class="n">{lost}</td>'
            f'<td class="n soft">{f"{silent:,}" if silent else ""}</td></tr>'
        )
        before = left
    head = (
        '<tr><th></th><th></th><th></th><th class="n">left</th><th class="n"></th>'
        '<th class="n">fell</th><th class="n">not computed</th></tr>'
    )
    return (
        f'<div class="scroll"><table class="funnel">{head}{"".join(rows)}</table></div>'
    )


def details(campaign: Campaign, place: int, relaxation: Relaxation | None) -> str:
    """Cell, density, nearest known and energy of one crystal."""
    item = campaign.inspected[place]
    crystal = item.crystal
    lines = [
        cell_text(crystal),
        f"{crystal.num_primitive_atoms} atoms in the primitive cell · "
        f"{density_of(crystal):.2f} g/cm³",
    ]
    if place in campaign.nearest:
        distance, name = campaign.nearest[place]
        lines.append(f"nearest known: {escape(name)}, {distance:.3f} Å")
    energy = _energy(item)
    if energy is not None:
        lines.append(f"{1000 * energy:.0f} meV/atom above the hull")
    extra = campaign.extra.get(place, {})
    for column, label in estimate_labels(extra).items():
        doubt = extra.get(uncertainty_of(column.removesuffix(ESTIMATE)))
        more = "" if doubt is None else f" ± {doubt:.2g}"
        lines.append(f"{label}: {extra[column]:.3g}{more}")
    if relaxation is not None:
        lines.append(
            f"relaxation moves atoms by {relaxation.rmsd:.3f} Å, "
            f"the volume by {relaxation.volume_change:+.1%}"
        )
    lines.append(escape(item.record.name))
    return "<br>".join(lines)


def cell_text(crystal: AsymmetricUnit) -> str:
    """Lengths in Å, and those angles that are not 90°."""
    lengths = np.linalg.norm(crystal.lattice, axis=1)
    cosines = crystal.lattice @ crystal.lattice.T / np.outer(lengths, lengths)
    angles = np.degrees(np.arccos(np.clip(cosines, -1, 1)))[[1, 0, 0], [2, 2, 1]]
    text = " × ".join(f"{value:.2f}" for value in lengths) + " Å"
    odd = [
        f"{name} {angle:.1f}°"
        for name, angle in zip("αβγ", angles)
        if abs(angle - 90) > 0.05
    ]
    return ", ".join([text, *odd])


def ranking_table(campaign: Campaign, files: Sequence[str], top: int) -> str:
    """The best survivors; the page's script makes it sortable."""
    if not campaign.survivors:
        return "<p>Nothing survived.</p>"
    heads = [
        ("rank", "n"),
        ("name", "t"),
        ("formula", "t"),
        ("space group", "n"),
        ("atoms", "n"),
        ("density, g/cm³", "n"),
    ]
    energies = [_energy(campaign.inspected[place]) for place in campaign.survivors]
    if campaign.nearest:
        heads += [("nearest known", "t"), ("distance, Å", "n")]
    estimates = estimate_labels(
        name for p in campaign.survivors for name in campaign.extra.get(p, {})
    )
    heads += [(label, "n") for label in estimates.values()]
    relaxed = any(energy is not None for energy in energies)
    if relaxed:
        heads.append(("above hull, eV/atom", "n"))
    head = "".join(
        f'<th data-sort="{kind}"{_numeric(kind)}>{name}</th>' for name, kind in heads
    )
    lines = []
    for rank, place in enumerate(campaign.survivors[:top], 1):
        cells = _ranking_cells(campaign, place, rank, files)
        extra = campaign.extra.get(place, {})
        cells += [_number(extra.get(column)) for column in estimates]
        if relaxed:
            cells.append(_number(_energy(campaign.inspected[place])))
        lines.append("<tr>" + "".join(cells) + "</tr>")
    note = (
        f'<p class="soft">The first {top:,} of {len(campaign.survivors):,}; '
        "the others are in table.csv.</p>"
        if len(campaign.survivors) > top
        else ""
    )
    return (
        '<input type="search" id="search" placeholder="filter: Li O, Fm-3m, mp-149 …" '
        'aria-label="filter the ranking"><div class="scroll"><table id="ranking">'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
        f"{note}"
    )


def _ranking_cells(
    campaign: Campaign, place: int, rank: int, files: Sequence[str]
) -> list[str]:
    item = campaign.inspected[place]
    crystal = item.crystal
    formula = pretty_formula(crystal.formula)
    if rank <= len(files):
        formula = f'<a href="{escape(files[rank - 1])}">{formula}</a>'
    cells = [
        f'<td class="n">{rank}</td>',
        f"<td>{escape(item.record.name)}</td>",
        f'<td data-value="{escape(crystal.formula)}">{formula}</td>',
        f'<td class="n" data-value="{crystal.number}">'
        f"{pretty_group(crystal.symbol)} ({crystal.number})</td>",
        f'<td class="n">{crystal.num_primitive_atoms}</td>',
        f'<td class="n">{density_of(crystal):.2f}</td>',
    ]
    if campaign.nearest:
        distance, name = campaign.nearest[place]
        cells += [f"<td>{escape(name)}</td>", f'<td class="n">{distance:.3f}</td>']
    return cells


def _range(low: float, high: float) -> str:
    if math.isinf(low):
        return f"at most {high:g}"
    return f"at least {low:g}" if math.isinf(high) else f"from {low:g} to {high:g}"


def _number(value: float | None) -> str:
    shown = "" if value is None else f"{value:.3f}"
    return f'<td class="n">{shown}</td>'


def refused_table(campaign: Campaign) -> str:
    """What could not be read, and why; empty if there is none."""
    refused = [i.record for i in campaign.inspected if i.record.error is not None]
    if not refused:
        return ""
    rows = "".join(
        f"<tr><td>{escape(r.name)}</td><td>{escape(r.error or '')}</td></tr>"
        for r in refused[:_REFUSED]
    )
    more = len(refused) - _REFUSED
    note = f'<p class="soft">and {more:,} more; see table.csv</p>' if more > 0 else ""
    return (
        f"<h2>Not readable: {len(refused):,}</h2>"
        f'<div class="scroll"><table>{rows}</table></div>{note}'
    )


def _numeric(kind: str) -> str:
    return ' class="n"' if kind == "n" else ""


def _energy(item: Inspected) -> float | None:
    result = item.record.results.get("stable")
    return None if result is None else result.value
