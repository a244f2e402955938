"""What a training run is made of."""

from __future__ import annotations

from dataclasses import dataclass, field

from crystalvae.config import require_at_least
from crystalvae.model_config import ModelConfig

PRECISIONS = ("auto", "32-true", "64-true", "bf16-mixed", "16-mixed")
"""What a run can compute in."""


@dataclass(frozen=True)
class Source:
    """A packed data set, or the part of it that obeys upper limits."""

    path: str = ""
    """Directory made by ``crystalvae prepare``, relative to the config file."""
    at_most: dict[str, float] = field(default_factory=dict)
    """Property name → largest value that is kept; entries without it are dropped."""
    beta_max: float | None = None
    """Largest β at which these crystals are trained. Crystals that should help to
    reconstruct, but not shape what is generated, are kept to small β."""
    label_beta_max: float | None = None
    """Largest β at which their composition and space group are learned. Above it they
    teach what follows from these: cells, positions and coordinates."""
    geometry_beta_max: float | None = None
    """Largest β at which their cells and coordinates are learned. Above it, crystals
    whose geometry is a guess teach compositions, groups and what sits where."""
    columns: dict[str, str] = field(default_factory=dict)
    """Condition of a model, or ``e_above_hull`` for a stability network → the property
    that it is in this set, where the names differ."""
    share: float = 1.0
    """Share of its crystals that an epoch meets, the next ones in the next epoch."""

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"share is above 0 and at most 1, not {self.share}")


@dataclass(frozen=True)
class DataConfig:
    """Where crystals come from."""

    train: list[Source] = field(default_factory=list)
    """Sets to train on, put together."""
    val: list[Source] = field(default_factory=list)
    """Sets to validate on, whole and at all β."""
    max_val: int = 1024
    """At most so many validation crystals, the first of a fixed shuffle."""

    def __post_init__(self) -> None:
        require_at_least(self, 1, "max_val")


@dataclass(frozen=True)
class TrainingConfig:
    """How to train."""

    epochs: int = 30
    """Passes over the training crystals."""
    minutes: float | None = None
    """Longest time to train; the learning rate has come down by then, and the steps
    depend on the machine. None trains all epochs."""
    batch_size: int = 192
    """Crystals in a step."""
    learning_rate: float = 1e-3
    """Peak of the schedule: linear warm-up, then cosine."""
    final_share: float = 0.02
    """Learning rate at the end, as a share of the peak."""
    warmup_steps: int = 300
    """Steps of the linear warm-up."""
    weight_decay: float = 0.02
    """AdamW's decoupled weight decay, on matrices only."""
    clip_ratio: float = 10.0
    """Largest gradient norm, as a multiple of its running average. An absolute limit
    that acts often would weigh batches of large crystals, whose gradients are larger,
    less than those of small ones, and the model would generate too small crystals."""
    distance_noise: float = 0.02
    """Standard deviation of the noise on the encoder's distances, Å."""
    beta_min_share: float = 0.3
    """Share of crystals trained at the smallest β. What this and ``beta_high_share``
    leave is drawn log-uniformly from the whole range."""
    beta_high_share: float = 0.0
    """Share of crystals that draw β log-uniformly from ``beta_high`` upwards, where
    the model learns to generate; a crystal with a smaller limit gets its limit."""
    beta_high: float = 0.3
    """Where that range begins."""
    augment_share: float = 0.0
    """Share of crystals at β up to ``augment_beta`` that lose sites, likewise of those
    that get other elements, and of those that get other coordinates and cells."""
    augment_beta: float = 0.1
    """Largest β at which crystals are changed."""
    dropout: float = 0.0
    """Of the decoder's transformer, at β from ``beta_high`` upwards, where the model
    would otherwise learn its training crystals by heart."""
    free_bits: float = 0.0
    """Nats of a latent dimension that cost nothing."""
    anneal_steps: int = 0
    """Steps over which β rises linearly from 0 to its value."""
    bucket: int = 40
    """Batches that are sorted by length together; larger wastes less padding."""
    precision: str = "auto"
    """Lightning Fabric's precision, ``32-true`` or ``bf16-mixed``; ``auto`` takes bf16
    on processors that compute in it, since emulated it is many times slower, and 32 bit
    (TF32 products) on GPUs, which wait for launches and not for products."""
    devices: int = 1
    """Devices of the accelerator."""
    seed: int = 0
    """Everything random follows from it."""
    save_every: int = 500
    """Steps between resumable checkpoints."""
    validate_every: int = 1
    """Epochs between validations; more than 1 where an epoch takes seconds."""

    def __post_init__(self) -> None:
        require_at_least(self, 1, "epochs", "batch_size", "bucket", "devices")
        require_at_least(self, 1, "save_every", "validate_every")
        require_at_least(self, 0, "seed", "warmup_steps", "anneal_steps")
        if self.precision not in PRECISIONS:
            raise ValueError(
                f"precision is one of {', '.join(PRECISIONS)}, not {self.precision!r}"
            )
        if self.minutes is not None and self.minutes <= 0:
            raise ValueError(f"minutes must be positive, not {self.minutes}")
        if self.minutes is not None and self.devices > 1:
            raise ValueError("minutes works on one device only; set epochs instead")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is a share below 1, not {self.dropout}")
        if self.beta_high <= 0:
            raise ValueError(f"beta_high must be positive, not {self.beta_high}")
        if not 0 <= self.beta_min_share <= 1 - self.beta_high_share <= 1:
            raise ValueError(
                "beta_min_share and beta_high_share are shares and add up to at most "
                f"1, not {self.beta_min_share} and {self.beta_high_share}"
            )


@dataclass(frozen=True)
class RunConfig:
    """A training run: data, model and training."""

    data: DataConfig = field(default_factory=DataConfig)
    """Data sets."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """The model."""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    """The optimisation."""
    init: str | None = None
    """Shipped name or directory of a model whose weights are the start."""
