"""What can be asked of decoding, and what it gives."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from numbers import Real
from typing import TYPE_CHECKING

import numpy as np
import torch
from ase.data import atomic_numbers
from torch import Tensor

from crystalvae.decoder import PARTS
from crystalvae.errors import ConfigError
from crystalvae.generation.parsing import parse_element
from crystalvae.geometry.lattice import (
    complete_coords,
    coords_to_lattice,
    lattice_to_coords,
)
from crystalvae.nn.wyckoff import MAX_Z
from crystalvae.symmetry.tables import symmetry_tables

if TYPE_CHECKING:
    from crystalvae.crystal import AsymmetricUnit


MOST_STRENGTH = 10
"""Most that properties may count."""
MOST_BIAS = 50
"""Largest bias of a logit; a choice of that much less is never made."""


def is_share(value: object) -> bool:
    """Whether it is a number above 0 and at most 1."""
    return isinstance(value, Real) and value is not True and 0 < value <= 1


@dataclass(frozen=True)
class SamplingOptions:
    """How to draw; the default is greedy decoding, which reconstructs."""

    temperature: float = 0.0
    """0 is greedy, 1 the model's own distribution."""
    part_temperature: dict[str, float] = field(default_factory=dict)
    """Temperature of single parts (``element``, ``count``, ``group``, ``lattice``,
    ``wyckoff``, ``species``, ``coords``) where it differs."""
    top_p: float = 1.0
    """Nucleus of the categorical choices."""
    stop_bias: float = 0.0
    """Added to the logit of the end of a composition, before the temperature. Lower
    temperatures of other parts shift the numbers of elements; this shifts them back."""
    element_bias: dict[str, float] = field(default_factory=dict)
    """Added to the logits of elements, before the temperature; what is not named has
    0. See :func:`crystalvae.training.calibrate.calibrate_elements`."""
    condition_strength: float = 1.0
    """By how much what is told of properties counts. Above 1 draws obey it better and
    are less diverse."""
    attempts: int = 6
    """Redraws of a site that collides, before it is given up."""
    restarts: int = 2
    """Rounds in which crystals with atoms too close, or which the refiner doubts, are
    decoded anew from their z. The first round keeps composition and group: drawing
    these anew at once would favour small crystals, which collide least. What that does
    not mend, three further drafts of the same seldom do."""
    restart_temperature: float = 0.0
    """Least temperature of those rounds; above 0, greedy decoding has them as well."""
    restart_copies: int = 3
    """Most drafts of each such crystal in a round, one after the other until one is
    good; the best is kept."""
    min_distance: float = 0.7
    """Shortest distance allowed while placing, Å, besides that of the covalent radii
    (:func:`crystalvae.screening.distance.check_radii`)."""

    def __post_init__(self) -> None:
        for value in (self.temperature, *self.part_temperature.values()):
            if not (isinstance(value, Real) and 0 <= value < math.inf):
                raise ConfigError(f"a temperature is a number from 0, not {value!r}")
        if not is_share(self.top_p):
            raise ConfigError(f"top_p is above 0 and at most 1, not {self.top_p!r}")
        strength = self.condition_strength
        if not (isinstance(strength, Real) and 0 <= strength <= MOST_STRENGTH):
            raise ConfigError(f"the condition strength goes from 0 to {MOST_STRENGTH}")
        if not abs(self.stop_bias) <= MOST_BIAS:
            raise ConfigError(f"the stop bias goes from -{MOST_BIAS} to {MOST_BIAS}")
        for symbol, bias in self.element_bias.items():
            try:
                parse_element(symbol)
            except ConfigError as error:
                raise ConfigError(f"element bias: {error}") from error
            if not abs(bias) <= MOST_BIAS:
                raise ConfigError(
                    f"element bias: that of {symbol} goes from -{MOST_BIAS} to "
                    f"{MOST_BIAS}"
                )
        unknown = set(self.part_temperature) - set(PARTS)
        if unknown:
            raise ConfigError(
                f"no part {sorted(unknown)[0]!r}; parts are {', '.join(PARTS)}"
            )

    def of(self, part: str) -> float:
        """Temperature of a part."""
        return self.part_temperature.get(part, self.temperature)

    def bias_of_elements(self) -> Tensor:
        """The element bias by atomic number, ``(119,)``."""
        bias = torch.zeros(MAX_Z)
        for symbol, value in self.element_bias.items():
            bias[atomic_numbers[symbol]] = value
        return bias


TOO_SHORT = 1e3
"""Added to the residual of a crystal with too short bonds."""
MOST = 1000
"""Most passes, and most repeats."""
MOST_LEVELS = 8
"""Most levels of noise of a residual."""
LEAST_NOISE, MOST_NOISE = 1e-4, 10.0
"""Range of the noise (Å) and of the strain that a pass may expect."""


