"""Decoding up to the lattice: composition, space group, cell."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from crystalvae.generation.choose import choose, normal
from crystalvae.generation.constraints import Constraints
from crystalvae.generation.options import Held, SamplingOptions
from crystalvae.geometry.lattice import (
    bound_coords,
    complete_coords,
    coords_to_lattice,
)
from crystalvae.heads.composition import MASKED
from crystalvae.nn.wyckoff import MAX_Z
from crystalvae.symmetry.completion import can_complete

if TYPE_CHECKING:
    from crystalvae.model import CrystalVAE


LEAST_TEMPERATURE = 0.05
"""At which probabilities are compared where choices are greedy."""


class Decoding:
    """State of one batch while it is decoded, up to the lattice.

    Args:
        model: the model.
        z: latent vectors ``(B, D)``.
        beta: β of each ``(B,)``.
        options: how to draw.
        constraints: what must hold.
        generator: source of randomness, on the CPU.
        held: what is kept of earlier drafts.
        composition_only: whether nothing but compositions will be decoded.
        told: properties of each ``(B, P)``, NaN for what is not told.
    """

    def __init__(
        self,
        model: CrystalVAE,
        z: Tensor,
        beta: Tensor,
        options: SamplingOptions,
        constraints: Constraints,
        generator: torch.Generator | None,
        held: Held | None = None,
        composition_only: bool = False,
        told: Tensor | None = None,
    ):
        self.decoder = model.decoder.eval()
        self.tables = model.tables
        self.options = options
        self.constraints = constraints
        self.generator = generator
        self.held = held
        counts = constraints.counts_of_one(model.config.decoder.max_count)
        self.least = counts[0] if counts else 1
        self.unfit = None
        if counts is not None:
            size = model.config.decoder.max_count + 1
            self.unfit = torch.ones(size, dtype=torch.bool, device=z.device)
            self.unfit[counts] = False
        needs = constraints.needs
        self.meets = torch.zeros(len(needs), MAX_Z, dtype=torch.bool, device=z.device)
        for row, own in enumerate(needs):
            self.meets[row, list(own)] = True
        latest = [max(own, default=0) for own in needs]
        self.latest = torch.tensor(latest, dtype=torch.long, device=z.device)
        self.missing = self.meets.new_ones(len(z), len(needs))
        self.z = self.decoder.gated(z, beta)
        if told is not None:
            shift = self.decoder.conditions(told, beta)
            self.z = self.z + options.condition_strength * shift
        self.bias = self.decoder.bias(self.z)
        config = self.decoder.config
        self.config = config
        self.size = len(z)
        self.device = z.device
        length = config.num_prefix + config.max_elements + 3
        if not composition_only:
            length += config.max_sites
        tokens = self.decoder.prefix_tokens(self.z, beta) + self.bias[:, None]
        tokens[:, -1:] += self.decoder.element_readout(self.z, 0, 1)
        self.cache = self.decoder.transformer.new_cache(self.size, length, tokens)
        self.state = self.decoder.transformer.step(tokens, self.cache)

    def draw(self, part: str, logits: Tensor) -> Tensor:
        """Draw classes of a part, ``(M,)`` from ``(M, classes)``."""
        options = self.options
        return choose(logits, options.of(part), options.top_p, self.generator)

    def feed(self, token: Tensor, valid: Tensor | None = None) -> Tensor:
        """Append a token ``(B, 1, dim)`` and return the new state ``(B, dim)``."""
        token = token + self.bias[:, None]
        return self.decoder.transformer.step(token, self.cache, valid)

    def compositions(self) -> None:
        """Draw elements and counts until every crystal has stopped."""
        head, limits = self.decoder.composition_head, self.constraints
        done = torch.zeros(self.size, dtype=torch.bool, device=self.device)
        total = torch.zeros(self.size, dtype=torch.long, device=self.device)
        previous, elements, counts = total.clone(), [], []
        self.group_state = self.state.clone()
        self.log_weight = torch.zeros(self.size, device=self.device)
        fixed = sorted((limits.composition or {}).items())
        slots = self.decoder._slots("composition", self.config.max_elements + 1)
        bias = self.options.bias_of_elements().to(self.device)
        for step in range(self.config.max_elements + 1):
            if limits.composition is not None:
                z, n = fixed[step] if step < len(fixed) else (0, 0)
                element, count = torch.full_like(total, z), torch.full_like(total, n)
            else:
                logits = head.element_logits(self.state, self.z, previous) + bias
                if step:
                    logits[:, 0] += self.options.stop_bias
                logits = self._limit_elements(logits, total, step)
                allowed = self._require_elements(logits, total, step)
                self._weigh("element", allowed, logits, ~done)
                element = self.draw("element", allowed)
                counts_of = head.count_logits(self.state, self.z, element)
                logits = self._limit_counts(counts_of, logits, element, total, step)
                allowed = self._leave_room(logits, element, total)
                self._weigh("count", allowed, logits, ~done & (element > 0))
                count = self.draw("count", allowed)
            if self.held is not None:
                keep = self.held.composition_held
                element = torch.where(keep, self.held.element[:, step], element)
                count = torch.where(keep, self.held.count[:, step], count)
            element = element.masked_fill(done, 0)
            count = count.masked_fill(element == 0, 0)
            self.missing = self._missing_after(element)
            token = self.decoder.species(element) + self.decoder.count(count)
            ahead = self.decoder.element_readout(self.z, step + 1, step + 2)
            ahead = ahead * (element > 0)[:, None, None]
            self.state = self.feed((token + slots[step])[:, None] + ahead, ~done)
            stopped = (element == 0) & ~done
            self.group_state[stopped] = self.state[stopped]
            done |= element == 0
            total += count
            previous = element
            elements.append(element)
            counts.append(count)
            if bool(done.all()):
                break
        width = self.config.max_elements + 1 - len(elements)
        pad = (0, width)
        self.element = torch.nn.functional.pad(torch.stack(elements, 1), pad)
        self.count = torch.nn.functional.pad(torch.stack(counts, 1), pad)

    def _limit_elements(self, logits: Tensor, total: Tensor, step: int) -> Tensor:
        limits, elements = self.constraints, self.constraints.allowed
        if elements is not None:
            banned = torch.ones(logits.shape[1], dtype=torch.bool, device=self.device)
            banned[[0, *elements]] = False
            logits = logits.masked_fill(banned, MASKED)
        if limits.max_atoms is not None:
            full = (step > 0) & (total + self.least > limits.max_atoms)[:, None]
            logits = torch.where(full, torch.full_like(logits, MASKED), logits)
            logits[:, 0] = torch.where(full[:, 0], 0.0, logits[:, 0])
        if step and limits.min_atoms > 1:
            short = (total < limits.min_atoms) & (logits[:, 1:] > MASKED / 2).any(1)
            logits[:, 0] = torch.where(short, MASKED, logits[:, 0])
        if step == self.config.max_elements:
            logits[:, 1:] = MASKED
            logits[:, 0] = 0.0
        return logits

    def _missing_after(self, element: Tensor) -> Tensor:
        """Which needs are still open once an element is there ``(B, R)``."""
        return self.missing & ~self.meets[:, element].T

    def _require_elements(self, logits: Tensor, total: Tensor, step: int) -> Tensor:
        """Neither stop before a need is met nor go past the last chance to meet it."""
        if not len(self.latest):
            return logits
        size = logits.shape[1]
        missing = self.missing.sum(1)
        coming = torch.where(self.missing, self.latest, size).amin(1)[:, None]
        z = torch.arange(size, device=self.device)
        banned = (z > coming) | ((z == 0) & (missing > 0)[:, None])
        tight = missing >= self.config.max_elements - step
        if self.constraints.max_atoms is not None:
            tight |= missing * self.least >= self.constraints.max_atoms - total
        helps = (self.missing[:, :, None] & self.meets[:, :size]).any(1)
        banned |= (tight & (missing > 0))[:, None] & ~helps
        logits = logits.masked_fill(banned, MASKED)
        # what is required comes, however unlikely
        lost = (logits.amax(1) <= MASKED / 2) & (missing > 0)
        rows = lost.nonzero().squeeze(1)
        logits[rows, coming[rows, 0]] = 0.0
        return logits

    def _leave_room(self, logits: Tensor, element: Tensor, total: Tensor) -> Tensor:
        """Leave an atom, or as many as a group needs, for each need that is open."""
        if not len(self.latest) or self.constraints.max_atoms is None:
            return logits
        room = self.constraints.max_atoms - total
        room = room - self.least * self._missing_after(element).sum(1)
        amount = torch.arange(logits.shape[1], device=self.device)
        room = room.clamp(min=self.least)
        return logits.masked_fill(amount > room[:, None], MASKED)

    def _weigh(self, part: str, allowed: Tensor, free: Tensor, rows: Tensor) -> None:
        """Note how much of the probability requirements left to a choice."""
        if len(self.latest):
            cold = max(self.options.of(part), LEAST_TEMPERATURE)
            kept = (allowed / cold).logsumexp(1) - (free / cold).logsumexp(1)
            self.log_weight += kept.clamp(max=0).masked_fill(~rows, 0.0)

    def _limit_counts(
        self,
        logits: Tensor,
        element_logits: Tensor,
        element: Tensor,
        total: Tensor,
        step: int,
    ) -> Tensor:
        """Keep within the largest size; reach the smallest with the last element."""
        limits = self.constraints
        amount = torch.arange(logits.shape[1], device=self.device)
        if limits.max_atoms is not None:
            room = (limits.max_atoms - total).clamp(min=self.least)
            logits = logits.masked_fill(amount > room[:, None], MASKED)
        if limits.min_atoms > 1:
            z = torch.arange(element_logits.shape[1], device=self.device)
            later = (element_logits > MASKED / 2) & (z > element[:, None])
            last = ~later.any(1) | (step + 1 >= self.config.max_elements)
            need = torch.where(last, limits.min_atoms - total, torch.ones_like(total))
            need = need.clamp(max=logits.shape[1] - 1)
            logits = logits.masked_fill(amount < need[:, None], MASKED)
        if self.unfit is not None:
            fitting = logits.masked_fill(self.unfit, MASKED)
            hopeless = (fitting.amax(1) <= MASKED / 2)[:, None]
            logits = torch.where(hopeless, logits, fitting)
        return logits

    def groups(self) -> None:
        """Draw space groups in which the composition can be completed."""
        logits = self.decoder.group_head.logits(self.group_state)
        if self.constraints.space_groups is not None:
            banned = torch.ones(231, dtype=torch.bool, device=self.device)
            banned[list(self.constraints.space_groups)] = False
            logits = logits.masked_fill(banned, MASKED)
        primitive = [tuple(n for n in row if n) for row in self.count.cpu().tolist()]
        centring = self.tables.centring.tolist()
        number = torch.ones(self.size, dtype=torch.long, device=self.device)
        size = self.count.sum(1)
        self.possible = size >= self.constraints.min_atoms
        if self.constraints.max_atoms is not None:
            self.possible &= size <= self.constraints.max_atoms
        pending = torch.arange(self.size, device=self.device)
        if self.held is not None:
            keep = self.held.group_held
            number = torch.where(keep, self.held.number, number)
            pending = pending[~keep]
        while len(pending):
            drawn = self.draw("group", logits[pending])
            number[pending] = drawn
            hopeless = logits[pending].amax(-1) <= MASKED / 2
            self.possible[pending[hopeless]] = False
            again = [
                not over
                and not can_complete(
                    group, -1, 0, tuple(n * centring[group] for n in primitive[row])
                )
                for row, group, over in zip(
                    pending.tolist(), drawn.tolist(), hopeless.tolist()
                )
            ]
            retry = pending[torch.tensor(again, device=self.device)]
            logits[retry, number[retry]] = MASKED
            pending = retry
        number[~self.possible] = 1
        self.number = number
        self.total = self.decoder.total_counts(self.element, self.count, number)
        self.state = self.feed(self.decoder.group_token(number))

    def lattices(self) -> None:
        """Draw lattices and complete them by symmetry."""
        log_weight, mean, log_scale = self.decoder.lattice_head.parameters_of(
            self.state
        )
        temperature = self.options.of("lattice")
        component = choose(log_weight, temperature, generator=self.generator)
        rows = torch.arange(self.size, device=self.device)
        coords = normal(
            mean[rows, component],
            log_scale[rows, component],
            temperature,
            self.generator,
        )
        system = self.tables.system[self.number]
        atoms = self.total.sum(1).clamp(min=1)
        scale = atoms.log()[:, None] / 3
        sized = torch.cat([coords[:, :3] + scale, coords[:, 3:]], 1)
        complete = complete_coords(bound_coords(sized.double()), system)
        self.lattice = coords_to_lattice(complete).float()
        size_free = torch.cat([complete[:, :3] - scale, complete[:, 3:]], 1).float()
        token = self.decoder.lattice_token(size_free, self.number, self.total)
        token = token + self.decoder.site_readout(self.z, 0, 1)
        self.state = self.feed(token)
