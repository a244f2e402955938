"""Encode structures and decode them again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from crystalvae.batch import CrystalStore
from crystalvae.generation import generate

if TYPE_CHECKING:
    from crystalvae.crystal import AsymmetricUnit
    from crystalvae.model import CrystalVAE


def reconstruct(
    model: CrystalVAE,
    crystals: Sequence[AsymmetricUnit],
    *,
    beta: float | None = None,
    batch_size: int = 512,
) -> list[AsymmetricUnit | None]:
    """Greedy reconstruction from the posterior's mean.

    Args:
        model: the model.
        crystals: asymmetric units in canonical form.
        beta: the knob; None keeps most detail.
        batch_size: crystals at a time.

    Returns:
        Reconstructions in order, None for one that could not be completed.
    """
    store = CrystalStore.from_crystals(crystals)
    found: list[AsymmetricUnit | None] = []
    generator = torch.Generator().manual_seed(0)
    for index in torch.arange(len(store)).split(batch_size):
        batch = store.batch(index).to(model.device)
        with torch.no_grad():
            betas = model.beta_tensor(beta, len(index))
            mean = model.encode_batch(batch, betas).mu
        found += generate(model, mean, beta=betas, generator=generator).crystals()
    return found
