import dataclasses
import json
import math

import pytest
import torch

from crystalvae.batch import CrystalStore
from crystalvae.config import from_dict
from crystalvae.crystal import AsymmetricUnit
from crystalvae.data.packed import pack, write_packed
from crystalvae.errors import CheckpointError, DataError
from crystalvae.model import CrystalVAE
from crystalvae.pretrained import save_model
from crystalvae.refinement.noise import denoising_errors, sites_of
from crystalvae.refinement.pretrained import load_refiner, save_refiner
from crystalvae.refinement.score import refiner_inputs
from crystalvae.training.network import NetworkTraining, noise_levels
from crystalvae.training.refiner import RefinerRun, RefinerTrainer
from crystalvae.training.rows import read_rows
from tests.conftest import REFERENCE
from tests.refinement.conftest import TINY, tiny_refiner


@pytest.fixture
def dataset(tmp_path, crystals):
    path = tmp_path / "reference"
    write_packed(path, pack(crystals), [str(i) for i in range(len(crystals))], {})
    return path


def run_config(dataset, epochs=2, **training):
    return from_dict(
        RefinerRun,
        {
            "data": {
                "train": [{"path": str(dataset)}],
                "val": [{"path": str(dataset)}],
                "max_val": 16,
            },
            "refiner": dataclasses.asdict(TINY),
            "training": {"epochs": epochs, "batch_size": 7, "warmup_steps": 2}
            | training,
        },
    )


def train(config, output, resume=False):
    return RefinerTrainer(config, output.parent, output, "cpu").fit(resume=resume)


def test_a_refiner_that_does_nothing_leaves_all_the_noise(crystals):
    refiner = tiny_refiner()
    torch.nn.init.zeros_(refiner.out[1].weight)
    torch.nn.init.zeros_(refiner.out[1].bias)
    batch = CrystalStore.from_crystals(crystals).batch(torch.arange(len(crystals)))
    sigma = torch.full((len(crystals),), 0.1)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        errors = denoising_errors(refiner, batch, sigma, sigma / 10, generator)
    torch.testing.assert_close(errors.shift, errors.shift_before)
    torch.testing.assert_close(errors.strain, errors.strain_before)
    # cubic crystals without a free coordinate have noise in the cell alone
    fixed = [i for i, c in enumerate(crystals) if c.number in (221, 225, 227, 229)]
    assert errors.shift_before[fixed].max() < 1e-10
    assert (errors.strain_before > 0).all()


def test_noise_has_the_size_that_was_asked_for(crystals):
    plain = [c for c in crystals if c.number == 1] * 200
    batch = CrystalStore.from_crystals(plain).batch(torch.arange(len(plain)))
    errors = denoising_errors(
        tiny_refiner(),
        batch,
        torch.full((len(plain),), 0.05),
        torch.full((len(plain),), 1e-6),
        torch.Generator().manual_seed(0),
    )
    # three components each, the mean over four atoms taken away
    expected = 3 * 0.05**2 * (1 - 1 / 4)
    assert float(errors.shift_before.mean()) == pytest.approx(expected, rel=0.1)


def test_sites_are_those_of_the_crystals(crystals):
    batch = CrystalStore.from_crystals(crystals).batch(torch.arange(len(crystals)))
    sites, coords = sites_of(batch)
    expected, _, expected_coords = refiner_inputs(crystals)
    for name in ("number", "owner", "wyckoff", "species"):
        assert torch.equal(getattr(sites, name), getattr(expected, name))
    torch.testing.assert_close(coords, expected_coords)


