"""The decoder: p(crystal | z) as a sequence of choices, each obeying the symmetry.

The order is composition, space group, lattice, sites (design.md §6). The composition
still to be placed enters every step after the group and bounds every choice.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from crystalvae.batch import CrystalBatch
from crystalvae.conditions import ConditionEmbedding
from crystalvae.errors import ConfigError
from crystalvae.heads.composition import CompositionHead
from crystalvae.heads.coordinates import CoordinateHead
from crystalvae.heads.lattice import LatticeHead
from crystalvae.heads.sites import SpeciesHead, WyckoffHead
from crystalvae.heads.space_group import SpaceGroupHead
from crystalvae.latent import (
    ELEMENT_SLOTS,
    SITE_SLOTS,
    BetaFeatures,
    LatentConfig,
    size_free_lattice,
)
from crystalvae.nn.basic import SlotReadout, TorusFourier, rows_of
from crystalvae.nn.transformer import CausalTransformer
from crystalvae.nn.wyckoff import MAX_Z, NUM_LETTERS, WyckoffEmbedding, WyckoffTables

PARTS = ("element", "count", "group", "lattice", "wyckoff", "species", "coords")
LABELS = ("element", "count", "group")
"""Parts that say what a crystal is before its geometry."""
GEOMETRY = ("lattice", "coords")
"""Parts that are continuous."""


@dataclass(frozen=True)
class DecoderConfig:
    """Sizes of the decoder and the largest crystals it can emit."""

    dim: int = 256
    """Width of the transformer."""
    num_layers: int = 4
    """Transformer blocks."""
    num_heads: int = 8
    """Attention heads."""
    num_prefix: int = 2
    """Tokens made of z before the first choice."""
    max_elements: int = 10
    """Largest number of different elements."""
    max_count: int = 64
    """Largest count of an element in the primitive cell."""
    max_sites: int = 40
    """Largest number of symmetry-distinct sites."""
    lattice_components: int = 6
    """Gaussians in the lattice mixture."""
    coord_components: int = 12
    """Wrapped normals in each coordinate's mixture."""

    def fits(self, num_sites: int, composition: dict[int, int]) -> bool:
        """Whether a crystal of so many sites and this composition can be emitted."""
        return (
            num_sites <= self.max_sites
            and len(composition) <= self.max_elements
            and max(composition.values()) <= self.max_count
        )

    def require(self, composition: dict[int, int]) -> None:
        """Refuse a composition that cannot be emitted.

        Raises:
            ConfigError: it is empty or too large.
        """
        if not composition or min(composition.values()) < 1:
            raise ConfigError("a composition needs at least one atom of each element")
        if not self.fits(1, composition):
            raise ConfigError(
                f"a composition of {len(composition)} elements and up to "
                f"{max(composition.values())} atoms of one is too large for this "
                f"model, which has {self.max_elements} and {self.max_count}"
            )


