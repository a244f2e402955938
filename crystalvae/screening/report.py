"""One HTML page that says what a screening found; it needs no network."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from crystalvae.screening.base import Candidate, element_array, element_table
from crystalvae.screening.campaign import Campaign, funnel
from crystalvae.screening.density import mass_density

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from crystalvae.crystal import AsymmetricUnit

GALLERY = 12
"""Crystals shown in three dimensions."""
SAMPLE = 5000
"""Reference crystals whose distributions are drawn."""
OURS, THEIRS = "#2a6f97", "#c9ada7"

_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem;
  padding: 0 1rem; color: #222; }}
h1, h2 {{ font-weight: 600; }}
.grid {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(21rem, 1fr));
  gap: 1rem; }}
table {{ border-collapse: collapse; }} td, th {{ padding: .2rem .8rem;
  border-bottom: 1px solid #ddd; text-align: left; }}
</style><script>{script}</script></head><body>
<h1>{title}</h1><p>{lead}</p>
<h2>What is left after each check</h2>{funnel}
<h2>Distributions</h2><div class="grid">{charts}</div>
<h2>The best {count}</h2><p>Drag to turn.</p><div class="grid">{gallery}</div>
<h2>Ranking</h2>{table}
</body></html>
"""


def html_report(
    campaign: Campaign,
    title: str,
    reference: Sequence[AsymmetricUnit] | None = None,
    top: int = 50,
) -> str:
    """The report as one self-contained page.

    Args:
        campaign: what was found.
        title: heading.
        reference: known crystals whose distributions are drawn beside.
        top: rows of the ranking that are listed.
    """
    from plotly.offline import get_plotlyjs

    crystals = [campaign.inspected[place].crystal for place in campaign.survivors]
    known = _sample(reference)
    charts = [
        _bars("space group", _share([c.number for c in crystals], known, "number")),
        _bars("element", _elements(crystals, known)),
        _histogram("density, g/cm³", _densities(crystals), _densities(known)),
        _bars("number of elements", _num_elements(crystals, known)),
    ]
    distances = [campaign.nearest[p][0] for p in campaign.survivors if campaign.nearest]
    if distances:
        charts.append(_histogram("distance to the nearest known, Å", distances, []))
    best = crystals[:GALLERY]
    steps = funnel(campaign)
    lead = (
        f"{steps[0][1]} structures, {len(crystals)} passed everything. Novelty was "
        + (
            f"judged against {html.escape(campaign.reference or 'the reference set')}."
            if campaign.nearest
            else "not judged: no reference set was given."
        )
        + " No energies were computed, so nothing is said of stability."
    )
    return _PAGE.format(
        title=html.escape(title),
        script=get_plotlyjs(),
        lead=lead,
        funnel=_fragment(_funnel(steps)),
        charts="".join(f"<div>{_fragment(chart)}</div>" for chart in charts),
        count=len(best),
        gallery="".join(
            f"<div>{_fragment(_crystal(c, i))}</div>" for i, c in enumerate(best, 1)
        ),
        table=_ranking(campaign, top),
    )


def _fragment(figure: Figure) -> str:
    return figure.to_html(full_html=False, include_plotlyjs=False)


def _sample(reference: Sequence[AsymmetricUnit] | None) -> list[AsymmetricUnit]:
    if reference is None:
        return []
    rows = np.random.default_rng(0).permutation(len(reference))[:SAMPLE]
    return [reference[int(row)] for row in rows]


def _share(
    ours: list[Any], known: list[AsymmetricUnit], name: str
) -> tuple[Counter, Counter]:
    return Counter(ours), Counter(getattr(c, name) for c in known)


def _elements(
    ours: list[AsymmetricUnit], known: list[AsymmetricUnit]
) -> tuple[Counter, Counter]:
    table = element_table()

    def count(crystals: list[AsymmetricUnit]) -> Counter:
        return Counter(table[z]["symbol"] for c in crystals for z in c.composition)

    return count(ours), count(known)


def _num_elements(
    ours: list[AsymmetricUnit], known: list[AsymmetricUnit]
) -> tuple[Counter, Counter]:
    return (
        Counter(len(c.composition) for c in ours),
        Counter(len(c.composition) for c in known),
    )


def _densities(crystals: list[AsymmetricUnit]) -> list[float]:
    found = []
    for crystal in crystals:
        lattice, coords, species, _ = crystal.expand_primitive()
        found.append(mass_density(Candidate(lattice, coords, species)))
    return found


def _layout(figure: Figure, title: str, height: int = 320) -> Figure:
    return figure.update_layout(
        title=title,
        height=height,
        margin={"l": 40, "r": 10, "t": 40, "b": 40},
        template="plotly_white",
        legend={"orientation": "h", "y": 1.1},
    )


