"""The training loop: resumable at any step, identical after resuming."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor
from tqdm import tqdm

from crystalvae.batch import CrystalBatch
from crystalvae.decoder import GEOMETRY, LABELS
from crystalvae.errors import CheckpointError, ConfigError
from crystalvae.files import replacing
from crystalvae.model import CrystalVAE
from crystalvae.nn.wyckoff import MAX_Z
from crystalvae.pretrained import resolve_device, save_model, save_networks
from crystalvae.training.augment import disturb, drop_sites, exchange_elements
from crystalvae.training.card import run_card
from crystalvae.training.checkpoint import (
    may_resume,
    read_checkpoint,
    require_finite,
    require_same_data,
    same_config,
    write_checkpoint,
    writing,
)
from crystalvae.training.config import RunConfig
from crystalvae.training.data import epoch_batches, load_sources, require_known
from crystalvae.training.precision import fast_products, resolve_precision
from crystalvae.training.rows import append_row, truncate_rows
from crystalvae.training.schedule import (
    draw_beta,
    draw_told,
    rate_at,
    share_done,
    warn_if_early,
    warn_if_ended,
    warn_if_short,
)
from crystalvae.training.start import learned_conditions, start_from
from crystalvae.training.validation import validate

logger = logging.getLogger(__name__)

KERNELS = "8192"
"""Compiled bfloat16 kernels that oneDNN keeps; a run has some 3,000 shapes, and the
default of 1,024 would compile most of them again and again."""
ENOUGH = 16
"""Validation crystals from which on a posterior can be said to have collapsed."""
NORM_MEMORY = 0.99
"""Share of the running average of the gradient's norm that a step keeps."""


@dataclass
class Progress:
    """Where a run stands."""

    step: int = 0
    """Optimiser steps done."""
    best: float = math.inf
    """Smallest validation loss so far."""
    best_step: int = 0
    """Step at which that was."""
    seconds: float = 0.0
    """Time spent training."""
    gradient_norm: float = 0.0
    """Running average of the gradient's norm."""
    validated: int = 0
    """Step of the last validation."""
    sums: dict[str, float] = field(default_factory=dict)
    """Terms of the loss, added up since then."""