@dataclass(frozen=True)
class Refinement:
    """How draws are refined."""

    passes: int = 10
    """How often the network looks at a crystal in a descent; 0 leaves all crystals as
    they were decoded."""
    noise: float = 0.2
    """Error of atoms that the first pass expects, Å. Larger values repair worse draws
    and take good ones further from where they were."""
    strain: float = 0.02
    """Strain of the cell that the first pass expects."""
    limit: float | None = None
    """Largest residual (:meth:`crystalvae.refinement.network.Refiner.residual`) of a
    refined draw that is good enough. Others descend again, and what does not come below
    the limit is drawn again, like one whose atoms collide. None takes all; then only
    what could not be refined or collides descends again."""
    levels: int = 1
    """At how many levels of noise the residual is computed; with three it tells right
    from wrong crystals better, and takes longer."""
    repeats: int = 0
    """Further descents of what is above the limit or collides."""
    repeat_noise: float = 0.4
    """Error that the first pass of a further descent expects, Å."""
    repeat_strain: float = 0.04
    """Strain that it expects."""
    bonds: float = 0.0
    """Share of the shortest known distance of two elements
    (:func:`crystalvae.screening.bonds.bond_limits`) that atoms of a refined draw must
    keep; what is closer descends again, and is drawn again, as what is above the limit.
    0 asks for nothing."""
    close_repeats: int = 1
    """Further descents, of ``repeats``, of what came below the limit with too short
    bonds, or has atoms on top of each other: each mends one in fourteen of the former
    and fewer of the latter, a new draft two in five."""

    def __post_init__(self) -> None:
        for name in ("passes", "repeats", "close_repeats"):
            if not 0 <= getattr(self, name) <= MOST:
                raise ConfigError(f"{name} goes from 0 to {MOST}")
        if not 1 <= self.levels <= MOST_LEVELS:
            raise ConfigError(f"levels goes from 1 to {MOST_LEVELS}")
        for name in ("noise", "strain", "repeat_noise", "repeat_strain"):
            if not LEAST_NOISE <= getattr(self, name) <= MOST_NOISE:
                raise ConfigError(f"{name} goes from {LEAST_NOISE} to {MOST_NOISE:g}")
        if self.limit is not None and not self.limit > 0:
            raise ConfigError("limit is above 0")
        if not 0 <= self.bonds <= 1:
            raise ConfigError("bonds is a share from 0 to 1")

    def doubts(self, residual: Tensor) -> Tensor:
        """Which residuals are above the limit, or infinite, or of too short bonds."""
        limit = math.inf if self.limit is None else self.limit
        doubted = (residual > limit) | residual.isinf()
        return doubted | (residual >= TOO_SHORT) if self.bonds else doubted

    def stuck(self, residual: Tensor) -> Tensor:
        """Which residuals have only atoms against them that are too close."""
        limit = math.inf if self.limit is None else self.limit
        arrived = (residual >= TOO_SHORT) & (residual - TOO_SHORT <= limit)
        return arrived | residual.isinf()


@dataclass(frozen=True)
class Held:
    """What drafts keep of an earlier one instead of drawing it."""

    element: Tensor
    """Elements of the compositions ``(B, C)``."""
    count: Tensor
    """Their counts ``(B, C)``."""
    number: Tensor
    """Space-group numbers ``(B,)``."""
    composition_held: Tensor
    """Which crystals keep their composition ``(B,)``."""
    group_held: Tensor
    """Which of these keep their group as well ``(B,)``."""


@dataclass
class Generated:
    """Decoded crystals as padded tensors."""

    number: Tensor
    """Space-group numbers ``(B,)``."""
    lattice: Tensor
    """Conventional lattices, Cholesky form, Å, ``(B, 3, 3)``."""
    num_sites: Tensor
    """Sites placed ``(B,)``."""
    wyckoff: Tensor
    """``(B, S)``."""
    atomic_numbers: Tensor
    """``(B, S)``."""
    frac_coords: Tensor
    """``(B, S, 3)``."""
    complete: Tensor
    """Whether the composition was used up ``(B,)``."""
    collides: Tensor
    """Whether atoms are too close: a site could not be placed elsewhere, and refining
    did not mend it ``(B,)``."""
    residual: Tensor
    """What the refiner would still change, 0 where it was not asked, infinite where
    refining failed, :data:`TOO_SHORT` more where bonds are too short ``(B,)``."""
    element: Tensor
    """Elements of the composition drawn, 0 for padding, ``(B, C)``."""
    count: Tensor
    """Their counts in the primitive cell ``(B, C)``."""

    def __len__(self) -> int:
        return len(self.number)

    def replace(
        self, rows: Tensor, other: Generated, source: Tensor | None = None
    ) -> None:
        """Overwrite ``rows`` by the crystals ``source`` of ``other``, or by all."""
        source = torch.arange(len(other)) if source is None else source
        for name in self.__dataclass_fields__:
            getattr(self, name)[rows] = getattr(other, name)[source]

    def crystals(self) -> list[AsymmetricUnit | None]:
        """As asymmetric units; None for an incomplete crystal.

        What the group fixes is written anew in double precision: a cell with equal
        axes has them equal to the last digit, a third is a third.
        """
        from crystalvae.crystal import AsymmetricUnit

        tables = symmetry_tables()
        number, size = self.number.tolist(), self.num_sites.tolist()
        complete = self.complete.tolist()
        free = lattice_to_coords(self.lattice.double().cpu())
        system = torch.from_numpy(tables.system[number])
        lattice = coords_to_lattice(complete_coords(free, system)).numpy()
        wyckoff = self.wyckoff.cpu().numpy()
        species = self.atomic_numbers.cpu().numpy()
        place = np.array(number)[:, None], wyckoff
        coords = self.frac_coords.double().cpu().numpy()
        coords = np.einsum("bsij,bsj->bsi", tables.embed[place], coords)
        coords = coords + tables.offset[place]
        coords = coords - np.floor(coords)
        return [
            AsymmetricUnit(
                number=number[i],
                lattice=lattice[i],
                wyckoffs=wyckoff[i, : size[i]],
                atomic_numbers=species[i, : size[i]],
                frac_coords=coords[i, : size[i]],
            )
            if complete[i]
            else None
            for i in range(len(number))
        ]
