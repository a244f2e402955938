"""Crystals around known ones: draws from their posteriors at a β that is chosen."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from ase.data import chemical_symbols
from torch import Tensor

from crystalvae.benchmark.generation import template
from crystalvae.design.sample import DrawReport, draw_checked
from crystalvae.errors import ConfigError
from crystalvae.screening.uniqueness import ReferenceIndex, duplicate_of, is_known
from crystalvae.symmetry.tables import symmetry_tables

if TYPE_CHECKING:
    from crystalvae.crystal import AsymmetricUnit
    from crystalvae.latent import Posterior
    from crystalvae.model import CrystalVAE

BETA = 0.15
"""Where one element or a few coordinates of MP-20's crystals change."""


def default_beta(model: CrystalVAE) -> float:
    """:data:`BETA`, within the range that the model was trained for."""
    latent = model.config.latent
    return min(max(BETA, latent.beta_min), latent.beta_max)


@dataclass(frozen=True)
class Around:
    """Latent vectors from the posteriors of N crystals, draw i from that of i mod N."""

    posterior: Posterior
    """Of the crystals."""
    spread: float = 1.0
    """Standard deviations of the posteriors are multiplied by this."""

    def __call__(self, first: int, size: int, generator: torch.Generator) -> Tensor:
        """Latent vectors ``(size, D)`` of the draws from number ``first`` on."""
        mean = self.posterior.mu
        rows = torch.arange(first, first + size) % len(mean)
        noise = torch.randn(size, mean.shape[1], generator=generator).to(mean.device)
        return (
            mean[rows] + self.spread * noise * (0.5 * self.posterior.logvar[rows]).exp()
        )


@dataclass
class Neighbor:
    """A crystal that is none of the known ones, and where it was found."""

    crystal: AsymmetricUnit
    """The crystal that was drawn first."""
    origin: int
    """Row of the known crystal from whose posterior it came most often."""
    count: int
    """Draws that match it."""
    distance: float
    """Between the means of both posteriors, in standard deviations of the origin's,
    root mean square over the dimensions."""
    draw: int
    """Number of the draw."""


@dataclass
class NeighborReport:
    """What became of the draws."""

    draws: DrawReport
    """How many, and which fell for a check."""
    same: int
    """Draws that match one of the known crystals."""
    distorted: int
    """Draws that do not, but have the elements of one on the same Wyckoff positions."""
    repeated: int
    """Draws that are in these ways like another draw."""


def neighbors(
    model: CrystalVAE,
    known: Sequence[AsymmetricUnit],
    num: int,
    *,
    beta: float | None = None,
    spread: float = 1.0,
    temperature: float = 1.0,
    distortions: bool = False,
    num_workers: int | None = None,
    **options,
) -> tuple[list[Neighbor], NeighborReport]:
    """Search around known crystals.

    A small β keeps nearly everything of a crystal, so that draws differ in a coordinate
    or an element at most; a large one keeps little.

    Args:
        model: the model.
        known: crystals in canonical form.
        num: draws that pass the checks, all known crystals together.
        beta: the knob; None is :func:`default_beta`.
        spread: see :class:`Around`.
        temperature: of every choice.
        distortions: whether crystals that differ in coordinates and cell only, and do
            not match, are different ones. Most would relax to the same crystal.
        num_workers: processes; None is one a core where they save time.
        **options: of :func:`~crystalvae.design.sample.draw_checked`.

    Returns:
        Distinct crystals that match none of ``known`` (StructureMatcher's defaults),
        those that came most often first, then the nearest; and the account.

    Raises:
        ConfigError: ``known`` is empty.
        CrystalVAEError: no draw passes the checks.
    """
    if not known:
        raise ConfigError("there is no crystal to search around")
    beta = default_beta(model) if beta is None else beta
    posterior = model.encode(known, beta)
    kept, report = draw_checked(
        model,
        num,
        beta=beta,
        temperature=temperature,
        latents=Around(posterior, spread),
        num_workers=num_workers,
        **options,
    )
    crystals = [draw.crystal for draw in kept]
    everything = [*known, *crystals]
    matches = duplicate_of(everything, num_workers=num_workers)
    labels = matches if distortions else merge_distorted(everything, matches)
    same = sum(first < len(known) for first in matches[len(known) :])
    groups: dict[int, list[int]] = defaultdict(list)
    for place, first in enumerate(labels[len(known) :]):
        groups[first - len(known)].append(place)
    alike = sum(len(groups.pop(first)) for first in list(groups) if first < 0)
    found = []
    for first, places in groups.items():
        origins = Counter(kept[place].index % len(known) for place in places)
        origin = origins.most_common(1)[0][0]
        mean = model.encode([crystals[first]], beta).mu[0]
        away = (mean - posterior.mu[origin]) / (0.5 * posterior.logvar[origin]).exp()
        found.append(
            Neighbor(
                crystal=crystals[first],
                origin=origin,
                count=len(places),
                distance=float(away.square().mean().sqrt()),
                draw=kept[first].index,
            )
        )
    found.sort(key=lambda item: (-item.count, item.distance))
    repeated = len(kept) - alike - len(found)
    return found, NeighborReport(report, same, alike - same, repeated)


