"""One HTML page that says what a screening found; it needs no network."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np

from crystalvae.screening import charts
from crystalvae.screening.base import PROBABILITY
from crystalvae.screening.campaign import Campaign, funnel
from crystalvae.screening.gallery import scene
from crystalvae.screening.phases import phase_diagrams
from crystalvae.screening.tables import (
    details,
    funnel_table,
    pretty_formula,
    pretty_group,
    ranking_table,
    refused_table,
)

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from crystalvae.crystal import AsymmetricUnit
    from crystalvae.screening.relax import Relaxation

GALLERY = 12
"""Crystals shown in three dimensions."""
SAMPLE = 5000
"""Reference crystals whose distributions are drawn."""

_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{style}</style><script>{plotly}</script></head><body>
<h1>{title}</h1><p>{lead}</p><div class="cards">{cards}</div>
<h2>What is left after each check</h2>{funnel}
<h2>What survived{beside}</h2>{distributions}{phases}
<h2>The best {count}</h2>
<p class="soft">Drag or use the arrow keys to turn, Ctrl and the wheel to zoom,
double-click to fill the screen. Conventional cells.</p>
<div class="grid">{gallery}</div>
<h2>Ranking</h2>{ranking}{refused}
<script type="application/json" id="scenes">{scenes}</script>
<script>{script}</script></body></html>
"""


def html_report(
    campaign: Campaign,
    title: str,
    reference: Sequence[AsymmetricUnit] | None = None,
    *,
    relaxed: Mapping[int, Relaxation] | None = None,
    files: Sequence[str] = (),
    top: int = 200,
) -> str:
    """The report as one self-contained page.

    Args:
        campaign: what was found.
        title: heading.
        reference: known crystals whose distributions are drawn beside.
        relaxed: place in the campaign → relaxation, if stability was judged.
        files: CIF of each survivor relative to the page, best first, to link to.
        top: rows of the ranking that are listed.
    """
    from plotly.offline import get_plotlyjs

    crystals = [campaign.inspected[place].crystal for place in campaign.survivors]
    known = _sample(reference)
    best = campaign.survivors[:GALLERY]
    scenes = [scene(crystal) for crystal in crystals[:GALLERY]]
    return _PAGE.format(
        title=escape(title),
        style=_asset("report.css"),
        plotly=get_plotlyjs(),
        lead=_lead(campaign, relaxed),
        cards=_cards(campaign, relaxed),
        funnel=funnel_table(campaign),
        beside=" beside the reference" if known else "",
        distributions=_distributions(campaign, crystals, known, relaxed or {}),
        phases=_phases(campaign, relaxed or {}),
        count=len(best) or "",
        gallery="".join(
            _figure(campaign, place, number, drawn["elements"], files, relaxed or {})
            for number, (place, drawn) in enumerate(zip(best, scenes))
        ),
        ranking=ranking_table(campaign, files, top),
        refused=refused_table(campaign),
        scenes=_json(scenes),
        script=_asset("report.js"),
    )


def _asset(name: str) -> str:
    file = resources.files("crystalvae.screening") / name
    return file.read_text(encoding="utf-8")


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


def _sample(reference: Sequence[AsymmetricUnit] | None) -> list[AsymmetricUnit]:
    if reference is None:
        return []
    rows = np.random.default_rng(0).permutation(len(reference))[:SAMPLE]
    return [reference[int(row)] for row in rows]


def _lead(campaign: Campaign, relaxed: Mapping[int, Relaxation] | None) -> str:
    novelty = (
        f"Novelty was judged against {escape(campaign.reference or 'the reference')}."
        if campaign.judged_novelty
        else "Novelty was not judged: no reference set was given."
    )
    if relaxed is not None:
        energies = (
            f"{len(relaxed)} were relaxed; energies are above the hull of the "
            "reference crystals in the same potential."
        )
    elif any(PROBABILITY in columns for columns in campaign.extra.values()):
        energies = "No energies were computed: of stability there are estimates only."
    else:
        energies = "No energies were computed, so nothing is said of stability."
    ranked = f" Ranked by {escape(campaign.ranked_by)}." if campaign.ranked_by else ""
    return f"{novelty} {energies}{ranked}"


