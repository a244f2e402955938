import dataclasses

import numpy as np
import pytest
import torch

from crystalvae.cli import main
from crystalvae.config import from_dict
from crystalvae.data.packed import pack, write_packed
from crystalvae.errors import ConfigError
from crystalvae.model import CrystalVAE
from crystalvae.pretrained import save_model
from crystalvae.properties.pretrained import load_properties
from crystalvae.properties.score import property_estimates
from crystalvae.stability.network import StabilityNetwork
from crystalvae.training.properties import PropertyRun, PropertyTrainer
from crystalvae.training.rows import read_rows
from tests.properties.test_network import CONFIG, tiny_properties
from tests.refinement.conftest import tiny_refiner
from tests.stability.test_network import TINY
from tests.stability.test_training import crystals


@pytest.fixture
def dataset(tmp_path):
    both = [*crystals()] * 20
    gaps = np.tile([5.0, 0.0], 20)
    energies = np.tile([-2.0, -1.0], 20)
    energies[:30] = np.nan
    path = tmp_path / "both"
    ids = [str(i) for i in range(len(both))]
    write_packed(path, pack(both), ids, {"gap": gaps, "energy": energies})
    return path


def run_config(dataset, epochs, **more):
    return from_dict(
        PropertyRun,
        {
            "data": {"train": [{"path": str(dataset)}]},
            "network": dataclasses.asdict(CONFIG) | {"dropout": 0.0},
            "training": {
                "epochs": epochs,
                "batch_size": 8,
                "warmup_steps": 2,
                "learning_rate": 1e-2,
                "held_out": 0.2,
            },
            **more,
        },
    )


def trainer_of(config, tmp_path):
    return PropertyTrainer(config, tmp_path, tmp_path / "run", "cpu")


def test_it_learns_what_some_crystals_have(dataset, tmp_path):
    network = load_properties(trainer_of(run_config(dataset, 100), tmp_path).fit())
    salt, blende = property_estimates(network, crystals())
    assert salt["gap"].value == pytest.approx(5.0, abs=0.7)
    assert blende["gap"].value == pytest.approx(0.0, abs=0.2)
    assert salt["energy"].value == pytest.approx(-2.0, abs=0.3)
    assert blende["energy"].value == pytest.approx(-1.0, abs=0.3)
    last = read_rows(tmp_path / "run" / "metrics.csv")[-1]
    assert float(last["error_gap"]) < 0.7


def test_nothing_known_of_a_property_is_refused(dataset, tmp_path):
    path = tmp_path / "plain"
    write_packed(path, pack([*crystals()] * 5), [*"abcdefghij"], {"gap": np.zeros(10)})
    with pytest.raises(ConfigError, match="'energy' of"):
        trainer_of(run_config(path, 1), tmp_path)
    with pytest.raises(ConfigError, match="names no property"):
        run_config(dataset, 1, network={})


def test_few_or_equal_values_are_said(tmp_path, caplog):
    path, both = tmp_path / "few", [*crystals()] * 20
    ids, gaps = [str(i) for i in range(40)], np.full(40, np.nan)
    gaps[:30:2] = 5.0
    write_packed(path, pack(both), ids, {"gap": gaps, "energy": np.arange(40.0)})
    with pytest.raises(ConfigError, match="gap: all crystals that train have the same"):
        trainer_of(run_config(path, 1), tmp_path)
    gaps[1] = 1.0
    named = {"gap": gaps, "energy": np.where(np.isnan(gaps), np.nan, np.arange(40.0))}
    write_packed(path, pack(both), ids, named)
    trainer = trainer_of(run_config(path, 1), tmp_path)
    assert len(trainer.crystals.store) == 16
    assert "too few to tell" in caplog.text
    with pytest.raises(ConfigError, match="start is one of"):
        run_config(dataset, 1, start="noise", init="mp_20")


def test_it_starts_from_other_networks(dataset, tiny_model, tmp_path):
    tiny_model.refiner = tiny_refiner()
    torch.manual_seed(3)
    tiny_model.stability = StabilityNetwork(TINY)
    tiny_model.properties = tiny_properties()
    save_model(tiny_model, tmp_path / "model")
    for start in ("stability", "properties"):
        config = run_config(dataset, 1, init="model", start=start)
        found = trainer_of(config, tmp_path).network.state_dict()
        own = getattr(tiny_model, start).state_dict()
        names = own if start == "properties" else ["species.weight"]
        for name in names:
            torch.testing.assert_close(found[name], own[name], atol=1e-3, rtol=1e-3)
    one = run_config(dataset, 1, init="model", start="properties")
    fewer = dataclasses.replace(one.network, quantities=one.network.quantities[:1])
    found = trainer_of(dataclasses.replace(one, network=fewer), tmp_path).network
    torch.testing.assert_close(
        found.species.weight, tiny_model.properties.species.weight, atol=1e-3, rtol=0
    )
    tiny_model.properties = None
    save_model(tiny_model, tmp_path / "model")
    with pytest.raises(ConfigError, match="no properties network"):
        trainer_of(config, tmp_path)


def test_from_the_command_line_into_a_model(dataset, tiny_model, tmp_path, capsys):
    shape = "\n".join(f"{k} = {v}" for k, v in dataclasses.asdict(TINY).items())
    file = tmp_path / "properties.toml"
    file.write_text(
        f'[data]\ntrain = [{{ path = "{dataset.name}" }}]\n[network]\n{shape}\n'
        '[[network.quantities]]\nname = "gap"\nhigh = 8.0\nscale = 0.1\n'
        "[training]\nepochs = 1\nbatch_size = 8\nheld_out = 0.2\n"
    )
    run, model = tmp_path / "run", tmp_path / "model"
    assert main(["train-properties", str(file), "-o", str(run), "--no-progress"]) == 0
    tiny_model.save_pretrained(model)
    for part in (run / "best").iterdir():
        (model / part.name).write_bytes(part.read_bytes())
    assert CrystalVAE.from_pretrained(model, "cpu").properties.names == ["gap"]
    capsys.readouterr()
    assert main(["info", str(model)]) == 0
    assert "gap 0 to 8" in capsys.readouterr().out