@pytest.mark.parametrize(
    ("name", "error", "strain"), [("cu", "strain", 0.03), ("rutile", "shift", 0.01)]
)
def test_training_takes_noise_away(tmp_path, name, error, strain):
    crystal = AsymmetricUnit.from_structure(REFERENCE[name][0])
    path = tmp_path / name
    write_packed(path, pack([crystal] * 32), [str(i) for i in range(32)], {})
    config = run_config(
        path,
        epochs=40,
        learning_rate=1e-2,
        batch_size=8,
        min_noise=0.04,
        max_noise=0.06,
        min_strain=0.9 * strain,
        max_strain=1.1 * strain,
    )
    config = dataclasses.replace(
        config, refiner=dataclasses.replace(TINY, num_radial=64, dim=32)
    )
    best = RefinerTrainer(config, tmp_path, tmp_path / "run", "cpu").fit()
    batch = CrystalStore.from_crystals([crystal] * 64).batch(torch.arange(64))
    sigma, tau = torch.full((64,), 0.05), torch.full((64,), strain)
    with torch.no_grad():
        errors = denoising_errors(
            load_refiner(best), batch, sigma, tau, torch.Generator().manual_seed(5)
        )
    before = getattr(errors, f"{error}_before").mean()
    assert getattr(errors, error).mean() < 0.5 * before


def test_levels_of_noise_go_together_as_far_as_they_are_coupled():
    generator = torch.Generator().manual_seed(0)
    for coupling, least, most in ((0.0, -0.1, 0.1), (0.7, 0.85, 0.97), (1.0, 0.999, 1)):
        options = NetworkTraining(max_noise=1.5, max_strain=0.2, coupling=coupling)
        sigma, tau = noise_levels(options, 2000, generator)
        assert options.min_noise <= sigma.min()
        assert sigma.max() <= options.max_noise
        assert options.min_strain <= tau.min()
        assert tau.max() <= options.max_strain
        if coupling in (0.0, 1.0):
            place = (tau / options.min_strain).log() / math.log(0.2 / 0.003)
            assert abs(float(place.quantile(0.9)) - 0.9) < 0.03
        together = torch.corrcoef(torch.stack([sigma.log(), tau.log()]))[0, 1]
        assert least <= together <= most + 1e-6
    with pytest.raises(ValueError, match="coupling"):
        NetworkTraining(coupling=1.5)


def test_validation_looks_at_noise_that_was_trained(tmp_path, dataset):
    config = run_config(dataset, 1, max_noise=0.03, min_noise=0.01)
    assert load_refiner(train(config, tmp_path / "low")).card["shift_left_0.05"] > 0
    config = run_config(dataset, 1, max_noise=0.3)
    card = load_refiner(train(config, tmp_path / "high")).card
    assert "shift_left_0.2" in card
    assert "shift_left_0.5" not in card


def test_a_resumed_run_ends_where_the_uninterrupted_one_does(tmp_path, dataset):
    whole = load_refiner(train(run_config(dataset, 4), tmp_path / "whole"))
    config = run_config(dataset, 4)
    broken = RefinerTrainer(config, tmp_path, tmp_path / "broken", "cpu")
    calls = []

    def interrupt(*args):
        calls.append(args)
        if len(calls) > 5:
            raise KeyboardInterrupt
        return step(*args)

    step, broken._step = broken._step, interrupt
    with pytest.raises(KeyboardInterrupt):
        broken.fit()
    resumed = load_refiner(train(config, tmp_path / "broken", resume=True))
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value)
    epochs = [row["epoch"] for row in read_rows(tmp_path / "broken" / "metrics.csv")]
    assert epochs == ["1", "2", "3", "4"]


def test_a_run_ends_with_its_time(tmp_path, dataset, caplog):
    config = run_config(dataset, 500, minutes=0.01, warmup_steps=100)
    best = train(config, tmp_path / "run")
    last = read_rows(tmp_path / "run" / "metrics.csv")[-1]
    assert 0 < int(last["step"]) < 100
    assert load_refiner(best) is not None
    assert "the time was over after" in caplog.text
    train(config, tmp_path / "run", resume=True)
    assert read_rows(tmp_path / "run" / "metrics.csv")[-1] == last


def test_another_run_is_not_overwritten(tmp_path, dataset):
    train(run_config(dataset, 1), tmp_path / "run")
    with pytest.raises(DataError, match="--resume"):
        train(run_config(dataset, 1), tmp_path / "run")
    with pytest.raises(CheckpointError, match="another config"):
        train(run_config(dataset, 2), tmp_path / "run", resume=True)


