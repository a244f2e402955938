import pytest
import torch

from crystalvae import CrystalVAE
from crystalvae.refinement.score import residuals

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA"),
]


@pytest.fixture(scope="module")
def models():
    return [CrystalVAE.from_pretrained("mp_20", device=d) for d in ("cpu", "cuda")]


@pytest.fixture(scope="module")
def crystals(models):
    return models[0].sample(20, seed=0)


def test_both_devices_encode_and_judge_alike(models, crystals):
    cpu, gpu = (model.encode(crystals) for model in models)
    torch.testing.assert_close(gpu.mu.cpu(), cpu.mu, atol=1e-3, rtol=1e-3)
    own, other = (residuals(model.refiner, crystals) for model in models)
    assert own == pytest.approx(other, rel=0.02)


def test_gpu_draws_valid_crystals(models):
    drawn = models[1].sample(20, seed=1)
    assert len(drawn) == 20
    assert all(crystal.volume > 0 for crystal in drawn)


def test_gpu_reconstructs_what_the_cpu_does(models, crystals):
    cpu, gpu = (model.decode(model.encode(crystals).mu) for model in models)
    same = [a.composition == b.composition for a, b in zip(cpu, gpu)]
    assert sum(same) >= 19


def test_gpu_draws_what_is_required_and_told(models):
    drawn = models[1].sample(
        8, require=["O"], conditions={"band_gap": 3.0}, beta=1.0, seed=2
    )
    assert all(8 in crystal.composition for crystal in drawn)
    posterior = models[1].encode(drawn)
    scores = models[1].log_prob(drawn, posterior.mu, 1.0, {"band_gap": 3.0})
    assert scores["total"].isfinite().all()
