"""Figures of the screening report: what was screened beside what is known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from crystalvae.screening.base import element_table
from crystalvae.screening.density import density_of
from crystalvae.screening.elements import periodic_place

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from crystalvae.crystal import AsymmetricUnit

OURS, THEIRS = "#2a6f97", "#e09f3e"
SYSTEMS = (
    ("triclinic", 2),
    ("monoclinic", 15),
    ("orthorhombic", 74),
    ("tetragonal", 142),
    ("trigonal", 167),
    ("hexagonal", 194),
    ("cubic", 230),
)
"""Crystal systems and the last space group of each."""
_MOST = 30
_BINS = 25


def crystal_system(number: int) -> str:
    """Name of the crystal system of a space group."""
    return next(name for name, last in SYSTEMS if number <= last)


def wide_charts(
    ours: Sequence[AsymmetricUnit], known: Sequence[AsymmetricUnit]
) -> list[Figure]:
    """Elements and space groups, each as wide as the page."""
    return [
        element_bars(ours, known),
        bars(
            "Space groups",
            [f"{c.symbol} ({c.number})" for c in ours],
            [f"{c.symbol} ({c.number})" for c in known],
            order=lambda name: int(name.rsplit("(", 1)[1][:-1]),
        ),
    ]


def small_charts(
    ours: Sequence[AsymmetricUnit], known: Sequence[AsymmetricUnit]
) -> list[Figure]:
    """Crystal systems, elements in a crystal, density, volume, size of the cell."""
    names = [name for name, _ in SYSTEMS]
    return [
        bars(
            "Crystal systems",
            [crystal_system(c.number) for c in ours],
            [crystal_system(c.number) for c in known],
            order=names.index,
        ),
        bars(
            "Number of elements",
            [len(c.composition) for c in ours],
            [len(c.composition) for c in known],
        ),
        histogram(
            "Density, g/cm³",
            [density_of(c) for c in ours],
            [density_of(c) for c in known],
        ),
        histogram(
            "Volume of an atom, Å³",
            [c.volume / c.num_atoms for c in ours],
            [c.volume / c.num_atoms for c in known],
        ),
        histogram(
            "Atoms in the primitive cell",
            [c.num_primitive_atoms for c in ours],
            [c.num_primitive_atoms for c in known],
        ),
    ]


def bars(
    title: str,
    ours: Sequence[Hashable],
    known: Sequence[Hashable],
    order: Any = None,
) -> Figure:
    """Shares of categories, with one standard error on those of the screened.

    Args:
        title: heading.
        ours: category of each screened crystal.
        known: of each reference crystal.
        order: key that sorts the categories; itself if None.
    """
    counts = Counter(ours), Counter(known)
    shares = [_shares(counter, sum(counter.values())) for counter in counts]
    return _grouped(title, shares, len(ours), order)


def element_bars(
    ours: Sequence[AsymmetricUnit], known: Sequence[AsymmetricUnit]
) -> Figure:
    """Share of the crystals that have each of the commonest elements."""
    table = element_table()
    shares = [_element_shares(crystals) for crystals in (ours, known)]
    named = [{table[z]["symbol"]: s for z, s in own.items()} for own in shares]
    place = {row["symbol"]: z for z, row in table.items()}
    return _grouped(
        "Elements: share of the crystals that have them", named, len(ours), place.get
    )


def periodic_table(
    title: str, crystals: Sequence[AsymmetricUnit], most: float
) -> Figure:
    """Periodic table, coloured by the share of the crystals with each element.

    Args:
        title: heading.
        crystals: which.
        most: share at which the colour is full.
    """
    from plotly.graph_objects import Figure, Heatmap

    shares = _element_shares(crystals)
    colour = np.full((9, 18), np.nan)
    text = np.full((9, 18), "", object)
    hover = np.full((9, 18), "", object)
    for z, row in element_table().items():
        place = _place(z)
        share = shares.get(z, 0.0)
        colour[place] = np.sqrt(share)
        text[place] = row["symbol"]
        hover[place] = f"{row['symbol']}: {share:.1%} of the crystals"
    ticks = [t for t in (0, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 1) if t <= most]
    figure = Figure(
        Heatmap(
            z=colour.tolist(),
            text=text.tolist(),
            texttemplate="%{text}",
            hovertext=hover.tolist(),
            hoverinfo="text",
            hoverongaps=False,
            colorscale=[[0, "#f4f4f4"], [0.01, "#e3eef5"], [1, OURS]],
            zmin=0,
            zmax=np.sqrt(max(most, 0.01)),
            xgap=2,
            ygap=2,
            colorbar={
                "tickvals": np.sqrt(ticks).tolist(),
                "ticktext": [f"{t:.0%}" for t in ticks],
                "thickness": 10,
                "len": 0.9,
            },
        )
    )
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False, autorange="reversed")
    return layout(figure, title, height=340)


def most_common_share(*sets: Sequence[AsymmetricUnit]) -> float:
    """Largest share that any element has in any of the sets."""
    return max(
        (max(_element_shares(s).values(), default=0.0) for s in sets), default=0.0
    )


def histogram(title: str, ours: Sequence[float], known: Sequence[float]) -> Figure:
    """Shares of common bins; the reference as a line.

    Args:
        title: heading, with the unit.
        ours: a number of each screened crystal.
        known: of each reference crystal; none are drawn if empty.
    """
    from plotly.graph_objects import Bar, Figure, Scatter

    both = np.concatenate([np.asarray(ours, float), np.asarray(known, float)])
    figure = Figure()
    if not len(both):
        return layout(figure, title)
    low, high = np.quantile(both, [0.005, 0.995])
    if np.allclose(both, np.round(both)):
        width = max(1, int(np.ceil((high - low + 1) / (2 * _BINS))))
        edges = np.arange(low - 0.5, high + 0.5 + width, width)
    else:
        edges = np.linspace(low, max(high, low + 1e-3), _BINS + 1)
    middle = ((edges[1:] + edges[:-1]) / 2).tolist()
    for label, colour, values in (
        ("screened", OURS, ours),
        ("reference", THEIRS, known),
    ):
        if not len(values):
            continue
        counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
        share = (counts / len(values)).tolist()
        if values is ours:
            figure.add_trace(
                Bar(x=middle, y=share, name=label, marker_color=colour, opacity=0.8)
            )
        else:
            line = {"color": colour, "shape": "hvh", "width": 2}
            figure.add_trace(
                Scatter(x=middle, y=share, name=label, mode="lines", line=line)
            )
    figure.update_layout(bargap=0.06)
    figure.update_yaxes(tickformat=".0%")
    return layout(figure, title)


def layout(figure: Figure, title: str, height: int = 300) -> Figure:
    """The looks that all figures share."""
    return figure.update_layout(
        title={"text": title, "font": {"size": 15}, "x": 0.01, "y": 0.97},
        height=height,
        margin={"l": 46, "r": 12, "t": 62, "b": 36},
        template="plotly_white",
        font={"family": "system-ui, sans-serif"},
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        hoverlabel={"namelength": -1},
    )


def _grouped(
    title: str, shares: Sequence[dict[Any, float]], count: int, order: Any
) -> Figure:
    from plotly.graph_objects import Bar, Figure

    ours, known = shares
    total = {n: ours.get(n, 0) + known.get(n, 0) for n in {**ours, **known}}
    names = sorted(sorted(total, key=lambda n: -total[n])[:_MOST], key=order)
    labels = [str(name) for name in names]
    figure = Figure()
    for label, colour, own in (
        ("screened", OURS, ours),
        ("reference", THEIRS, known),
    ):
        if not own:
            continue
        share = [own.get(name, 0.0) for name in names]
        error = None
        if own is ours:
            spread = [np.sqrt(s * (1 - s) / count) for s in share]
            error = {"array": spread, "color": "#555", "thickness": 1, "width": 2}
        figure.add_trace(
            Bar(x=labels, y=share, name=label, marker_color=colour, error_y=error)
        )
    figure.update_xaxes(type="category")
    figure.update_yaxes(tickformat=".0%", rangemode="nonnegative")
    return layout(figure, title)


def _shares(counter: Counter, total: int) -> dict[Any, float]:
    return {name: count / total for name, count in counter.items()} if total else {}


def _element_shares(crystals: Sequence[AsymmetricUnit]) -> dict[int, float]:
    return _shares(Counter(z for c in crystals for z in c.composition), len(crystals))


def _place(z: int) -> tuple[int, int]:
    """Row and column of an element in a table with the f block below."""
    for first, row in ((57, 7), (89, 8)):
        if first <= z < first + 15:
            return row, 2 + z - first
    group, period, _ = periodic_place(z)
    return period - 1, group - 1
