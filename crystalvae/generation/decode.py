"""The decoding loop: composition, space group, lattice, sites, with look-ahead."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from crystalvae.generation.choose import choose, normal
from crystalvae.generation.placement import Placement, expand_orbits
from crystalvae.geometry.lattice import complete_coords, coords_to_lattice
from crystalvae.heads.composition import MASKED
from crystalvae.symmetry.completion import can_complete

if TYPE_CHECKING:
    from crystalvae.crystal import AsymmetricUnit
    from crystalvae.model import CrystalVAE


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
    attempts: int = 10
    """Redraws of a site that collides, before it is given up."""
    restarts: int = 3
    """Times that a crystal in which a site was given up is decoded anew from its z."""
    min_distance: float = 0.7
    """Shortest distance allowed while placing, Å."""
    radius_share: float = 0.6
    """Shortest distance allowed as a share of the sum of covalent radii."""

    def of(self, part: str) -> float:
        """Temperature of a part."""
        return self.part_temperature.get(part, self.temperature)


@dataclass(frozen=True)
class Constraints:
    """What every crystal must obey, as masks on the choices."""

    composition: dict[int, int] | None = None
    """Atomic number → count in the primitive cell."""
    elements: frozenset[int] | None = None
    """Atomic numbers that may occur."""
    space_groups: frozenset[int] | None = None
    """Space-group numbers that may occur."""
    min_atoms: int = 1
    """Fewest atoms in the primitive cell."""
    max_atoms: int | None = None
    """Most atoms in the primitive cell."""


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
    """Whether a site had to be placed too close to another ``(B,)``."""

    def __len__(self) -> int:
        return len(self.number)

    def replace(self, rows: Tensor, other: Generated) -> None:
        """Overwrite ``rows`` by the crystals of ``other``."""
        for name in self.__dataclass_fields__:
            getattr(self, name)[rows] = getattr(other, name)

    def crystals(self) -> list[AsymmetricUnit | None]:
        """As asymmetric units; None for an incomplete crystal."""
        from crystalvae.crystal import AsymmetricUnit

        number, size = self.number.tolist(), self.num_sites.tolist()
        complete = self.complete.tolist()
        lattice = self.lattice.double().cpu().numpy()
        wyckoff = self.wyckoff.cpu().numpy()
        species = self.atomic_numbers.cpu().numpy()
        coords = self.frac_coords.double().cpu().numpy()
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


@torch.no_grad()
def generate(
    model: CrystalVAE,
    z: Tensor,
    *,
    beta: float | Tensor | None = None,
    options: SamplingOptions | None = None,
    constraints: Constraints | None = None,
    generator: torch.Generator | None = None,
) -> Generated:
    """Decode latent vectors.

    Args:
        model: the model.
        z: latent vectors ``(B, D)``.
        beta: the β that the vectors were made for; None is the smallest.
        options: how to draw.
        constraints: what must hold.
        generator: source of randomness, on the CPU.
    """
    z = z.to(model.device)
    beta = model.beta_tensor(beta, len(z))
    options, constraints = options or SamplingOptions(), constraints or Constraints()

    def decode(rows: Tensor, how: SamplingOptions) -> Generated:
        decoding = _Decoding(model, z[rows], beta[rows], how, constraints, generator)
        decoding.compositions()
        decoding.groups()
        decoding.lattices()
        return decoding.sites()

    found = decode(torch.arange(len(z), device=z.device), options)
    for _ in range(options.restarts if options.temperature > 0 else 0):
        rows = (found.collides | ~found.complete).nonzero().squeeze(1)
        if not len(rows):
            break
        found.replace(rows, decode(rows, options))
    return found


class _Decoding:
    """State of one batch while it is decoded."""

    def __init__(self, model, z, beta, options, constraints, generator):
        self.decoder = model.decoder.eval()
        self.tables = model.tables
        self.options = options
        self.constraints = constraints
        self.generator = generator
        self.z = self.decoder.gated(z, beta)
        self.bias = self.decoder.bias(self.z)
        config = self.decoder.config
        self.config = config
        self.size = len(z)
        self.device = z.device
        length = config.num_prefix + config.max_elements + 3 + config.max_sites
        tokens = self.decoder.prefix_tokens(self.z, beta) + self.bias[:, None]
        self.cache = self.decoder.transformer.new_cache(self.size, length, tokens)
        self.state = self.decoder.transformer.step(tokens, self.cache)

    def _draw(self, part: str, logits: Tensor) -> Tensor:
        options = self.options
        return choose(logits, options.of(part), options.top_p, self.generator)

    def _feed(self, token: Tensor, valid: Tensor | None = None) -> Tensor:
        token = token + self.bias[:, None]
        return self.decoder.transformer.step(token, self.cache, valid)

    def compositions(self) -> None:
        """Draw elements and counts until every crystal has stopped."""
        head, limits = self.decoder.composition_head, self.constraints
        done = torch.zeros(self.size, dtype=torch.bool, device=self.device)
        total = torch.zeros(self.size, dtype=torch.long, device=self.device)
        previous, elements, counts = total.clone(), [], []
        self.group_state = self.state.clone()
        fixed = sorted((limits.composition or {}).items())
        slots = self.decoder._slots("composition", self.config.max_elements + 1)
        for step in range(self.config.max_elements + 1):
            if limits.composition is not None:
                z, n = fixed[step] if step < len(fixed) else (0, 0)
                element, count = torch.full_like(total, z), torch.full_like(total, n)
            else:
                logits = head.element_logits(self.state, self.z, previous)
                logits = self._limit_elements(logits, total, step)
                element = self._draw("element", logits)
                counts_of = head.count_logits(self.state, self.z, element)
                logits = self._limit_counts(counts_of, logits, element, total, step)
                count = self._draw("count", logits)
            element = element.masked_fill(done, 0)
            count = count.masked_fill(element == 0, 0)
            token = self.decoder.species(element) + self.decoder.count(count)
            self.state = self._feed((token + slots[step])[:, None], ~done)
            stopped = (element == 0) & ~done
            self.group_state[stopped] = self.state[stopped]
            done |= element == 0
            total += count
            previous = element
            elements.append(element)
            counts.append(count)
            if bool(done.all()):
                break
        self.element = torch.stack(elements, 1)
        self.count = torch.stack(counts, 1)

    def _limit_elements(self, logits: Tensor, total: Tensor, step: int) -> Tensor:
        limits = self.constraints
        if limits.elements is not None:
            banned = torch.ones(logits.shape[1], dtype=torch.bool, device=self.device)
            banned[[0, *limits.elements]] = False
            logits = logits.masked_fill(banned, MASKED)
        if limits.max_atoms is not None:
            full = (total >= limits.max_atoms)[:, None]
            logits = torch.where(full, torch.full_like(logits, MASKED), logits)
            logits[:, 0] = torch.where(full[:, 0], 0.0, logits[:, 0])
        if step and limits.min_atoms > 1:
            short = (total < limits.min_atoms) & (logits[:, 1:] > MASKED / 2).any(1)
            logits[:, 0] = torch.where(short, MASKED, logits[:, 0])
        if step == self.config.max_elements:
            logits[:, 1:] = MASKED
            logits[:, 0] = 0.0
        return logits

    def _limit_counts(
        self,
        logits: Tensor,
        element_logits: Tensor,
        element: Tensor,
        total: Tensor,
        step: int,
    ) -> Tensor:
        """Keep within the largest size, and reach the smallest with the last element."""
        limits = self.constraints
        amount = torch.arange(logits.shape[1], device=self.device)
        if limits.max_atoms is not None:
            room = (limits.max_atoms - total).clamp(min=1)
            logits = logits.masked_fill(amount > room[:, None], MASKED)
        if limits.min_atoms > 1:
            z = torch.arange(element_logits.shape[1], device=self.device)
            later = (element_logits > MASKED / 2) & (z > element[:, None])
            last = ~later.any(1) | (step + 1 >= self.config.max_elements)
            need = torch.where(last, limits.min_atoms - total, torch.ones_like(total))
            need = need.clamp(max=logits.shape[1] - 1)
            logits = logits.masked_fill(amount < need[:, None], MASKED)
        return logits

    def groups(self) -> None:
        """Draw space groups in which the composition can be completed."""
        logits = self.decoder.group_head.logits(self.group_state)
        if self.constraints.space_groups is not None:
            banned = torch.ones(231, dtype=torch.bool, device=self.device)
            banned[list(self.constraints.space_groups)] = False
            logits = logits.masked_fill(banned, MASKED)
        primitive = [
            tuple(n for n in row if n) for row in self.count.cpu().tolist()
        ]
        centring = self.tables.centring.tolist()
        number = torch.ones(self.size, dtype=torch.long, device=self.device)
        self.possible = torch.ones(self.size, dtype=torch.bool, device=self.device)
        pending = torch.arange(self.size, device=self.device)
        while len(pending):
            drawn = self._draw("group", logits[pending])
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
        self.state = self._feed(self.decoder.group_token(number))

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
        complete = complete_coords(sized.double(), system)
        self.lattice = coords_to_lattice(complete).float()
        size_free = torch.cat([complete[:, :3] - scale, complete[:, 3:]], 1).float()
        token = self.decoder.lattice_token(size_free, self.number, self.total)
        self.state = self._feed(token)

    def sites(self) -> Generated:
        """Place sites until every composition is used up."""
        size, slots = self.size, self.config.max_sites
        device = self.device
        wyckoff = torch.zeros(size, slots, dtype=torch.long, device=device)
        species = torch.zeros_like(wyckoff)
        coords = torch.zeros(size, slots, 3, device=device)
        num_sites = torch.zeros(size, dtype=torch.long, device=device)
        collides = torch.zeros(size, dtype=torch.bool, device=device)
        self.remaining = self.total.clone()
        capacity = int(self.total.sum(1).max())
        self.placement = Placement(
            self.lattice,
            capacity,
            self.options.min_distance,
            self.options.radius_share,
        )
        table = self.decoder.position.table()
        keys = self.decoder.group_keys(table, self.number)
        self.factors = self.decoder.species_head.factors(self.z)
        rows = self.possible.nonzero().squeeze(1)
        if len(rows) < size:
            self._keep(rows, torch.arange(size, device=device))
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
            position = table[self.number[rows], new.letter]
            token = self.decoder.site_tokens(
                position[:, None],
                new.species[:, None],
                new.coords[:, None],
                self.remaining[rows][:, None],
                first=slot,
            )
            if slot + 1 < slots:
                keep = left.nonzero().squeeze(1)
                token = token[keep]
                rows = self._keep(keep, rows)
                if len(rows):
                    self.state = self._feed(token)
            else:
                rows = rows[left]
        return Generated(
            number=self.number,
            lattice=self.lattice,
            num_sites=num_sites,
            wyckoff=wyckoff,
            atomic_numbers=species,
            frac_coords=coords,
            complete=self.possible & (self.remaining.sum(1) < 0.5),
            collides=collides,
        )

    def _keep(self, keep: Tensor, rows: Tensor) -> Tensor:
        """Go on with a subset of the active crystals only."""
        if len(keep) < len(rows):
            self.cache.select(keep)
            self.state = self.state[keep]
            self.bias = self.bias[keep]
        return rows[keep]

    def _place(
        self, rows: Tensor, letter: Tensor, element: Tensor, table: Tensor, keys: Tensor
    ) -> _Site:
        """Draw one site for each active crystal, redrawing what collides."""
        number = self.number[rows]
        remaining = self.remaining[rows]
        previous, before = letter[rows], element[rows]
        count = len(rows)
        site = _Site(
            torch.zeros_like(number),
            torch.zeros_like(number),
            torch.zeros(count, 3, device=self.device),
            torch.ones(count, dtype=torch.bool, device=self.device),
        )
        allowed = self.decoder.allowed_letters(number, remaining, previous)
        letter_logits = self.decoder.wyckoff_head.logits(
            self.state[:, None], self.z[rows], keys[rows], allowed[:, None]
        )[:, 0]
        banned = torch.zeros_like(allowed)
        pending = torch.arange(count, device=self.device)
        for attempt in range(self.options.attempts + 1):
            self._draw_site(
                pending, rows, previous, before, letter_logits, banned, table, site
            )
            orbit, mask = expand_orbits(
                number[pending], site.letter[pending], site.coords[pending]
            )
            hit = self.placement.collides(
                rows[pending], orbit, mask, site.species[pending]
            )
            last = attempt == self.options.attempts
            settled = torch.ones_like(hit) if last else ~hit
            done = pending[settled]
            self.placement.add(
                rows[done], orbit[settled], mask[settled], site.species[done]
            )
            site.collides[done] = hit[settled]
            pending = pending[~settled]
            if not len(pending):
                break
            stiff = self.tables.dof[number[pending], site.letter[pending]] == 0
            if attempt >= self.options.attempts // 2:
                stiff = torch.ones_like(stiff)
            banned[pending[stiff], site.letter[pending[stiff]]] = True
        need = self.tables.multiplicity[number, site.letter].float()
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
        decoder = self.decoder
        species_mask = torch.zeros(
            len(pending), self.remaining.shape[1], dtype=torch.bool
        )
        local = torch.arange(len(pending), device=self.device)
        while len(local):
            here = pending[local]
            logits = letter_logits[here].masked_fill(banned[here], MASKED)
            exhausted = (logits.amax(1) <= MASKED / 2)[:, None]
            drawn = self._draw(
                "wyckoff", torch.where(exhausted, letter_logits[here], logits)
            )
            site.letter[here] = drawn
            mask = self._feasible(rows[here], drawn, previous[here], before[here])
            species_mask[local.cpu()] = mask
            stuck = ~mask.any(1).to(self.device)
            letter_logits[here[stuck], drawn[stuck]] = MASKED
            hopeless = letter_logits[here].amax(1) <= MASKED / 2
            if bool(hopeless.any()):
                raise RuntimeError("no position can complete a composition")
            local = local[stuck]
        number, letter = self.number[rows[pending]], site.letter[pending]
        position = table[number, letter]
        state = self.state[pending]
        logits = decoder.species_head.logits(
            state, self.factors[rows[pending]], position, species_mask.to(self.device)
        )
        site.species[pending] = self._draw("species", logits)
        context = torch.cat(
            [state, position, decoder.species(site.species[pending])], -1
        )
        coords = torch.zeros(len(pending), 3, device=self.device)
        temperature = self.options.of("coords")
        if bool(site.tried):
            temperature = max(temperature, 0.5)
        for axis in range(3):
            free = self.tables.free[number, letter, axis].nonzero().squeeze(1)
            if not len(free):
                continue
            log_weight, mean, log_scale = decoder.coordinate_head.parameters_of(
                axis, context[free], coords[free]
            )
            component = choose(
                log_weight, temperature, self.options.top_p, self.generator
            )[:, None]
            value = normal(
                mean.gather(1, component)[:, 0],
                log_scale.gather(1, component)[:, 0],
                temperature,
                self.generator,
            )
            coords[free, axis] = value - torch.floor(value)
        site.coords[pending] = self.tables.project(number, letter, coords)
        site.tried = True

    def _feasible(
        self, rows: Tensor, letter: Tensor, previous: Tensor, before: Tensor
    ) -> Tensor:
        """Elements with which the rest can still be completed, ``(M, 119)``, on CPU."""
        need = self.tables.multiplicity[self.number[rows], letter].tolist()
        remaining = self.remaining[rows].cpu()
        mask = torch.zeros(remaining.shape, dtype=torch.bool)
        columns = [row[row > 0].tolist() for row in self.element[rows].cpu()]
        numbers, letters = self.number[rows].tolist(), letter.tolist()
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


@dataclass
class _Site:
    """One new site of each active crystal."""

    letter: Tensor
    species: Tensor
    coords: Tensor
    collides: Tensor
    tried: bool = False
