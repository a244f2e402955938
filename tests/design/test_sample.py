import pytest

from crystalvae.design.sample import draw_checked
from crystalvae.errors import ConfigError, CrystalVAEError


def test_what_was_found_is_kept_when_it_is_too_little(tiny_model, caplog):
    kept, report = draw_checked(tiny_model, 30, seed=1, max_draws=30)
    assert 0 < len(kept) < 30
    assert report.kept + sum(report.fallen.values()) == report.draws == 30
    assert f"only {len(kept)} of 30" in caplog.text


def test_nothing_found_is_an_error(tiny_model, monkeypatch):
    monkeypatch.setattr("crystalvae.design.sample.first_failure", lambda _: "density")
    with pytest.raises(CrystalVAEError, match="only 0 of 5"):
        draw_checked(tiny_model, 5, max_draws=5)


@pytest.mark.parametrize("beta", [1e-4, 50.0])
def test_a_beta_that_was_not_trained_is_refused(tiny_model, beta):
    with pytest.raises(ConfigError, match="trained for a beta from"):
        draw_checked(tiny_model, 2, beta=beta)
