"""Draws in batches, each by its number alone, so that processes can share them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing import current_process
from typing import TYPE_CHECKING

import torch

from crystalvae.conditions import Told, told_values
from crystalvae.design.familiar import without_unseen
from crystalvae.design.settings import sampling_defaults, sampling_options
from crystalvae.design.wanted import Wanted, Window
from crystalvae.errors import ConfigError
from crystalvae.generation import Constraints, Refinement, SamplingOptions, generate
from crystalvae.generation.choose import numbered_stream, require_seed
from crystalvae.generation.decode import required_compositions
from crystalvae.generation.options import Held
from crystalvae.parallel import forks, num_cores
from crystalvae.screening.base import CheckResult
from crystalvae.screening.checks import first_failure

if TYPE_CHECKING:
    from crystalvae.crystal import AsymmetricUnit
    from crystalvae.model import CrystalVAE

Checked = tuple["AsymmetricUnit | None", dict[str, CheckResult]]
"""A crystal, None for one that could not be completed, and its checks."""
Latents = Callable[[int, int, torch.Generator], torch.Tensor]

BATCH = {"cpu": 1024, "cuda": 4096}
"""Most latent vectors that are decoded together."""
FEW = 64
"""Draws that are one batch."""
LEAST = 16
"""Fewest latent vectors that are decoded together."""
SPAWN_PAYS = 4096
"""Crystals from which several processes pay where each has to import all anew."""
CANDIDATES = 8
"""Compositions from which one is chosen where elements are required."""
FEWER_CANDIDATES = 3
"""The same where only space groups are."""
SPARE = 1.15
"""Draws for each crystal that is to pass the checks."""


def passing(
    found: Sequence[Checked],
) -> list[tuple[AsymmetricUnit, dict[str, CheckResult]]]:
    """Those of a batch that are complete and have not failed a check."""
    return [
        (crystal, results)
        for crystal, results in found
        if crystal is not None and first_failure(results) is None
    ]


def batch_size_for(
    num: int, *, checked: bool = False, device: torch.device | str = "cpu"
) -> int:
    """Latent vectors to decode together where ``num`` crystals are wanted.

    On a CPU there is one batch or an even number, for cores are mostly even in number.

    Args:
        num: crystals wanted.
        checked: whether some draws will fall, so that a few more are needed.
        device: of the model.
    """
    total = math.ceil(SPARE * num) if checked else num
    if total <= FEW:
        return max(LEAST, total)
    kind = torch.device(device).type
    most, parts = BATCH.get(kind, BATCH["cpu"]), 1 if kind == "cuda" else 2
    return math.ceil(total / (parts * math.ceil(total / (parts * most))))


def workers_for(
    model: CrystalVAE, num: int, batch_size: int, asked: int | None = None
) -> int:
    """Processes in which to draw.

    Args:
        model: the model; on a GPU there is one process, and daemons start no others.
        num: crystals wanted.
        batch_size: latent vectors decoded together.
        asked: what the user wants; None is as many as torch may use threads, where
            starting them saves time.
    """
    if model.device.type != "cpu" or current_process().daemon:
        return 1
    if asked is None:
        if num < SPAWN_PAYS and not forks():
            return 1
        asked = min(num_cores(), torch.get_num_threads())
    return min(asked, math.ceil(num / batch_size))


@dataclass(frozen=True)
class Batches:
    """Batches of draws by their numbers; the n-th one does not depend on the others."""

    model: CrystalVAE
    """The model."""
    seed: int
    """Any integer."""
    batch_size: int
    """Latent vectors decoded together."""
    beta: float
    """The knob."""
    options: SamplingOptions
    """How to draw."""
    refinement: Refinement
    """How to refine."""
    conditions: Told = field(default_factory=dict)
    """What the decoder is told."""
    constraints: Constraints | None = None
    """What must hold."""
    prior: str | None = None
    """``gaussian`` or ``flow``; None is the model's own."""
    latents: Latents | None = None
    """What gives the latent vectors; None draws them from the prior."""
    checks: Callable[[AsymmetricUnit], dict[str, CheckResult]] | None = None
    """What is asked of each crystal; None leaves it out."""
    wanted: Wanted = field(default_factory=Wanted)
    """What networks should say of those that pass."""

    def __call__(self, number: int) -> list[Checked]:
        """Crystals, None for one that could not be completed, and their checks."""
        generator = numbered_stream(self.seed, number)
        compositions = None
        if self.latents is None:
            z, told, compositions = self._from_prior(generator)
        else:
            first = number * self.batch_size
            z = self.latents(first, self.batch_size, generator)
            told = self._told(len(z), generator)
        crystals = generate(
            self.model,
            z,
            beta=self.beta,
            told=told,
            options=self.options,
            constraints=self.constraints,
            refinement=self.refinement,
            compositions=compositions,
            generator=generator,
        ).crystals()
        if self.checks is None:
            return [(crystal, {}) for crystal in crystals]
        found = [(c, {} if c is None else self.checks(c)) for c in crystals]
        if self.wanted:
            passed = passing(found)
            verdicts = self.wanted.judge(self.model, [crystal for crystal, _ in passed])
            for (_, results), own in zip(passed, verdicts):
                results.update(own)
        return found

    def _from_prior(
        self, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor | None, Held | None]:
        """Latent vectors, what is told, compositions where elements are required."""
        limits = self.constraints or Constraints()
        each = 1
        if limits.composition is None:
            if limits.needs:
                each = CANDIDATES
            elif limits.space_groups is not None:
                each = FEWER_CANDIDATES
        z = self.model.prior_sample(
            self.batch_size * each,
            beta=self.beta,
            generator=generator,
            prior=self.prior,
        )
        told = self._told(len(z), generator)
        if each == 1:
            return z, told, None
        rows, held = required_compositions(
            self.model,
            z,
            self.batch_size,
            beta=self.model.beta_tensor(self.beta, len(z)),
            told=told,
            options=self.options,
            constraints=limits,
            generator=generator,
        )
        return z[rows], None if told is None else told[rows.to(told.device)], held

    def _told(self, size: int, generator: torch.Generator) -> torch.Tensor | None:
        return told_values(
            self.model.config.conditions, self.conditions, size, generator
        )


