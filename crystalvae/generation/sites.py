"""Decoding the sites: one orbit after the other, never one that cannot be completed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from crystalvae.generation.choose import choose, normal
from crystalvae.generation.options import Generated
from crystalvae.generation.placement import (
    Placement,
    expand_orbits,
    shortest_distances,
)
from crystalvae.generation.prefix import Decoding
from crystalvae.heads.composition import MASKED
from crystalvae.symmetry.completion import can_complete


@dataclass
class _Site:
    """One new site of each active crystal."""

    letter: Tensor
    species: Tensor
    coords: Tensor
    collides: Tensor
    tried: bool = False


class SitePlacer:
    """Places the sites of a batch whose composition, group and lattice are drawn.

    Args:
        run: the decoding so far; its cache and state are used up.
        abandon: leave a crystal incomplete once a site of it was given up.
    """

    def __init__(self, run: Decoding, abandon: bool = False):
        self.run = run
        self.abandon = abandon

    def place_all(self) -> Generated:
        """Place sites until every composition is used up."""
        size, slots = self.run.size, self.run.config.max_sites
        device = self.run.device
        wyckoff = torch.zeros(size, slots, dtype=torch.long, device=device)
        species = torch.zeros_like(wyckoff)
        coords = torch.zeros(size, slots, 3, device=device)
        num_sites = torch.zeros(size, dtype=torch.long, device=device)
        collides = torch.zeros(size, dtype=torch.bool, device=device)
        self.remaining = self.run.total.clone()
        capacity = int(self.run.total.sum(1).max())
        limits = shortest_distances(self.run.options.min_distance)
        self.placement = Placement(self.run.lattice, capacity, limits)
        table = self.run.decoder.position.table()
        keys = self.run.decoder.position.look_up_groups(
            self.run.decoder.wyckoff_head.keys(table), self.run.number
        )
        self.factors = self.run.decoder.species_head.factors(self.run.z)
        rows = torch.arange(size, device=device)[self._keep(self.run.possible)]
        letter = torch.full((size,), -1, dtype=torch.long, device=device)
        element = torch.zeros(size, dtype=torch.long, device=device)
        for slot in range(slots):
            if not len(rows):
                break
            new = self._place(rows, letter, element, table, keys)
            letter[rows], element[rows] = new.letter, new.species
            wyckoff[rows, slot] = new.letter
            species[rows, slot] = new.species
            coords[rows, slot] = new.coords
            num_sites[rows] += 1
            collides[rows] |= new.collides
            left = self.remaining[rows].sum(1) > 0.5
            if self.abandon:
                left &= ~new.collides
            position = self.run.decoder.position.look_up(
                table, self.run.number[rows], new.letter
            )
            token = self.run.decoder.site_tokens(
                position[:, None],
                new.species[:, None],
                new.coords[:, None],
                self.remaining[rows][:, None],
                first=slot,
            )
            token = token + self.run.decoder.site_readout(
                self.run.z[rows], slot + 1, slot + 2
            )
            if slot + 1 < slots:
                order = self._keep(left)
                rows = rows[order]
                if len(rows):
                    self.run.state = self.run.feed(token[order])
            else:
                rows = rows[left]
        return Generated(
            number=self.run.number,
            lattice=self.run.lattice,
            num_sites=num_sites,
            wyckoff=wyckoff,
            atomic_numbers=species,
            frac_coords=coords,
            complete=self.run.possible & (self.remaining.sum(1) < 0.5),
            collides=collides,
            residual=torch.zeros(size, device=device),
            element=self.run.element,
            count=self.run.count,
        )

    def _keep(self, left: Tensor) -> Tensor:
        """Go on with some of the active crystals; gives their new order."""
        order = self.run.cache.drop(~left)
        self.run.state = self.run.state[order]
        self.run.bias = self.run.bias[order]
        return order

    def _place(
        self, rows: Tensor, letter: Tensor, element: Tensor, table: Tensor, keys: Tensor
    ) -> _Site:
        """Draw one site for each active crystal, redrawing what collides."""
        number = self.run.number[rows]
        remaining = self.remaining[rows]
        previous, before = letter[rows], element[rows]
        count = len(rows)
        site = _Site(
            torch.zeros_like(number),
            torch.zeros_like(number),
            torch.zeros(count, 3, device=self.run.device),
            torch.ones(count, dtype=torch.bool, device=self.run.device),
        )
        allowed = self.run.decoder.allowed_letters(number, remaining, previous)
        letter_logits = self.run.decoder.wyckoff_head.logits(
            self.run.state[:, None], self.run.z[rows], keys[rows], allowed[:, None]
        )[:, 0]
        banned = torch.zeros_like(allowed)
        pending = torch.arange(count, device=self.run.device)
        for attempt in range(self.run.options.attempts + 1):
            self._draw_site(
                pending, rows, previous, before, letter_logits, banned, table, site
            )
            orbit, mask = expand_orbits(
                number[pending], site.letter[pending], site.coords[pending]
            )
            hit = self.placement.collides(
                rows[pending], orbit, mask, site.species[pending]
            )
            last = attempt == self.run.options.attempts
            settled = torch.ones_like(hit) if last else ~hit
            done = pending[settled]
            self.placement.add(
                rows[done], orbit[settled], mask[settled], site.species[done]
            )
            site.collides[done] = hit[settled]
            pending = pending[~settled]
            if not len(pending):
                break
            stiff = self.run.tables.dof[number[pending], site.letter[pending]] == 0
            if attempt >= self.run.options.attempts // 2:
                stiff = torch.ones_like(stiff)
            banned[pending[stiff], site.letter[pending[stiff]]] = True
        need = self.run.tables.multiplicity[number, site.letter].float()
        self.remaining[rows, site.species] -= need
        return site

    def _draw_site(
        self,
        pending: Tensor,
        rows: Tensor,
        previous: Tensor,
        before: Tensor,
        letter_logits: Tensor,
        banned: Tensor,
        table: Tensor,
        site: _Site,
    ) -> None:
        """Draw letter, element and coordinates of the pending sites in place.

        Letters that cannot be completed are masked in ``letter_logits`` for good; those
        that only collided are ``banned`` as long as another one can be completed.
        """
        decoder = self.run.decoder
        species_mask = torch.zeros(
            len(pending), self.remaining.shape[1], dtype=torch.bool
        )
        local = torch.arange(len(pending), device=self.run.device)
        while len(local):
            here = pending[local]
            logits = letter_logits[here].masked_fill(banned[here], MASKED)
            exhausted = (logits.amax(1) <= MASKED / 2)[:, None]
            drawn = self.run.draw(
                "wyckoff", torch.where(exhausted, letter_logits[here], logits)
            )
            site.letter[here] = drawn
            mask = self._feasible(rows[here], drawn, previous[here], before[here])
            species_mask[local.cpu()] = mask
            stuck = ~mask.any(1).to(self.run.device)
            letter_logits[here[stuck], drawn[stuck]] = MASKED
            hopeless = letter_logits[here].amax(1) <= MASKED / 2
            if bool(hopeless.any()):
                raise RuntimeError("no position can complete a composition")
            local = local[stuck]
        number, letter = self.run.number[rows[pending]], site.letter[pending]
        position = decoder.position.look_up(table, number, letter)
        state = self.run.state[pending]
        logits = decoder.species_head.logits(
            state,
            self.factors[rows[pending]],
            position,
            species_mask.to(self.run.device),
        )
        site.species[pending] = self.run.draw("species", logits)
        context = torch.cat(
            [state, position, decoder.species(site.species[pending])], -1
        )
        coords = torch.zeros(len(pending), 3, device=self.run.device)
        temperature = self.run.options.of("coords")
        if bool(site.tried):
            temperature = max(temperature, 0.5)
        for axis in range(3):
            free = self.run.tables.free[number, letter, axis].nonzero().squeeze(1)
            if not len(free):
                continue
            log_weight, mean, log_scale = decoder.coordinate_head.parameters_of(
                axis, context[free], coords[free]
            )
            component = choose(
                log_weight, temperature, self.run.options.top_p, self.run.generator
            )[:, None]
            value = normal(
                mean.gather(1, component)[:, 0],
                log_scale.gather(1, component)[:, 0],
                temperature,
                self.run.generator,
            )
            coords[free, axis] = value - torch.floor(value)
        site.coords[pending] = self.run.tables.project(number, letter, coords)
        site.tried = True

    def _feasible(
        self, rows: Tensor, letter: Tensor, previous: Tensor, before: Tensor
    ) -> Tensor:
        """Elements with which the rest can still be completed, ``(M, 119)``, on CPU."""
        need = self.run.tables.multiplicity[self.run.number[rows], letter].tolist()
        remaining = self.remaining[rows].cpu()
        mask = torch.zeros(remaining.shape, dtype=torch.bool)
        columns = [row[row > 0].tolist() for row in self.run.element[rows].cpu()]
        numbers, letters = self.run.number[rows].tolist(), letter.tolist()
        for i, (group, mark, same, last) in enumerate(
            zip(numbers, letters, (letter == previous).tolist(), before.tolist())
        ):
            amounts = [round(float(remaining[i, z])) for z in columns[i]]
            for place, z in enumerate(columns[i]):
                if amounts[place] < need[i] or (same and z < last):
                    continue
                rest = amounts.copy()
                rest[place] -= need[i]
                mask[i, z] = can_complete(group, mark, place, tuple(rest))
        return mask
