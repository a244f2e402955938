"""Encode structures and decode them again."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from crystalvae.batch import CrystalStore
from crystalvae.design.invert import SearchOptions, invert
from crystalvae.generation import generate

if TYPE_CHECKING:
    from crystalvae.crystal import AsymmetricUnit
    from crystalvae.model import CrystalVAE


def reconstruct(
    model: CrystalVAE,
    crystals: Sequence[AsymmetricUnit],
    *,
    beta: float | None = None,
    search: SearchOptions | None = None,
    batch_size: int = 512,
    advance: Callable[[int], object] | None = None,
) -> list[AsymmetricUnit | None]:
    """Reconstruction from the posterior's mean.

    Args:
        model: the model.
        crystals: asymmetric units.
        beta: the knob; None keeps most detail.
        search: look for the crystal that has this encoding, see
            :func:`crystalvae.design.invert.invert`; None decodes greedily in one pass.
        batch_size: crystals at a time.
        advance: called with the number of crystals done.

    Returns:
        Reconstructions in order, None for one that could not be completed.
    """
    found: list[AsymmetricUnit | None] = []
    if not crystals:
        return found
    store = CrystalStore.from_crystals(crystal.canonical() for crystal in crystals)
    generator = torch.Generator().manual_seed(0)
    for index in torch.arange(len(store)).split(batch_size):
        batch = store.batch(index).to(model.device)
        with torch.no_grad():
            betas = model.beta_tensor(beta, len(index))
            mean = model.encode_batch(batch, betas).mu
        if search is None:
            found += generate(model, mean, beta=betas, generator=generator).crystals()
        else:
            best = invert(model, mean, beta=betas, search=search)
            found += [None if b is None else b.crystal for b in best]
        if advance is not None:
            advance(len(index))
    return found


def encoding_gaps(
    model: CrystalVAE,
    crystals: Sequence[AsymmetricUnit],
    found: Sequence[AsymmetricUnit | None],
    *,
    beta: float | None = None,
) -> list[float]:
    """Euclidean distances of the encodings of crystals and their reconstructions.

    Nearly nothing certifies a reconstruction without any look at the crystal itself.

    Args:
        model: the model.
        crystals: what was encoded.
        found: what :func:`reconstruct` made of each.
        beta: the knob that it was given.

    Returns:
        One a crystal; infinite where there is no reconstruction.
    """
    gaps = [math.inf] * len(crystals)
    rows = [row for row, crystal in enumerate(found) if crystal is not None]
    if rows:
        first, second = (
            model.encode([own[row] for row in rows], beta=beta).mu
            for own in (crystals, found)
        )
        for row, gap in zip(rows, (first - second).norm(dim=1).tolist()):
            gaps[row] = gap
    return gaps
