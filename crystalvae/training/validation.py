"""Rate, distortion and the health of the latent on validation crystals."""

from __future__ import annotations

import math

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from crystalvae.decoder import PARTS
from crystalvae.latent import Posterior
from crystalvae.model import CrystalVAE
from crystalvae.training.data import Crystals

ACTIVE_VARIANCE = 0.01


def active_units(mu: Tensor) -> int:
    """Dimensions whose posterior mean varies: Var_x(mu) > 0.01, ``mu`` ``(B, D)``.

    Reference: Y. Burda, R. Grosse, R. Salakhutdinov, ICLR 2016, section 4.
    """
    return int((mu.var(0) > ACTIVE_VARIANCE).sum())


def mutual_information(posterior: Posterior, z: Tensor) -> float:
    """Estimate of I(x; z) in nats from B crystals; it cannot exceed log B.

    E[log q(z|x)] - E[log q(z)], with the aggregated posterior q(z) taken as the mixture
    of the B posteriors. Reference: M. D. Hoffman and M. J. Johnson, ELBO surgery,
    NeurIPS workshop 2016, eq. 6.

    Args:
        posterior: of the crystals, ``(B, D)``.
        z: one draw from each, ``(B, D)``.
    """
    inverse = torch.exp(-posterior.logvar)
    square = (
        (z**2) @ inverse.T
        - 2 * z @ (posterior.mu * inverse).T
        + (posterior.mu**2 * inverse).sum(1)
    )
    log_density = -0.5 * (square + posterior.logvar.sum(1))
    aggregate = torch.logsumexp(log_density, 1) - math.log(len(z))
    return float((log_density.diagonal() - aggregate).mean())


@torch.no_grad()
def validate(
    model: CrystalVAE,
    fabric: Fabric,
    crystals: Crystals,
    max_crystals: int,
    batch_size: int = 256,
) -> dict[str, float]:
    """Score validation crystals at the smallest, the middle and the largest β.

    Args:
        model: in any mode; left in eval mode.
        fabric: gives the precision.
        crystals: to validate on.
        max_crystals: at most so many.
        batch_size: crystals at a time.

    Returns:
        ``val_loss`` (mean over the three β of distortion + β rate, nats per crystal),
        ``val_kl_*`` and ``val_distortion_*`` for ``low``, ``mid`` and ``high`` β, every
        part at the smallest β, ``active_units`` and ``mutual_information``.
    """
    model.eval()
    latent = model.config.latent
    betas = {
        "low": latent.beta_min,
        "mid": math.sqrt(latent.beta_min * latent.beta_max),
        "high": latent.beta_max,
    }
    store, known = crystals.store, crystals.told
    order = np.random.default_rng(0).permutation(len(store))[:max_crystals]
    sizes = store.num_sites.cpu().numpy()[order]
    order = torch.from_numpy(order[np.argsort(sizes, kind="stable")])
    report: dict[str, float] = {}
    losses = []
    for name, value in betas.items():
        found, sampled = [], []
        for index in order.split(batch_size):
            batch = store.batch(index)
            generator = torch.Generator().manual_seed(int(index[0]))
            with fabric.autocast():
                beta = model.beta_tensor(value, len(index))
                posterior = model.encode_batch(batch, beta)
                z = posterior.sample(generator)
                told = None if known is None else known[index]
                parts = model.decoder(batch, z, beta, told=told)
            found.append((parts, posterior))
            sampled.append(z)
        posterior = Posterior(
            torch.cat([p.mu for _, p in found]), torch.cat([p.logvar for _, p in found])
        )
        kl = float(posterior.kl().mean())
        means = {
            part: float(torch.cat([parts[part] for parts, _ in found]).mean())
            for part in PARTS
        }
        distortion = sum(means.values())
        losses.append(distortion + value * kl)
        report[f"val_kl_{name}"] = kl
        report[f"val_distortion_{name}"] = distortion
        if name == "low":
            report.update({f"val_{part}": mean for part, mean in means.items()})
            report["active_units"] = active_units(posterior.mu)
            report["mutual_information"] = mutual_information(
                posterior, torch.cat(sampled)
            )
        elif name == "high":
            report["active_units_high"] = active_units(posterior.mu)
    return {"val_loss": sum(losses) / len(losses), **report}
