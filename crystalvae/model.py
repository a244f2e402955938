"""CrystalVAE: encoder, latent space and decoder as one model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from inspect import signature
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from crystalvae.batch import CrystalBatch, CrystalStore
from crystalvae.conditions import ConditionEmbedding, Told, told_values
from crystalvae.crystal import AsymmetricUnit
from crystalvae.decoder import PARTS, Decoder
from crystalvae.encoders import ENCODERS, build_encoder, orbit_data
from crystalvae.errors import ConfigError, InvalidStructureError
from crystalvae.latent import Posterior, PosteriorHead
from crystalvae.model_config import ModelConfig
from crystalvae.nn.wyckoff import WyckoffTables
from crystalvae.pretrained import require_network
from crystalvae.prior import LatentFlow

if TYPE_CHECKING:
    from ase import Atoms
    from pymatgen.core import Structure

    from crystalvae.properties.network import PropertyNetwork
    from crystalvae.refinement.network import Refiner
    from crystalvae.stability.network import StabilityNetwork


@dataclass
class Objective:
    """What one batch costs, every term in nats per crystal, ``(B,)``."""

    parts: dict[str, Tensor]
    """Distortion by part of the crystal."""
    kl: Tensor
    """Rate."""
    posterior: Posterior
    """The posterior that was sampled."""

    @property
    def distortion(self) -> Tensor:
        """Sum of the parts, ``(B,)``."""
        return torch.stack([self.parts[part] for part in PARTS]).sum(0)


class CrystalVAE(nn.Module):
    """A β-VAE over crystals whose β is an argument.

    Args:
        config: the shape of the model.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.tables = WyckoffTables()
        encoder_config_type = ENCODERS[config.encoder.name][0]
        try:
            encoder_config = encoder_config_type(**config.encoder.options)
        except TypeError as error:
            raise ConfigError(f"encoder {config.encoder.name!r}: {error}") from error
        self.encoder = build_encoder(config.encoder.name, encoder_config, self.tables)
        self.posterior = PosteriorHead(config.latent, self.tables, self.encoder.out_dim)
        listens = None
        if config.conditions:
            listens = ConditionEmbedding(
                config.conditions, config.latent.dim, config.told_beta
            )
        self.decoder = Decoder(config.decoder, config.latent, self.tables, listens)
        self.prior = (
            LatentFlow(config.prior, config.latent)
            if config.prior.name == "flow"
            else None
        )
        self.card: dict[str, Any] = {}
        self.refiner: Refiner | None = None
        self.stability: StabilityNetwork | None = None
        self.properties: PropertyNetwork | None = None

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    def require_refiner(self) -> Refiner:
        """The model's refiner.

        Raises:
            ConfigError: it has none.
        """
        return require_network(self.refiner, "refiner", "train-refiner")

    def require_stability(self) -> StabilityNetwork:
        """The model's stability network.

        Raises:
            ConfigError: it has none.
        """
        return require_network(self.stability, "stability network", "train-stability")

    def require_properties(self) -> PropertyNetwork:
        """The model's property network.

        Raises:
            ConfigError: it has none.
        """
        name, verb = "property network", "train-properties"
        return require_network(self.properties, name, verb)

    def beta_tensor(self, beta: float | Tensor | None, size: int) -> Tensor:
        """β of each crystal, ``(size,)``; None is the smallest of the trained range.

        Raises:
            ConfigError: a single β lies outside the trained range.
        """
        low, high = self.config.latent.beta_min, self.config.latent.beta_max
        if beta is None:
            beta = low
        if not isinstance(beta, Tensor):
            if not isinstance(beta, Real):
                raise ConfigError(f"beta is a number, not {beta!r}")
            if not low * 0.999 <= beta <= high * 1.001:
                raise ConfigError(
                    f"this model was trained for a beta from {low:g} to {high:g}, "
                    f"not {beta:g}"
                )
            beta = torch.full((size,), float(beta))
        return beta.to(self.device)

    def encode_batch(self, batch: CrystalBatch, beta: Tensor) -> Posterior:
        """q(z | crystal, β) of a batch on the model's device."""
        return self.posterior(self.encoder(orbit_data(batch)), batch, beta)

    def forward(
        self,
        batch: CrystalBatch,
        beta: Tensor,
        generator: torch.Generator | None = None,
        mean: bool = False,
        told: Tensor | None = None,
        dropout: Tensor | None = None,
    ) -> Objective:
        """Encode, draw z (or take the mean) and score the batch.

        Args:
            batch: the crystals.
            beta: β of each ``(B,)``.
            generator: source of the noise.
            mean: use the posterior's mean instead of a draw.
            told: properties of each ``(B, P)`` for the decoder, NaN for what is not
                told.
            dropout: probability for each crystal in the decoder's transformer ``(B,)``.
        """
        posterior = self.encode_batch(batch, beta)
        z = posterior.mu if mean else posterior.sample(generator)
        parts = self.decoder(
            batch, z, beta, told=told, dropout=dropout, generator=generator
        )
        return Objective(parts, posterior.kl(), posterior)

    @torch.no_grad()
    def prior_sample(
        self,
        num: int,
        *,
        beta: float | None = None,
        generator: torch.Generator | None = None,
        prior: str | None = None,
    ) -> Tensor:
        """Draw latent vectors from the prior, ``(num, D)``.

        Args:
            num: how many.
            beta: the knob; None is the largest of the trained range.
            generator: source of the noise, on the CPU.
            prior: ``gaussian`` or ``flow``; None is the model's own.

        Raises:
            ConfigError: the model carries no flow.
        """
        noise = torch.randn(num, self.config.latent.dim, generator=generator)
        noise = noise.to(self.device)
        name = prior or self.config.prior.name
        if name == "gaussian":
            return noise
        if self.prior is None:
            raise ConfigError("this model carries no learned prior; use gaussian")
        beta = self.config.latent.beta_max if beta is None else beta
        return self.prior.transport(noise, self.beta_tensor(beta, num))

    @torch.no_grad()
    def encode(
        self,
        crystals: Sequence[AsymmetricUnit | Structure | Atoms],
        beta: float | None = None,
        batch_size: int = 512,
    ) -> Posterior:
        """Posterior of crystals.

        Args:
            crystals: asymmetric units, pymatgen structures or ASE atoms; all
                descriptions of a crystal give one posterior.
            beta: the knob; None keeps most detail.
            batch_size: crystals at a time.

        Returns:
            Mean and log-variance, ``(len(crystals), D)`` each.

        Raises:
            InvalidStructureError: something is no crystal, or cannot be used.
        """
        if hasattr(crystals, "lattice") or hasattr(crystals, "pbc"):
            raise InvalidStructureError("encode takes a list of crystals, not one")
        crystals = [AsymmetricUnit.canonical_of(crystal) for crystal in crystals]
        if not crystals:
            nothing = torch.zeros(0, self.config.latent.dim, device=self.device)
            return Posterior(nothing, nothing)
        store = CrystalStore.from_crystals(crystals).to(self.device)
        return self.encode_store(store, beta, batch_size)

    @torch.no_grad()
    def encode_store(
        self, store: CrystalStore, beta: float | None = None, batch_size: int = 512
    ) -> Posterior:
        """Posterior of all crystals in a store, as :meth:`encode`."""
        found = []
        for index in torch.arange(len(store)).split(batch_size):
            batch = store.batch(index).to(self.device)
            found.append(self.encode_batch(batch, self.beta_tensor(beta, len(index))))
        return Posterior(
            torch.cat([p.mu for p in found]), torch.cat([p.logvar for p in found])
        )

    @torch.no_grad()
    def log_prob(
        self,
        crystals: Sequence[AsymmetricUnit | Structure | Atoms],
        z: Tensor,
        beta: float | None = None,
        conditions: Told | None = None,
    ) -> dict[str, Tensor]:
        """Log-likelihoods given z in nats, by part and ``total``, ``(crystals,)``.

        Args:
            crystals: to score, as :meth:`encode` takes them.
            z: latent vectors ``(crystals, D)``.
            beta: the knob; None is the smallest of the trained range.
            conditions: property → value that the decoder is told.

        Raises:
            ConfigError: it cannot be told that, or not at this β, or there is not one
                latent vector a crystal.
            InvalidStructureError: a crystal cannot be used, or is larger than the
                decoder can emit.
        """
        if tuple(z.shape) != (len(crystals), self.config.latent.dim):
            raise ConfigError(
                f"{len(crystals)} crystals need latent vectors of the shape "
                f"({len(crystals)}, {self.config.latent.dim}), not {tuple(z.shape)}"
            )
        if not len(crystals):
            return dict.fromkeys([*PARTS, "total"], z.new_zeros(0))
        told = self._told(conditions, beta, len(crystals))
        crystals = [AsymmetricUnit.canonical_of(crystal) for crystal in crystals]
        for crystal in crystals:
            if not self.config.decoder.fits(len(crystal.wyckoffs), crystal.composition):
                raise InvalidStructureError(
                    f"{crystal.formula} is larger than this model can emit"
                )
        batch = CrystalStore.from_crystals(crystals).batch(torch.arange(len(crystals)))
        losses = self.decoder(
            batch.to(self.device),
            z.to(self.device),
            self.beta_tensor(beta, len(crystals)),
            told=told,
        )
        parts = {part: -loss for part, loss in losses.items()}
        return {**parts, "total": torch.stack(list(parts.values())).sum(0)}

    def _told(
        self, conditions: Told | None, beta: float | Tensor | None, size: int
    ) -> Tensor | None:
        if not conditions:
            return None
        beta = self.config.latent.beta_min if beta is None else beta
        self.config.require_heard(conditions, float(torch.as_tensor(beta).min()))
        return told_values(self.config.conditions, conditions, size)

    def decode(
        self, z: Tensor, *, conditions: Told | None = None, **options: Any
    ) -> list[AsymmetricUnit | None]:
        """Decode latent vectors ``(B, D)``; None where a crystal was not completed.

        Args:
            z: latent vectors.
            conditions: property → value that the decoder is told.
            **options: of :func:`crystalvae.generation.generate`; the default is greedy
                decoding at the smallest β.

        Raises:
            ConfigError: these are no latent vectors of this model, or it cannot be told
                that, or not at this β.
        """
        from crystalvae.generation import SamplingOptions, generate

        z, dim = torch.as_tensor(z, dtype=torch.float), self.config.latent.dim
        if z.ndim != 2 or z.shape[1] != dim:
            raise ConfigError(
                f"latent vectors have the shape (B, {dim}), not {tuple(z.shape)}"
            )
        for name in options.keys() - signature(generate).parameters.keys():
            hint = ""
            if name in SamplingOptions.__dataclass_fields__:
                hint = f"; give options=SamplingOptions({name}=...)"
            raise ConfigError(f"decode has no argument {name!r}{hint}")
        if conditions:
            options["told"] = self._told(conditions, options.get("beta"), len(z))
        return generate(self, z, **options).crystals() if len(z) else []

    def sample(
        self,
        num: int,
        *,
        seed: int = 0,
        elements: Iterable[str] | None = None,
        exclude: Iterable[str] | None = None,
        require: Iterable[str] | None = None,
        composition: str | None = None,
        space_groups: Iterable[int | str] | int | str | None = None,
        num_atoms: int | tuple[int, int] | str | None = None,
        unlisted: str | Path | Sequence[AsymmetricUnit] | None = None,
        **options: Any,
    ) -> list[AsymmetricUnit]:
        """Draw crystals that pass the checks.

        Args:
            num: how many.
            seed: any integer; the same gives the same crystals.
            elements: symbols of those that may occur; None is all.
            exclude: symbols of those that must not occur.
            require: symbols of those that must occur; ``Mn/Fe/Co`` is at least one of
                these.
            composition: all atoms of the primitive cell, such as ``Li2Fe2P2O8``.
            space_groups: numbers, ranges or symbols of those that may occur, such as
                ``"62,139-142,R-3m"`` or ``[62, "R-3m"]``; None is all.
            num_atoms: in the primitive cell, the fewest and the most, or ``"4-12"``.
            unlisted: known crystals, or a path of a data set or of anything that
                ``prepare`` reads; what matches one of these is left out.
            **options: ``conditions`` (properties to tell the decoder, such as
                ``{"band_gap": 2.0}``), ``beta``, ``likely_stable`` … of
                :func:`crystalvae.design.batches.batches`, ``num_workers``, ``progress``
                … of :func:`crystalvae.design.sample.draw_checked`.

        Raises:
            ConfigError: the constraints contradict each other or the model, or an
                argument is unknown or impossible.
            CrystalVAEError: they leave no crystal.
        """
        from crystalvae.design.sample import draw
        from crystalvae.generation import Constraints

        asked = Constraints.of(
            elements=elements,
            exclude=exclude,
            require=require,
            composition=composition,
            space_groups=space_groups,
            num_atoms=num_atoms,
        )
        if options.get("constraints") is None:
            options["constraints"] = asked
        elif asked != Constraints():
            raise ConfigError("give constraints, or elements and the like, not both")
        return draw(self, num, seed=seed, unlisted=unlisted, **options)

    def save_pretrained(self, directory: str | Path) -> None:
        """Write ``config.json`` and ``model.safetensors`` (16 bit) to a directory.

        Its refiner, stability and property network go beside them; those that lie
        there are removed where the model has none.
        """
        from crystalvae.pretrained import save_model

        save_model(self, Path(directory))

    @classmethod
    def from_pretrained(
        cls, name: str | Path, device: str | torch.device | None = None
    ) -> CrystalVAE:
        """Load a shipped model by name, or any model from its directory."""
        from crystalvae.pretrained import load_model

        return load_model(name, device)