def test_a_run_can_start_from_a_refiner(tmp_path, dataset):
    best = train(run_config(dataset, 1), tmp_path / "run")
    config = dataclasses.replace(run_config(dataset), init=str(best))
    trainer = RefinerTrainer(config, tmp_path, tmp_path / "next", "cpu")
    for name, value in load_refiner(best).state_dict().items():
        torch.testing.assert_close(trainer.network.state_dict()[name], value)
    wider = dataclasses.replace(config.refiner, dim=24)
    with pytest.raises(CheckpointError, match="of this shape"):
        RefinerTrainer(
            dataclasses.replace(config, refiner=wider), tmp_path, tmp_path / "x", "cpu"
        )


def test_a_saved_refiner_comes_back(tmp_path):
    refiner = tiny_refiner()
    refiner.card = {"epoch": 3}
    save_refiner(refiner, tmp_path)
    loaded = load_refiner(tmp_path)
    assert loaded.card == {"epoch": 3}
    assert loaded.config == refiner.config
    for name, value in refiner.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], value.half().float())
    assert load_refiner(tmp_path / "nowhere") is None


def test_a_run_that_diverges_is_an_error(tmp_path, dataset):
    with pytest.raises(CheckpointError, match="the loss became"):
        train(run_config(dataset, 3, learning_rate=1e14), tmp_path / "run")


def test_fine_tuning_keeps_the_refiner_and_another_model_does_not_inherit_it(
    tmp_path, tiny_model
):
    tiny_model.refiner = tiny_refiner()
    tiny_model.save_pretrained(tmp_path)
    again = CrystalVAE.from_pretrained(tmp_path, "cpu")
    assert again.refiner is not None
    again.refiner = None
    save_model(again, tmp_path, keep=True)
    assert CrystalVAE.from_pretrained(tmp_path, "cpu").refiner is not None
    again.save_pretrained(tmp_path)
    assert CrystalVAE.from_pretrained(tmp_path, "cpu").refiner is None


@pytest.mark.parametrize("gone", ["refiner.json", "refiner.safetensors"])
def test_half_a_refiner_is_named(tmp_path, gone):
    save_refiner(tiny_refiner(), tmp_path)
    (tmp_path / gone).unlink()
    with pytest.raises(CheckpointError, match=r"refiner\.json and refiner"):
        load_refiner(tmp_path)


def test_weights_that_are_not_finite_are_refused(tmp_path):
    refiner = tiny_refiner()
    refiner.out[1].bias.data[0] = torch.nan
    save_refiner(refiner, tmp_path)
    with pytest.raises(CheckpointError, match="not finite"):
        load_refiner(tmp_path)


@pytest.mark.parametrize("damage", ["weights", "config", "list", "shape"])
def test_a_damaged_refiner_is_named(tmp_path, damage):
    save_refiner(tiny_refiner(), tmp_path)
    if damage == "weights":
        file = tmp_path / "refiner.safetensors"
        file.write_bytes(file.read_bytes()[:-100])
    else:
        file = tmp_path / "refiner.json"
        content = json.loads(file.read_text())
        content["refiner"]["dim"] = 24
        text = {"shape": json.dumps(content), "list": "[]", "config": "{"}[damage]
        file.write_text(text)
    with pytest.raises(CheckpointError, match=r"refiner\.json and refiner"):
        load_refiner(tmp_path)


def test_a_run_from_before_a_new_field_can_be_resumed(tmp_path, dataset):
    output = tmp_path / "run"
    train(run_config(dataset, 1), output)
    state = torch.load(output / "last.pt", weights_only=True)
    saved = json.loads(state["config"])
    del saved["training"]["coupling"]
    torch.save(state | {"config": json.dumps(saved)}, output / "last.pt")
    train(run_config(dataset, 1), output, resume=True)
    with pytest.raises(CheckpointError, match="another config"):
        train(run_config(dataset, 1, coupling=0.5), output, resume=True)