def _bars(title: str, counts: tuple[Counter, Counter]) -> Figure:
    from plotly.graph_objects import Bar, Figure

    ours, known = counts
    names = [name for name, _ in (ours + known).most_common(40)]
    if all(isinstance(name, int) for name in names):
        names.sort()
    figure = Figure()
    for label, colour, counter in (
        ("screened", OURS, ours),
        ("reference", THEIRS, known),
    ):
        total = sum(counter.values())
        if total:
            share = [counter[name] / total for name in names]
            labels = [str(name) for name in names]
            figure.add_trace(Bar(x=labels, y=share, name=label, marker_color=colour))
    figure.update_xaxes(type="category")
    return _layout(figure, title)


def _histogram(title: str, ours: list[float], known: list[float]) -> Figure:
    from plotly.graph_objects import Figure, Histogram

    figure = Figure()
    for label, colour, values in (
        ("screened", OURS, ours),
        ("reference", THEIRS, known),
    ):
        if values:
            figure.add_trace(
                Histogram(
                    x=values,
                    name=label,
                    histnorm="probability",
                    marker_color=colour,
                    opacity=0.7,
                )
            )
    return _layout(figure.update_layout(barmode="overlay"), title)


def _funnel(steps: list[tuple[str, int]]) -> Figure:
    from plotly.graph_objects import Figure, Funnel

    names, counts = zip(*steps)
    figure = Figure(
        Funnel(
            y=names,
            x=counts,
            textinfo="value+percent initial",
            marker={"color": OURS},
        )
    )
    return _layout(figure, "", height=60 + 34 * len(steps))


def _crystal(crystal: AsymmetricUnit, rank: int) -> Figure:
    """Atoms and edges of the conventional cell, atoms on faces repeated."""
    from plotly.graph_objects import Figure, Scatter3d

    lattice, coords, species, _ = crystal.expand()
    points, kinds = [], []
    for x, z in zip(coords, species):
        choices = [(0, 1) if value < 0.02 else (0,) for value in x]
        for i in choices[0]:
            for j in choices[1]:
                for k in choices[2]:
                    points.append((x + np.array([i, j, k])) @ lattice)
                    kinds.append(int(z))
    points, kinds = np.array(points), np.array(kinds)
    table, radius = element_table(), element_array("radius")
    figure = Figure(_edges(lattice))
    for z in np.unique(kinds).tolist():
        own = points[kinds == z]
        figure.add_trace(
            Scatter3d(
                x=own[:, 0],
                y=own[:, 1],
                z=own[:, 2],
                mode="markers",
                name=table[z]["symbol"],
                marker={
                    "size": 7 + 7 * float(radius[z]),
                    "color": _colour(z),
                    "line": {"width": 1, "color": "#444"},
                },
            )
        )
    axis = {"visible": False}
    scene = {"aspectmode": "data", "xaxis": axis, "yaxis": axis, "zaxis": axis}
    figure.update_layout(scene=scene)
    title = f"{rank}. {html.escape(crystal.formula)} · {crystal.symbol}"
    return _layout(figure, title, height=360)


def _edges(lattice: np.ndarray) -> Any:
    from plotly.graph_objects import Scatter3d

    lines: list[list[float | None]] = []
    for axis in range(3):
        for i in (0, 1):
            for j in (0, 1):
                start = np.insert(np.array([i, j], float), axis, 0) @ lattice
                lines += [start.tolist(), (start + lattice[axis]).tolist()]
                lines.append([None] * 3)
    x, y, z = zip(*lines)
    return Scatter3d(
        x=x, y=y, z=z, mode="lines", line={"color": "#888"}, showlegend=False
    )


def _colour(z: int) -> str:
    from ase.data.colors import jmol_colors

    red, green, blue = (int(255 * value) for value in jmol_colors[min(z, 109)])
    return f"rgb({red},{green},{blue})"


def _ranking(campaign: Campaign, top: int) -> str:
    head = "<tr><th>rank</th><th>name</th><th>formula</th><th>space group</th>"
    head += "<th>nearest known</th><th>distance, Å</th></tr>"
    lines = []
    for rank, place in enumerate(campaign.survivors[:top], 1):
        item = campaign.inspected[place]
        distance, name = campaign.nearest.get(place, (None, ""))
        shown = "" if distance is None else f"{distance:.3f}"
        lines.append(
            f"<tr><td>{rank}</td><td>{html.escape(item.record.name)}</td>"
            f"<td>{html.escape(item.crystal.formula)}</td>"
            f"<td>{item.crystal.symbol} ({item.crystal.number})</td>"
            f"<td>{html.escape(name)}</td><td>{shown}</td></tr>"
        )
    return f"<table>{head}{''.join(lines)}</table>"