class Trainer:
    """Train a :class:`CrystalVAE` as a config says.

    Args:
        config: the run.
        root: directory that data paths are relative to.
        output: directory for checkpoints, ``metrics.csv`` and the plot.
        accelerator: Fabric's, or ``auto``, which is CUDA if there is one, else the CPU.
    """

    def __init__(
        self, config: RunConfig, root: Path, output: Path, accelerator: str = "auto"
    ):
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", KERNELS)
        self.config = config
        self.output = output
        options = config.training
        if accelerator == "auto":
            accelerator = resolve_device(None).type
        self.fabric = Fabric(
            accelerator=accelerator,
            devices=options.devices,
            precision=resolve_precision(options.precision, accelerator),
        )
        self.fabric.launch()
        torch.manual_seed(options.seed)
        limits = config.model.decoder
        asked = [condition.name for condition in config.model.conditions]
        if not config.data.val:
            raise ConfigError(
                "[data] names no val, which the best model is chosen by; `crystalvae "
                "prepare INPUT -o DATA --hold-out 0.15` makes one"
            )
        self.crystals = load_sources(config.data.train, root, limits, told=asked)
        self.val = load_sources(config.data.val, root, limits, told=asked)
        model = CrystalVAE(config.model)
        self.source: CrystalVAE | None = None
        if config.init is not None:
            self.source = start_from(model, config.init, root)
        learned = learned_conditions(model, self.source)
        require_known(self.crystals, config.model.conditions, learned)
        self.fingerprint = self.crystals.fingerprint()
        self.crystals = self.crystals.to(self.fabric.device)
        self.val = self.val.to(self.fabric.device)
        species = self.crystals.store.comps["comp_element"].cpu()
        self.frequency = torch.bincount(species, minlength=MAX_Z).float().sqrt()
        self.model, self.optimizer = self.fabric.setup(model, self._optimizer(model))
        self.progress = Progress()

    def _optimizer(self, model: CrystalVAE) -> torch.optim.Optimizer:
        options = self.config.training
        matrices = [p for p in model.parameters() if p.dim() > 1]
        vectors = [p for p in model.parameters() if p.dim() <= 1]
        return torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": options.weight_decay},
                {"params": vectors, "weight_decay": 0.0},
            ],
            lr=options.learning_rate,
            betas=(0.9, 0.98),
            fused=True,
        )

    def _step(self, index: Tensor, step: int) -> dict[str, Tensor]:
        options = self.config.training
        batch: CrystalBatch = self.crystals.store.batch(index)
        generator = torch.Generator().manual_seed(
            (options.seed * 1_000_003 + step) * 64 + self.fabric.global_rank
        )
        caps = self.crystals.caps
        beta = draw_beta(caps.all[index], self.config.model.latent, options, generator)
        unlearned = {
            LABELS: (beta > caps.label[index]).to(batch.number.device),
            GEOMETRY: (beta > caps.geometry[index]).to(batch.number.device),
        }
        beta = beta.to(batch.number.device)
        if options.augment_share > 0:
            batch = self._augment(batch, beta, generator)
        told = self.crystals.told
        if told is not None:
            told = draw_told(told[index], self.config.model.conditions, generator)
        noise = torch.randn(batch.distance.shape, generator=generator)
        noisy = batch.distance + options.distance_noise * noise.to(batch.distance)
        batch = dataclasses.replace(batch, distance=noisy.cummax(-1).values)
        dropout = None
        if options.dropout > 0:
            dropout = options.dropout * (beta >= options.beta_high)
        weight = beta
        if options.anneal_steps:
            weight = beta * min(1.0, (step + 1) / options.anneal_steps)
        with fast_products(self.fabric.device):
            objective = self.model(batch, beta, generator, told=told, dropout=dropout)
            kl = objective.posterior.kl(options.free_bits)
            distortion = objective.distortion
            for parts, without in unlearned.items():
                missing = sum(objective.parts[part] for part in parts)
                distortion = distortion - missing * without
            loss = (distortion + weight * kl).mean()
            self.fabric.backward(loss)
        self._clip()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        terms = {part: value.detach().mean() for part, value in objective.parts.items()}
        return {"loss": loss.detach(), **terms, "kl": objective.kl.detach().mean()}

    def _clip(self) -> None:
        """Limit the gradient where it is far larger than usual."""
        average = self.progress.gradient_norm
        limit = self.config.training.clip_ratio * average if average else math.inf
        norm = self.fabric.clip_gradients(
            self.model, self.optimizer, max_norm=limit, error_if_nonfinite=False
        )
        seen = min(float(norm), limit)
        if math.isfinite(seen):
            share = NORM_MEMORY if average else 0.0
            self.progress.gradient_norm = share * average + (1 - share) * seen

    def _augment(
        self, batch: CrystalBatch, beta: Tensor, generator: torch.Generator
    ) -> CrystalBatch:
        options = self.config.training
        small = beta <= options.augment_beta
        share = options.augment_share

        def some() -> Tensor:
            drawn = torch.rand(len(batch), generator=generator) < share
            return small & drawn.to(small.device)

        tables = self.model.module.tables
        batch = drop_sites(batch, some(), tables.centring, generator)
        batch = exchange_elements(batch, some(), self.frequency, generator)
        return disturb(batch, some(), tables, generator)

    def fit(self, *, progress: bool = False, resume: bool = False) -> Path:
        """Train to the end of the last epoch.

        The best model by validation loss is in ``best``, the last one in ``last``.

        Args:
            progress: show a bar on stderr.
            resume: go on from ``last.pt`` in the output directory if there is one.

        Returns:
            Directory of the best model.

        Raises:
            CheckpointError: ``last.pt`` is truncated or of another config.
            DataError: the output directory holds another run.
        """
        options = self.config.training
        self.output.mkdir(parents=True, exist_ok=True)
        last = self.output / "last.pt"
        if may_resume(last, resume):
            self._load(last)
        if self.fabric.is_global_zero:
            truncate_rows(self.output / "metrics.csv", self.progress.step)
            with replacing(self.output / "config.json") as partial:
                config = dataclasses.asdict(self.config)
                partial.write_text(json.dumps(config, indent=1), encoding="utf-8")
        world = self.fabric.world_size
        per_epoch = len(self._batches(0))
        total = per_epoch * options.epochs
        warn_if_short(total, options)
        bar = tqdm(
            total=total,
            initial=self.progress.step,
            disable=None if progress else True,
            unit="step",
        )
        start = self.progress.step
        began = time.perf_counter() - self.progress.seconds
        sums: dict[str, Tensor | float] = dict(self.progress.sums)
        window, crystals = time.perf_counter(), 0
        first = start // per_epoch
        if start > self.progress.validated and start % per_epoch == 0:
            first -= 1  # whose end may still have to be judged
        for epoch in range(first, options.epochs):
            batches = self._batches(epoch)
            self.model.train()
            for index in batches[self.progress.step - epoch * per_epoch :]:
                step = self.progress.step
                done = share_done(step, total, self.progress.seconds, options)
                if done >= 1:
                    break
                for group in self.optimizer.param_groups:
                    group["lr"] = rate_at(step, done, options)
                terms = self._step(index, step)
                for name, value in terms.items():
                    sums[name] = sums.get(name, 0) + value
                crystals += len(index) * world
                self.progress.step += 1
                self.progress.seconds = time.perf_counter() - began
                bar.update()
                saving = self.progress.step % options.save_every == 0
                if saving or self.progress.step % 20 == 0:
                    require_finite(float(sums["loss"]), f"before step {step + 1}")
                if self.progress.step % 20 == 0:
                    loss = float(terms["loss"])
                    speed = crystals / (time.perf_counter() - window)
                    kl = float(terms["kl"])
                    bar.set_postfix_str(f"loss {loss:.2f} kl {kl:.1f} {speed:.0f}/s")
                if saving:
                    self._save(last, sums)
            steps = self.progress.step - self.progress.validated
            seconds = self.progress.seconds
            over = share_done(self.progress.step, total, seconds, options) >= 1
            if steps and (over or (epoch + 1) % options.validate_every == 0):
                mean = {name: float(value) / steps for name, value in sums.items()}
                require_finite(mean["loss"], f"in epoch {epoch + 1}")
                speed = crystals / (time.perf_counter() - window)
                self._end_of_epoch(epoch, mean, speed)
                self.progress.validated, sums = self.progress.step, {}
                self._save(last, sums)
                window, crystals = time.perf_counter(), 0
            if over:
                break
        warn_if_ended(self.progress.step, total, options)
        warn_if_early(self.progress.best_step, self.progress.step)
        bar.close()
        if self.fabric.is_global_zero:
            if self.model.module.card:
                self._save_model(self.output / "last")
            from crystalvae.training.plots import plot_curves

            plot_curves(self.output / "metrics.csv", self.output / "curves.png")
        return self.output / "best"

    def _batches(self, epoch: int) -> list[Tensor]:
        options = self.config.training
        batches = epoch_batches(
            self.crystals.store.num_sites,
            options.batch_size,
            options.bucket,
            options.seed,
            epoch,
            self.crystals.rows(options.seed, epoch),
        )
        world, rank = self.fabric.world_size, self.fabric.global_rank
        usable = max(1, len(batches) // world) * world
        return batches[:usable][rank::world] or batches[:1]

    def _end_of_epoch(self, epoch: int, mean: dict[str, float], speed: float) -> None:
        report = validate(
            self.model.module, self.fabric, self.val, self.config.data.max_val
        )
        row = {
            "epoch": epoch + 1,
            "step": self.progress.step,
            "minutes": round(self.progress.seconds / 60, 2),
            "crystals_per_second": round(speed, 1),
            **{f"train_{name}": round(value, 4) for name, value in mean.items()},
            **{name: round(value, 4) for name, value in report.items()},
        }
        if not self.fabric.is_global_zero:
            return
        append_row(self.output / "metrics.csv", row)
        logger.info(
            "epoch %d: train %.3f, val %.3f, rate %.1f nats, %d active units, %.0f/s",
            epoch + 1,
            row.get("train_loss", math.nan),
            report["val_loss"],
            report["val_kl_low"],
            report["active_units"],
            speed,
        )
        judged = min(len(self.val.store), self.config.data.max_val)
        if report["active_units"] < 4 and judged >= ENOUGH:
            logger.warning(
                "posterior collapse: only %d latent dimensions are active at the "
                "smallest β; lower latent.beta_min or anneal",
                report["active_units"],
            )
        self.model.module.card = run_card(
            self.config, self.crystals, self.source, row, report
        )
        if report["val_loss"] < self.progress.best:
            self.progress.best = report["val_loss"]
            self.progress.best_step = self.progress.step
            self._save_model(self.output / "best")

    def _save_model(self, directory: Path) -> None:
        with writing(directory):
            if self.source is not None:
                save_networks(self.source, directory)
            save_model(self.model.module, directory, keep=True)

    def _save(self, path: Path, sums: dict[str, Tensor | float]) -> None:
        self.progress.sums = {name: float(value) for name, value in sums.items()}
        if not self.fabric.is_global_zero:
            return
        state = {
            "model": self.model.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "progress": dataclasses.asdict(self.progress),
            "config": json.dumps(dataclasses.asdict(self.config)),
            "data": self.fingerprint,
        }
        write_checkpoint(path, state)

    def _load(self, path: Path) -> None:
        state = read_checkpoint(path, self.fabric.device)
        if not same_config(RunConfig, json.loads(state["config"]), self.config):
            raise CheckpointError(
                f"{path} was made with another config; use that one (config.json "
                "beside it) or another output directory"
            )
        require_same_data(path, state, self.fingerprint)
        self.model.module.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        saved = state["progress"]
        self.progress = Progress(**{"validated": saved["step"], **saved})
