"""In how many bits to compute."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def fast_products(device: torch.device) -> Iterator[None]:
    """TF32 products on a GPU; geometry outside the model keeps all its digits."""
    before = torch.get_float32_matmul_precision()
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def resolve_precision(precision: str, accelerator: str) -> str:
    """What ``auto`` stands for on this machine; anything else is returned as it is.

    Args:
        precision: of :class:`TrainingConfig`.
        accelerator: Fabric's accelerator, not ``auto``.
    """
    if precision != "auto":
        return precision
    if accelerator == "cuda":
        return "32-true"
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return "bf16-mixed" if supported() else "32-true"
