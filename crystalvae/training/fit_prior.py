"""Fit the flow prior to a trained model's aggregated posterior."""

from __future__ import annotations

import dataclasses
import math

import torch
from tqdm import tqdm

from crystalvae.batch import CrystalStore
from crystalvae.model import CrystalVAE
from crystalvae.pretrained import NETWORKS


def fit_prior(
    model: CrystalVAE,
    store: CrystalStore,
    *,
    steps: int = 3000,
    batch_size: int = 512,
    learning_rate: float = 1e-3,
    beta_low: float = 0.05,
    num_betas: int = 6,
    seed: int = 0,
    progress: bool = False,
) -> CrystalVAE:
    """A copy of a model that carries a fitted :class:`~crystalvae.prior.LatentFlow`.

    Posteriors of all crystals are computed at a few β between ``beta_low`` and the
    largest; the flow is trained on draws from them.

    Args:
        model: a trained model.
        store: its training crystals.
        steps: optimiser steps.
        batch_size: draws a step.
        learning_rate: peak of a cosine schedule.
        beta_low: smallest β at which the prior is to be used.
        num_betas: β values at which posteriors are computed.
        seed: everything random follows from it.
        progress: show a bar on stderr.
    """
    prior = dataclasses.replace(model.config.prior, name="flow")
    fitted = CrystalVAE(dataclasses.replace(model.config, prior=prior))
    fitted.load_state_dict(model.state_dict(), strict=False)
    for name in NETWORKS:
        setattr(fitted, name, getattr(model, name))
    fitted = fitted.to(model.device).eval()
    fitted.card = dict(model.card)
    latent = model.config.latent
    high = latent.beta_max
    beta_low = min(max(beta_low, latent.beta_min), high)
    ladder = torch.logspace(math.log10(beta_low), math.log10(high), num_betas)
    posteriors = [fitted.encode_store(store, float(beta)) for beta in ladder]
    means = torch.stack([p.mu for p in posteriors])
    scales = torch.stack([(0.5 * p.logvar).exp() for p in posteriors])
    flow = fitted.prior.train()
    optimizer = torch.optim.AdamW(flow.parameters(), learning_rate, weight_decay=1e-2)
    generator = torch.Generator().manual_seed(seed)
    for step in tqdm(range(steps), unit="step", disable=None if progress else True):
        share = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * share
        which = torch.randint(num_betas, (batch_size,), generator=generator)
        index = torch.randint(len(store), (batch_size,), generator=generator)
        mean, scale = means[which, index], scales[which, index]
        noise = torch.randn(mean.shape, generator=generator).to(mean.device)
        loss = flow.loss(mean + scale * noise, ladder[which].to(mean.device), generator)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(flow.parameters(), 1.0)
        optimizer.step()
    flow.eval()
    return fitted
