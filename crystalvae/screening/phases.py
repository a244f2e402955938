"""Phase diagrams: where relaxed crystals stand among the known ones of their system."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations
from math import lcm
from typing import TYPE_CHECKING

from crystalvae.crystal import reduced_formula
from crystalvae.screening.base import element_table
from crystalvae.screening.charts import OURS, THEIRS, layout

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from crystalvae.screening.campaign import Campaign
    from crystalvae.screening.hull import Hull
    from crystalvae.screening.relax import Relaxation

MOST = 6
"""Systems that are drawn."""
LARGEST_DENOMINATOR = 500
"""Of shares that are turned into formulas."""
NAMED = 8
"""Known crystals on the hull up to which they are named in a figure."""
FARTHEST = 0.3
"""eV/atom above the hull up to which known crystals are drawn."""


@dataclass(frozen=True)
class Phase:
    """A crystal in a diagram."""

    formula: str
    shares: tuple[float, ...]
    """Of the elements of the system, summing to 1."""
    formation: float
    """Formation energy in eV/atom."""
    above: float
    """eV/atom above the hull of the known crystals, negative below it."""


@dataclass(frozen=True)
class System:
    """A chemical system of two or three elements."""

    elements: tuple[int, ...]
    """Atomic numbers, ascending."""
    known: list[Phase]
    """Known crystals, the lowest of each composition."""
    found: list[Phase]
    """Crystals that were relaxed."""
    lines: list[tuple[int, int]]
    """Pairs of ``known`` that coexist: the hull's edges."""


def phase_diagrams(
    campaign: Campaign, relaxed: Mapping[int, Relaxation], hull: Hull
) -> list[Figure]:
    """Diagrams of the systems with most relaxed crystals, at most :data:`MOST`."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for place in relaxed:
        elements = tuple(campaign.inspected[place].crystal.composition)
        judged = campaign.inspected[place].record.results["stable"].value is not None
        if judged and len(elements) in (2, 3):
            groups.setdefault(elements, []).append(place)
    best = {place: rank for rank, place in enumerate(campaign.survivors)}
    worst = len(best)

    def order(elements: tuple[int, ...]) -> tuple[int, int]:
        places = groups[elements]
        return -len(places), min(best.get(place, worst) for place in places)

    figures = []
    for elements in sorted(groups, key=order):
        found = []
        for place in groups[elements]:
            item = campaign.inspected[place]
            composition = item.crystal.composition
            formation = hull.formation_energy(composition, relaxed[place].energy)
            if formation is not None:
                total = sum(composition.values())
                shares = tuple(composition[z] / total for z in elements)
                above = item.record.results["stable"].value
                found.append(Phase(item.crystal.formula, shares, formation, above))
        if found and len(figures) < MOST:
            figures.append(draw(known_system(hull, elements, found)))
    return figures


def known_system(hull: Hull, elements: tuple[int, ...], found: list[Phase]) -> System:
    """What is known of a system whose elements all have crystals of their own.

    Args:
        hull: the known crystals.
        elements: atomic numbers, ascending.
        found: crystals that were relaxed.
    """
    from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram

    known, entries = [], []
    for size in range(1, len(elements) + 1):
        for own in combinations(elements, size):
            for part, energy in hull.lowest.get(frozenset(own), {}).items():
                share = dict(zip(own, part))
                counts = _counts(share)
                known.append(
                    Phase(
                        reduced_formula(counts),
                        tuple(share.get(z, 0.0) for z in elements),
                        hull.formation_energy(counts, energy) or 0.0,
                        max(hull.energy_above(counts, energy) or 0.0, 0.0),
                    )
                )
                total = sum(counts.values())
                symbols = {element_table()[z]["symbol"]: n for z, n in counts.items()}
                entries.append(PDEntry(symbols, energy * total, attribute=len(entries)))
    diagram = PhaseDiagram(entries)
    edges = {
        tuple(sorted(diagram.qhull_entries[corner].attribute for corner in pair))
        for facet in diagram.facets
        for pair in combinations(facet, 2)
    }
    return System(elements, known, found, sorted(edges))


def _counts(shares: Mapping[int, float]) -> dict[int, int]:
    parts = {
        z: Fraction(share).limit_denominator(LARGEST_DENOMINATOR)
        for z, share in shares.items()
    }
    whole = lcm(*(part.denominator for part in parts.values()))
    return {z: int(part * whole) for z, part in parts.items()}


def draw(system: System) -> Figure:
    """The hull over a line of two, or in a triangle of three elements."""
    from plotly.graph_objects import Figure

    figure = Figure()
    on_hull = {corner for line in system.lines for corner in line}
    stable = [system.known[i] for i in sorted(on_hull)]
    others = [
        phase
        for i, phase in enumerate(system.known)
        if i not in on_hull and phase.above <= FARTHEST
    ]
    for start, end in system.lines:
        pair = [system.known[start], system.known[end]]
        line = {"color": THEIRS, "width": 1.5}
        figure.add_trace(_trace(pair, mode="lines", line=line, showlegend=False))
    kinds = (
        (
            "known, on the hull",
            stable,
            "markers+text" if len(stable) <= NAMED else "markers",
            {"color": THEIRS, "size": 9},
        ),
        ("known, above it", others, "markers", {"color": "#b8bec6", "size": 6}),
        (
            "screened",
            system.found,
            "markers+text",
            {
                "color": OURS,
                "size": 12,
                "symbol": "diamond",
                "line": {"color": "white", "width": 1},
            },
        ),
    )
    for name, phases, mode, marker in kinds:
        if phases:
            text = [phase.formula for phase in phases]
            hover = [
                f"{phase.formula}: {phase.formation:.3f} eV/atom of formation, "
                f"{1000 * phase.above:.0f} meV/atom above the hull"
                for phase in phases
            ]
            figure.add_trace(
                _trace(
                    phases,
                    mode=mode,
                    name=name,
                    marker=marker,
                    text=text,
                    hovertext=hover,
                    hoverinfo="text",
                    textposition="bottom center",
                    textfont={"size": 11},
                )
            )
    names = [element_table()[z]["symbol"] for z in system.elements]
    if len(names) == 2:
        figure.update_xaxes(title=f"share of {names[1]}", range=[-0.06, 1.06])
        figure.update_yaxes(title="formation energy, eV/atom")
    else:
        axes = {
            f"{axis}axis": {"title": symbol, "showticklabels": False}
            for axis, symbol in zip("abc", names)
        }
        figure.update_layout(ternary={"sum": 1, **axes})
    return layout(figure, "–".join(names), height=520)


def _trace(phases: list[Phase], **options):
    from plotly.graph_objects import Scatter, Scatterternary

    columns = [list(values) for values in zip(*(phase.shares for phase in phases))]
    if len(columns) == 2:
        energies = [phase.formation for phase in phases]
        return Scatter(x=columns[1], y=energies, **options)
    return Scatterternary(**dict(zip("abc", columns)), **options)