def batches(
    model: CrystalVAE,
    *,
    seed: int = 0,
    top_p: float = 1.0,
    constraints: Constraints | None = None,
    prior: str | None = None,
    latents: Latents | None = None,
    batch_size: int = BATCH["cpu"],
    checks: Callable[[AsymmetricUnit], dict[str, CheckResult]] | None = None,
    likely_stable: float | None = None,
    within: Mapping[str, Window] | None = None,
    **asked,
) -> Batches:
    """Draws in batches.

    Args:
        model: the model.
        seed: any integer.
        top_p: nucleus of the categorical choices.
        constraints: what must hold.
        prior: ``gaussian`` or ``flow``; None is the model's own.
        latents: from the number of the first draw, how many and a source of noise on
            the CPU to latent vectors, where not from the prior.
        batch_size: latent vectors decoded together.
        checks: what is asked of each crystal.
        likely_stable: least probability of being stable
            (:mod:`crystalvae.stability`) that is asked of those that pass; None asks
            for none.
        within: property that the model's networks estimate → smallest and largest
            value of those that pass, ``{"band_gap": (1.0, 3.0)}``.
        **asked: of :func:`~crystalvae.design.settings.sampling_defaults`: β,
            temperatures, biases, refinement.

    Raises:
        ConfigError: a value is impossible, or the model lacks a network.
    """
    require_seed(seed)
    estimates = Wanted(likely_stable, {} if within is None else within)
    estimates.require(model)
    if estimates and checks is None:
        raise ConfigError("likely_stable and within are checks; use draw_checked")
    how = sampling_defaults(model, likely_stable=likely_stable, **asked)
    wanted = [symbol for symbol, bias in how["element_bias"].items() if bias > 0]
    constraints = without_unseen(model, constraints, wanted)
    return Batches(
        model=model,
        seed=seed,
        batch_size=batch_size,
        beta=how["beta"],
        options=sampling_options(model, how, top_p=top_p),
        refinement=Refinement(**how["refine"]),
        conditions=how["conditions"],
        constraints=constraints,
        prior=prior,
        latents=latents,
        checks=checks,
        wanted=estimates,
    )
