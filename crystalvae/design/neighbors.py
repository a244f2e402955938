"""Crystals around known ones: draws from their posteriors at a β that is chosen."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from crystalvae.conditions import Told
from crystalvae.crystal import AsymmetricUnit
from crystalvae.design.alike import Listed, merge_distorted
from crystalvae.design.sample import Draw, DrawReport, draw_checked
from crystalvae.design.settings import (
    refinement_of,
    sampling_defaults,
    told_around,
)
from crystalvae.errors import ConfigError
from crystalvae.screening.uniqueness import duplicate_of

if TYPE_CHECKING:
    from ase import Atoms
    from pymatgen.core import Structure

    from crystalvae.latent import Posterior
    from crystalvae.model import CrystalVAE

BETA = 0.15
"""Where an element or a few coordinates change, unless a card says otherwise."""


def default_beta(model: CrystalVAE) -> float:
    """The card's ``neighborhood_beta``, else :data:`BETA`, within the model's range."""
    wanted = model.card.get("neighborhood_beta", BETA)
    return model.config.latent.nearest_beta(wanted)


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


def draw_around(
    model: CrystalVAE,
    posterior: Posterior,
    num: int,
    *,
    spread: float = 1.0,
    refine: dict[str, float | None] | None = None,
    conditions: Told | None = None,
    **options,
) -> tuple[list[Draw], DrawReport]:
    """Crystals that pass the checks around known ones, refined as is due for design.

    Args:
        model: the model.
        posterior: of the N known crystals; draw i is around that of i mod N.
        num: crystals wanted.
        spread: see :class:`Around`.
        refine: of :func:`~crystalvae.design.settings.refinement_of`, for design.
        conditions: what the decoder is told, besides what is due for design.
        **options: of :func:`~crystalvae.design.sample.draw_checked`, β included.
    """
    how = asdict(refinement_of(model, refine, purpose="design"))
    beta = options.get("beta")
    if beta is None:
        beta = sampling_defaults(model)["beta"]
    told = told_around(model, conditions, beta)
    around = Around(posterior, spread)
    return draw_checked(
        model, num, latents=around, refine=how, conditions=told, **options
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
    """Draws that do not, but are distortions of one
    (:func:`crystalvae.design.alike.is_distortion`)."""
    repeated: int
    """Draws that are in these ways like another draw."""
    listed: int = 0
    """Distinct ones that are among further known crystals."""


def neighbors(
    model: CrystalVAE,
    known: Sequence[AsymmetricUnit | Structure | Atoms],
    num: int,
    *,
    unlisted: Any = None,
    beta: float | None = None,
    spread: float = 1.0,
    temperature: float = 1.0,
    distortions: bool = False,
    refine: dict[str, float | None] | None = None,
    num_workers: int | None = None,
    **options,
) -> tuple[list[Neighbor], NeighborReport]:
    """Search around known crystals.

    A small β keeps nearly everything of a crystal, so that draws differ in a coordinate
    or an element at most; a large one keeps little.

    Args:
        model: the model.
        known: crystals, of any of the three kinds.
        num: draws that pass the checks, all known crystals together.
        unlisted: further known crystals, as
            :meth:`~crystalvae.design.alike.Listed.of` takes them; what matches one of
            these, or is a distortion of one, is left out.
        beta: the knob; None is :func:`default_beta`.
        spread: see :class:`Around`.
        temperature: of every choice.
        distortions: whether distortions of another crystal are crystals of their own.
        refine: of :func:`~crystalvae.design.settings.refinement_of`, for design.
        num_workers: processes; None is one a core where they save time.
        **options: of :func:`~crystalvae.design.sample.draw_checked`.

    Returns:
        Distinct crystals that match none of ``known`` (StructureMatcher's defaults),
        those that came most often first, then the nearest; and the account.

    Raises:
        ConfigError: ``known`` is empty, or holds more crystals than ``num``.
        CrystalVAEError: no draw passes the checks.
        DataError: ``unlisted`` cannot be read.
        InvalidStructureError: something is no crystal, or cannot be used.
    """
    listed = None if unlisted is None else Listed.of(unlisted, distortions)
    known = [AsymmetricUnit.of(crystal) for crystal in known]
    if not known:
        raise ConfigError("there is no crystal to search around")
    if len(known) > num:
        raise ConfigError(
            f"{num} draws around {len(known)} crystals leave some out; draw more"
        )
    beta = default_beta(model) if beta is None else beta
    posterior = model.encode(known, beta)
    kept, report = draw_around(
        model,
        posterior,
        num,
        beta=beta,
        spread=spread,
        temperature=temperature,
        refine=refine,
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
    firsts = [crystals[first] for first in groups]
    means = model.encode(firsts, beta).mu if firsts else []
    found = []
    for (first, places), mean in zip(groups.items(), means):
        origins = Counter(kept[place].index % len(known) for place in places)
        origin = origins.most_common(1)[0][0]
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
    dropped = 0
    if listed is not None and found:
        old = listed([item.crystal for item in found], num_workers=num_workers)
        found = [item for item, is_old in zip(found, old) if not is_old]
        dropped = sum(old)
    return found, NeighborReport(report, same, alike - same, repeated, dropped)