def _cards(campaign: Campaign, relaxed: Mapping[int, Relaxation] | None) -> str:
    steps = dict(funnel(campaign))
    total = max(steps["structures"], 1)
    checked = [n for name, n in steps.items() if name not in _COMPARED]
    shown = [
        (f"{steps['structures']:,}", "structures"),
        (f"{checked[-1] / total:.1%}", "pass the checks"),
    ]
    if "novel" in steps:
        shown.append((f"{steps['novel'] / total:.1%}", "also unique and novel"))
    elif "unique" in steps:
        shown.append((f"{steps['unique'] / total:.1%}", "also unique"))
    if relaxed is not None:
        verdicts = [campaign.inspected[p].record.results["stable"] for p in relaxed]
        stable = sum(verdict.passed is True for verdict in verdicts)
        shown.append((f"{stable} of {len(relaxed)}", "of the relaxed are stable"))
    shown.append((f"{len(campaign.survivors):,}", "survive"))
    return "".join(
        f'<div class="card"><b>{value}</b>{label}</div>' for value, label in shown
    )


_COMPARED = ("unique", "novel", "stable")


def _distributions(
    campaign: Campaign,
    crystals: list[AsymmetricUnit],
    known: list[AsymmetricUnit],
    relaxed: Mapping[int, Relaxation],
) -> str:
    if not crystals:
        return "<p>Nothing survived, so there is nothing to draw.</p>"
    most = charts.most_common_share(crystals, known)
    tables = [charts.periodic_table("Elements, screened", crystals, most)]
    if known:
        tables.append(charts.periodic_table("Elements, reference", known, most))
    small = charts.small_charts(crystals, known)
    if campaign.nearest:
        distances = [campaign.nearest[place][0] for place in campaign.survivors]
        small.append(
            charts.histogram("Distance to the nearest known, Å", distances, [])
        )
    if relaxed:
        results = [campaign.inspected[place].record.results for place in relaxed]
        above = [r["stable"].value for r in results if r["stable"].value is not None]
        moved = [found.rmsd for found in relaxed.values()]
        small.append(charts.histogram("Energy above the hull, eV/atom", above, []))
        small.append(charts.histogram("RMSD of relaxation, Å", moved, []))
    return (
        f'<div class="pair">{_divs(tables)}</div>'
        + _divs(charts.wide_charts(crystals, known), "wide")
        + f'<div class="grid">{_divs(small)}</div>'
        + '<p class="soft">Error bars are one standard error. The distance to the '
        "nearest known crystal compares average minimum distances, without elements."
        "</p>"
    )


def _phases(campaign: Campaign, relaxed: Mapping[int, Relaxation]) -> str:
    if campaign.hull is None:
        return ""
    figures = phase_diagrams(campaign, relaxed, campaign.hull)
    if not figures:
        return ""
    return (
        f'<h2>Phase diagrams</h2><div class="pair">{_divs(figures)}</div>'
        '<p class="soft">The systems of two and three elements in which most crystals '
        "were relaxed, where the reference has crystals of each element; its hull, in "
        "the same potential. Point at a crystal for its energies.</p>"
    )


def _divs(figures: Sequence[Figure], kind: str = "") -> str:
    config = {"displayModeBar": False, "responsive": True}
    parts = [
        figure.to_html(full_html=False, include_plotlyjs=False, config=config)
        for figure in figures
    ]
    return "".join(f'<div class="{kind}">{part}</div>' for part in parts)


def _figure(
    campaign: Campaign,
    place: int,
    number: int,
    elements: Sequence[Mapping[str, Any]],
    files: Sequence[str],
    relaxed: Mapping[int, Relaxation],
) -> str:
    crystal = campaign.inspected[place].crystal
    name = f"{crystal.formula}, {crystal.symbol}"
    formula = pretty_formula(crystal.formula)
    if number < len(files):
        formula = f'<a href="{escape(files[number])}">{formula}</a>'
    legend = "".join(
        f'<span><i style="background:{kind["color"]}"></i>{kind["symbol"]}</span>'
        for kind in elements
    )
    return (
        f"<figure><h3><span>{number + 1}.</span><span>{formula}</span>"
        f'<span class="group">{pretty_group(crystal.symbol)} '
        f"({crystal.number})</span></h3>"
        f'<canvas data-scene="{number}" tabindex="0" role="img" '
        f'aria-label="{escape(name)}"></canvas>'
        f'<div class="legend">{legend}</div>'
        f"<figcaption>{details(campaign, place, relaxed.get(place))}</figcaption>"
        "</figure>"
    )