class Decoder(nn.Module):
    """One transformer and the heads of all parts.

    Args:
        config: sizes.
        latent: the latent space that conditions it.
        tables: symmetry tables, shared with the encoder.
        conditions: what it can be told; None is nothing.
    """

    def __init__(
        self,
        config: DecoderConfig,
        latent: LatentConfig,
        tables: WyckoffTables,
        conditions: ConditionEmbedding | None = None,
    ):
        super().__init__()
        self.config = config
        self.tables = tables
        dim = config.dim
        self.beta_features = BetaFeatures(latent)
        self.gate = nn.Linear(BetaFeatures.dim, latent.dim)
        self.conditions = conditions
        self.beta = nn.Linear(BetaFeatures.dim, dim)
        self.prefix = nn.Linear(latent.dim, config.num_prefix * dim)
        self.bias = nn.Linear(latent.dim, dim)
        self.species = nn.Embedding(MAX_Z, dim)
        self.count = nn.Embedding(config.max_count + 1, dim)
        self.group = nn.Embedding(231, dim)
        self.lattice = nn.Linear(6, dim)
        self.position = WyckoffEmbedding(tables, dim)
        self.fourier = TorusFourier()
        self.coords = nn.Linear(3 * self.fourier.dim, dim)
        self.remaining = nn.Linear(2 * MAX_Z, dim)
        self.element_readout = SlotReadout(latent.dim, ELEMENT_SLOTS + 1, 48, dim)
        self.site_readout = SlotReadout(latent.dim, SITE_SLOTS, 64, dim)
        slots = config.num_prefix + config.max_elements + 3 + config.max_sites
        self.slot = nn.Parameter(0.1 * torch.randn(slots, dim))
        self.transformer = CausalTransformer(dim, config.num_layers, config.num_heads)
        self.composition_head = CompositionHead(dim, latent.dim, config.max_count)
        self.group_head = SpaceGroupHead(dim)
        self.lattice_head = LatticeHead(dim, config.lattice_components)
        self.wyckoff_head = WyckoffHead(dim, latent.dim)
        self.species_head = SpeciesHead(dim, latent.dim)
        self.coordinate_head = CoordinateHead(dim, config.coord_components)
        for embedding in (self.species, self.count, self.group):
            nn.init.normal_(embedding.weight, std=0.3)

    def gated(self, z: Tensor, beta: Tensor) -> Tensor:
        """Scale the latent by the decoder's gate for β, ``(B, D)``."""
        return z * 2 * torch.sigmoid(self.gate(self.beta_features(beta)))

    def _slots(self, kind: str, count: int) -> Tensor:
        start = {
            "prefix": 0,
            "composition": self.config.num_prefix,
            "group": self.config.num_prefix + self.config.max_elements + 1,
            "lattice": self.config.num_prefix + self.config.max_elements + 2,
            "site": self.config.num_prefix + self.config.max_elements + 3,
        }[kind]
        return self.slot[start : start + count]

    def prefix_tokens(self, z: Tensor, beta: Tensor) -> Tensor:
        """Tokens of the latent, ``(B, num_prefix, dim)``."""
        tokens = self.prefix(z).view(len(z), self.config.num_prefix, -1)
        tokens = tokens + self.beta(self.beta_features(beta))[:, None]
        return tokens + self._slots("prefix", tokens.shape[1])

    def composition_tokens(self, element: Tensor, count: Tensor) -> Tensor:
        """Tokens of elements and counts (0 for stop), ``(B, C, dim)``."""
        tokens = self.species(element) + self.count(count)
        return tokens + self._slots("composition", element.shape[1])

    def group_token(self, number: Tensor) -> Tensor:
        """Token of the space group, ``(B, 1, dim)``."""
        return self.group(number)[:, None] + self._slots("group", 1)

    def lattice_token(
        self, coords: Tensor, number: Tensor, remaining: Tensor
    ) -> Tensor:
        """Token of the size-free lattice ``(B, 6)``; gives ``(B, 1, dim)``."""
        token = self.lattice(coords) + self.group(number)
        token = token + self.remaining_features(remaining)
        return token[:, None] + self._slots("lattice", 1)

    def site_tokens(
        self,
        position: Tensor,
        atomic_numbers: Tensor,
        frac_coords: Tensor,
        remaining: Tensor,
        first: int = 0,
    ) -> Tensor:
        """Tokens of placed sites.

        Args:
            position: embeddings of the Wyckoff positions ``(B, S, dim)``.
            atomic_numbers: ``(B, S)``.
            frac_coords: ``(B, S, 3)``.
            remaining: atoms still to be placed after each site ``(B, S, 119)``.
            first: index of the first of these sites in its crystal.
        """
        tokens = position + self.species(atomic_numbers)
        tokens = tokens + self.coords(self.fourier(frac_coords))
        tokens = tokens + self.remaining_features(remaining)
        slots = self._slots("site", first + tokens.shape[1])[first:]
        return tokens + slots

    def remaining_features(self, remaining: Tensor) -> Tensor:
        """Embed what is left of each element in the conventional cell."""
        total = remaining.sum(-1, keepdim=True).clamp(min=1)
        features = torch.cat([2 * remaining / total, (1 + remaining).log()], -1)
        return self.remaining(features)

    def add_readouts(
        self, x: Tensor, z: Tensor, real: Tensor, num_sites: int
    ) -> Tensor:
        """Add to each token what the latent says of the element or site that follows.

        Args:
            x: tokens of whole sequences ``(B, L, dim)``.
            z: latent vectors ``(B, D)``.
            real: elements that are there, and one place more for the stop,
                ``(B, C + 1)``.
            num_sites: sites whose places are predicted.
        """
        first = self.config.num_prefix - 1
        elements = self.element_readout(z, 0, real.shape[1]) * real[..., None]
        sites = self.site_readout(z, 0, num_sites)
        gap = x.new_zeros(len(x), 2, x.shape[2])
        lead = x.new_zeros(len(x), first, x.shape[2])
        return x + torch.cat([lead, elements.float(), gap, sites.float()], 1)

    def total_counts(self, element: Tensor, count: Tensor, number: Tensor) -> Tensor:
        """Atoms of each element in the conventional cell, ``(B, 119)`` float."""
        conventional = (count * self.tables.centring[number][:, None]).float()
        table = conventional.new_zeros(len(number), MAX_Z)
        table.scatter_add_(1, element, conventional * (element > 0))
        return table

    def allowed_letters(
        self, number: Tensor, remaining: Tensor, previous: Tensor
    ) -> Tensor:
        """Letters that may follow: in order, not twice without freedom, not too many.

        Args:
            number: ``(..., )`` space-group numbers.
            remaining: ``(..., 119)`` atoms still to place.
            previous: letter of the site before, -1 at the start, ``(...)``.

        Returns:
            Boolean ``(..., 27)``.
        """
        letter = torch.arange(NUM_LETTERS, device=number.device)
        multiplicity = self.tables.multiplicity[number]
        again = (letter == previous[..., None]) & (self.tables.dof[number] == 0)
        fits = multiplicity <= remaining.amax(-1, keepdim=True) + 0.5
        return (multiplicity > 0) & (letter >= previous[..., None]) & ~again & fits

    def allowed_species(
        self,
        need: Tensor,
        remaining: Tensor,
        same_letter: Tensor,
        previous: Tensor,
    ) -> Tensor:
        """Elements with enough atoms left, ascending within a letter.

        Args:
            need: multiplicity of the site ``(...)``.
            remaining: ``(..., 119)``.
            same_letter: whether the site before has the same letter ``(...)``.
            previous: its element ``(...)``.

        Returns:
            Boolean ``(..., 119)``.
        """
        z = torch.arange(MAX_Z, device=need.device)
        enough = remaining > need[..., None] - 0.5
        ordered = (z >= previous[..., None]) | ~same_letter[..., None]
        return enough & ordered

    def forward(
        self,
        batch: CrystalBatch,
        z: Tensor,
        beta: Tensor,
        *,
        told: Tensor | None = None,
        dropout: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Negative log-likelihood of each part in nats per crystal.

        Args:
            batch: the crystals.
            z: latent vectors ``(B, D)``.
            beta: β of each crystal ``(B,)``.
            told: properties of each ``(B, P)``, NaN for what is not told.
            dropout: of the transformer, probability for each crystal ``(B,)``.
            generator: of the dropout, on the CPU.

        Returns:
            ``(B,)`` for each name in :data:`PARTS`.
        """
        config = self.config
        z = self.gated(z, beta)
        if told is not None:
            z = z + self.conditions(told, beta)
        size, slots = batch.site_mask.shape
        num_elements = (batch.comp_element > 0).sum(1)
        number, mask = batch.number, batch.site_mask
        table = self.position.table()
        position = self.position.look_up(table, number[:, None], batch.wyckoff)

        total = self.total_counts(batch.comp_element, batch.comp_count, number)
        placed = total.new_zeros(size, slots, MAX_Z)
        placed.scatter_(
            2, batch.atomic_numbers[..., None], batch.multiplicity[..., None].float()
        )
        placed = placed.cumsum(1) * mask[..., None]
        left = (total[:, None] - placed).clamp(min=0)  # after each site
        before = torch.cat([total[:, None], left[:, :-1]], 1)

        pad = batch.comp_element.new_zeros(size, 1)
        elements = torch.cat([batch.comp_element, pad], 1)
        counts = torch.cat([batch.comp_count, pad], 1)
        lattice = size_free_lattice(batch)
        tokens = [
            self.prefix_tokens(z, beta),
            self.composition_tokens(elements, counts),
            self.group_token(number),
            self.lattice_token(lattice, number, total),
            self.site_tokens(
                position[:, :-1],
                batch.atomic_numbers[:, :-1],
                batch.frac_coords[:, :-1],
                left[:, :-1],
            ),
        ]
        x = torch.cat([t.float() for t in tokens], 1) + self.bias(z).float()[:, None]
        valid = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        first, width = config.num_prefix, elements.shape[1]
        slot = torch.arange(width, device=x.device)
        real = slot <= num_elements[:, None]
        valid[:, first : first + width] = real
        x = self.add_readouts(x, z, real, slots)
        kept = None
        if dropout is not None:
            kept = self.transformer.draw_kept(dropout, generator)
        states = self.transformer(x, valid, kept)

        composition_states = states[:, first - 1 : first - 1 + width]
        rows = torch.arange(size, device=x.device)
        group_state = states[rows, first + num_elements]
        lattice_state = states[:, first + width]
        site_states = states[:, first + width + 1 :]

        element_loss, count_loss = self.composition_head.loss(
            composition_states, z, batch.comp_element, batch.comp_count
        )
        losses = {
            "element": element_loss,
            "count": count_loss,
            "group": self.group_head.loss(group_state, number),
            "lattice": self.lattice_head.loss(
                lattice_state, lattice, self.tables.system[number]
            ),
        }
        place, real = rows_of(mask)
        owner = place // slots

        def of_site(values: Tensor) -> Tensor:
            return values.flatten(0, 1)[place]

        letter, species = of_site(batch.wyckoff), of_site(batch.atomic_numbers)
        start = torch.full_like(batch.wyckoff[:, :1], -1)
        previous = torch.cat([start, batch.wyckoff[:, :-1]], 1)
        previous_species = torch.cat([pad, batch.atomic_numbers[:, :-1]], 1)
        spread = number[:, None].expand(size, slots)
        letters = self.allowed_letters(spread, before, previous)
        elements_allowed = self.allowed_species(
            of_site(batch.multiplicity),
            of_site(before),
            letter == of_site(previous),
            of_site(previous_species),
        )
        keys = self.position.look_up_groups(self.wyckoff_head.keys(table), number)
        state, embedded = of_site(site_states), of_site(position)
        factors = self.species_head.factors(z).index_select(0, owner)
        context = torch.cat(
            [state, embedded.to(state.dtype), self.species(species).to(state.dtype)], -1
        )
        per_site = {
            "wyckoff": self.wyckoff_head.loss(
                site_states, z, keys, letters, letter, place
            ),
            "species": self.species_head.loss(
                state, factors, embedded, elements_allowed, species
            ),
            "coords": self.coordinate_head.loss(
                context,
                of_site(batch.frac_coords),
                self.tables.free[number[owner], letter],
            ),
        }
        for part, value in per_site.items():
            zero = value.new_zeros(size)
            losses[part] = zero.index_add(0, owner, value * real)
        return losses
