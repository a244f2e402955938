import math

import torch

from crystalvae.latent import Posterior, composition_features
from crystalvae.training.validation import active_units, mutual_information


def test_kl_of_the_prior_is_zero():
    zero = torch.zeros(3, 5)
    assert (Posterior(zero, zero).kl() == 0).all()


def test_kl_in_closed_form():
    mean, variance = torch.tensor([[0.7]]), torch.tensor([[0.3]])
    expected = 0.5 * (0.49 + 0.3 - 1 - math.log(0.3))
    assert abs(float(Posterior(mean, variance.log()).kl()) - expected) < 1e-6


def test_free_bits_forgive_small_rates_only():
    mean = torch.tensor([[0.01, 3.0]])
    posterior = Posterior(mean, torch.zeros_like(mean))
    assert abs(float(posterior.kl(0.5)) - (0.5 + 4.5)) < 1e-5


def test_same_seed_same_draw():
    posterior = Posterior(torch.zeros(4, 3), torch.zeros(4, 3))
    draws = [posterior.sample(torch.Generator().manual_seed(7)) for _ in range(2)]
    torch.testing.assert_close(*draws, rtol=0, atol=0)


def test_a_collapsed_posterior_carries_nothing():
    posterior = Posterior(torch.zeros(64, 4), torch.zeros(64, 4))
    assert active_units(posterior.mu) == 0
    assert abs(mutual_information(posterior, posterior.sample())) < 1e-4


def test_a_sharp_posterior_tells_all_crystals_apart():
    posterior = Posterior(torch.randn(64, 4), torch.full((64, 4), -12.0))
    information = mutual_information(posterior, posterior.sample())
    assert abs(information - math.log(64)) < 1e-3


def test_composition_features_are_linear_in_elements():
    both = composition_features(torch.tensor([[8, 22]]), torch.tensor([[2, 2]]))
    table = both.view(119, 4)
    assert table[8, 0] == 1
    assert table[22, 0] == 1
    assert table[0].abs().sum() == 0
    assert abs(float(table[:, 1].sum()) - 2) < 1e-6