def occupation(crystal: AsymmetricUnit) -> tuple:
    """The group, and which elements sit on which positions, the same in all settings.

    Returns:
        Hashable; equal where crystals differ in coordinates and cell only.
    """
    letters = tuple(crystal.wyckoffs.tolist())
    species = crystal.atomic_numbers.tolist()
    rows = symmetry_tables().equivalent_letters(crystal.number, letters).tolist()
    return crystal.number, min(tuple(sorted(zip(row, species))) for row in rows)


def merge_distorted(
    crystals: Sequence[AsymmetricUnit], labels: Sequence[int]
) -> list[int]:
    """Labels of matching crystals, those of equal :func:`occupation` made one.

    Args:
        crystals: the crystals.
        labels: for each the first that it matches, or its own index.

    Returns:
        The same, for each the first that it matches or is a distortion of.
    """
    merged: list[int] = []
    first_of: dict[tuple, int] = {}
    for place, crystal in enumerate(crystals):
        first = place if labels[place] == place else merged[labels[place]]
        merged.append(first_of.setdefault(occupation(crystal), first))
    return merged


def is_listed(
    crystals: Sequence[AsymmetricUnit],
    known: ReferenceIndex,
    distortions: bool = False,
    *,
    num_workers: int | None = None,
) -> list[bool]:
    """Which crystals match a known one, or are a distortion of one.

    Args:
        crystals: what to look up.
        known: the known crystals.
        distortions: whether the latter count as new.
        num_workers: processes; None is one a core.
    """
    old = is_known(crystals, known, num_workers=num_workers)
    if not distortions:
        for place, crystal in enumerate(crystals):
            rows = known.candidates(crystal.composition)
            listed = (occupation(known.dataset[row]) for row in rows)
            old[place] = old[place] or occupation(crystal) in listed
    return old


def change(known: AsymmetricUnit, found: AsymmetricUnit) -> str:
    """What is different: ``Fe → Co``, ``geometry``, ``structure`` or ``all``.

    Elements where these are exchanged in the same Wyckoff template; the geometry where
    the same elements sit on the same positions; the structure where only the
    composition stays.
    """
    if known.composition == found.composition:
        return "geometry" if occupation(known) == occupation(found) else "structure"
    lost = [z for z in known.composition if z not in found.composition]
    gained = [z for z in found.composition if z not in known.composition]
    if template(known) != template(found) or len(lost) != len(gained) or not lost:
        return "all"
    names = [" ".join(chemical_symbols[z] for z in zs) for zs in (lost, gained)]
    return " → ".join(names)
