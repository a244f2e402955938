from itertools import pairwise

import pytest
import torch

from crystalvae.latent import LatentConfig
from crystalvae.training.config import TrainingConfig
from crystalvae.training.schedule import draw_beta, rate_at, share_done

LATENT = LatentConfig(beta_min=0.01, beta_max=3.0)


def drawn(cap: float, **shares: float) -> torch.Tensor:
    options = TrainingConfig(**shares)
    caps = torch.full((20_000,), cap)
    return draw_beta(caps, LATENT, options, torch.Generator().manual_seed(0))


def test_shares_of_beta():
    beta = drawn(float("inf"), beta_min_share=0.2, beta_high_share=0.5, beta_high=0.3)
    assert ((beta >= 0.01 * 0.999) & (beta <= 3.001)).all()
    assert float((beta <= 0.01001).float().mean()) == pytest.approx(0.2, abs=0.02)
    # of the whole log range, 40 % lies above 0.3
    expected = 0.5 + 0.3 * 0.4037
    assert float((beta >= 0.3).float().mean()) == pytest.approx(expected, abs=0.02)


def test_a_capped_crystal_never_meets_a_larger_beta():
    beta = drawn(0.1, beta_min_share=0.2, beta_high_share=0.5, beta_high=0.3)
    assert float(beta.max()) <= 0.1001


def test_logarithm_is_uniform():
    beta = drawn(float("inf"), beta_min_share=0.0)
    middle = (0.01 * 3.0) ** 0.5
    assert float((beta < middle).float().mean()) == pytest.approx(0.5, abs=0.02)


def test_rate_rises_then_falls():
    options = TrainingConfig(learning_rate=1.0, warmup_steps=10, final_share=0.1)
    rates = [rate_at(step, step / 100, options) for step in range(101)]
    peak = rates.index(max(rates))
    assert 8 <= peak <= 11
    assert all(a < b for a, b in pairwise(rates[: peak + 1]))
    assert all(a > b for a, b in pairwise(rates[peak:]))
    assert rates[-1] == pytest.approx(0.1)


def test_time_ends_a_run_that_steps_do_not():
    options = TrainingConfig(minutes=2)
    assert share_done(10, 100, 0.0, options) == pytest.approx(0.1)
    assert share_done(10, 100, 60.0, options) == pytest.approx(0.5)
    assert share_done(90, 100, 60.0, options) == pytest.approx(0.9)
    assert share_done(10, 100, 500.0, options) == 1.0
    assert share_done(10, 100, 500.0, TrainingConfig()) == pytest.approx(0.1)


@pytest.mark.parametrize("given", [{"minutes": 0}, {"minutes": 1, "devices": 2}])
def test_impossible_times_are_refused(given):
    with pytest.raises(ValueError, match="minutes"):
        TrainingConfig(**given)


@pytest.mark.parametrize(
    "shares",
    [{"beta_min_share": 0.7, "beta_high_share": 0.5}, {"beta_high_share": -0.1}],
)
def test_impossible_shares_are_refused(shares):
    with pytest.raises(ValueError, match="shares"):
        TrainingConfig(**shares)
