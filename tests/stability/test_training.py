import dataclasses
import json
import math
import shutil

import numpy as np
import pytest
import torch

from crystalvae.batch import CrystalStore
from crystalvae.cli import main
from crystalvae.config import from_dict
from crystalvae.crystal import AsymmetricUnit
from crystalvae.data.packed import pack, write_packed
from crystalvae.data.prototypes import prototype_crystals
from crystalvae.errors import CheckpointError, ConfigError
from crystalvae.pretrained import save_model
from crystalvae.stability.network import StabilityNetwork
from crystalvae.stability.pretrained import load_stability
from crystalvae.stability.score import stability_estimates
from crystalvae.training.reader import compositions_of
from crystalvae.training.rows import read_rows
from crystalvae.training.split import hold_out
from crystalvae.training.stability import StabilityRun, StabilityTrainer
from tests.conftest import REFERENCE
from tests.refinement.conftest import tiny_refiner
from tests.stability.test_network import TINY


def crystals():
    """Sodium chloride as it is, and as zinc blende."""
    rock_salt = AsymmetricUnit.from_structure(REFERENCE["nacl"][0])
    blende = AsymmetricUnit(
        216,
        np.eye(3) * 5.6,
        np.array([0, 2]),
        np.array([11, 17]),
        np.array([[0.0, 0, 0], [0.25, 0.25, 0.25]]),
    )
    return rock_salt, blende


@pytest.fixture
def dataset(tmp_path):
    both = [*crystals()] * 20
    energies = np.tile([0.0, 0.6], 20)
    path = tmp_path / "both"
    ids = [str(i) for i in range(len(both))]
    write_packed(path, pack(both), ids, {"e_above_hull": energies})
    return path


def run_config(dataset, epochs, **training):
    return from_dict(
        StabilityRun,
        {
            "data": {"train": [{"path": str(dataset)}]},
            "stability": dataclasses.asdict(TINY),
            "training": {
                "epochs": epochs,
                "batch_size": 8,
                "warmup_steps": 2,
                "learning_rate": 1e-2,
                "held_out": 0.2,
            }
            | training,
        },
    )


def train(config, output, resume=False):
    return StabilityTrainer(config, output.parent, output, "cpu").fit(resume=resume)


def test_it_learns_which_of_two_structures_is_stable(dataset, tmp_path):
    network = load_stability(train(run_config(dataset, 40), tmp_path / "run"))
    stable, unstable = stability_estimates(network, crystals())
    assert stable.probability > 0.8 > 0.2 > unstable.probability
    assert unstable.e_above_hull == pytest.approx(0.6, abs=0.2)
    last = read_rows(tmp_path / "run" / "metrics.csv")[-1]
    assert float(last["area"]) == 1
    assert float(last["error"]) < 0.2


def test_a_run_without_a_network_says_so(tmp_path):
    (only, *_) = crystals()
    labels = {"e_above_hull": np.zeros(1)}
    write_packed(tmp_path / "set", pack([only]), ["a"], labels)
    config = run_config(tmp_path / "set", 1)
    assert not hold_out([only.composition], 0.2, 0).any()
    with pytest.raises(ConfigError, match="no crystal is left to validate"):
        train(config, tmp_path / "run")


def test_a_network_that_never_was_a_number_is_not_said_to_be_there(
    dataset, tmp_path, monkeypatch
):
    nothing = {"val_loss": math.nan}
    monkeypatch.setattr(StabilityTrainer, "validate", lambda self: nothing)
    with pytest.raises(CheckpointError, match="worth keeping"):
        train(run_config(dataset, 1), tmp_path / "run")


def test_what_validates_does_not_train(dataset, tmp_path):
    trainer = StabilityTrainer(run_config(dataset, 1), tmp_path, tmp_path / "x", "cpu")
    assert len(trainer.val_rows) == 8
    for epoch in range(3):
        assert not set(trainer.rows(epoch).tolist()) & set(trainer.val_rows.tolist())
        assert len(trainer.rows(epoch)) == 32


def test_whole_formulas_are_held_out():
    polymorphs = crystals()
    others = [crystal for _, crystal in list(prototype_crystals())[::7]]
    store = CrystalStore.from_crystals([*polymorphs, *others, *polymorphs])
    held = hold_out(compositions_of(store), 0.2, 0)
    assert held.sum() == pytest.approx(0.2 * len(store), abs=3)
    formulas = [c.formula for c in [*polymorphs, *others, *polymorphs]]
    own = {formula for formula, is_held in zip(formulas, held) if is_held}
    assert own.isdisjoint(f for f, is_held in zip(formulas, held) if not is_held)
    assert hold_out(compositions_of(store), 0.2, 0).tolist() == held.tolist()
    assert hold_out(compositions_of(store), 0.2, 1).tolist() != held.tolist()


def test_a_resumed_run_ends_where_a_whole_one_does(dataset, tmp_path):
    config = run_config(dataset, 3)
    whole = load_stability(train(config, tmp_path / "whole"))
    trainer = StabilityTrainer(config, tmp_path, tmp_path / "part", "cpu")
    end, count = trainer._end_of_epoch, []

    def stop(epoch, loss):
        count.append(epoch)
        if len(count) == 2:
            raise KeyboardInterrupt
        end(epoch, loss)

    trainer._end_of_epoch = stop
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()
    resumed = load_stability(train(config, tmp_path / "part", resume=True))
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value)


def test_a_set_without_energies_is_refused(dataset, tmp_path):
    path = tmp_path / "plain"
    write_packed(path, pack([*crystals()]), ["a", "b"], {"gap": np.zeros(2)})
    with pytest.raises(ConfigError, match="e_above_hull"):
        StabilityTrainer(run_config(path, 1), tmp_path, tmp_path / "x", "cpu")


def test_a_refiner_of_another_shape_is_refused(dataset, tiny_model, tmp_path):
    tiny_model.refiner = tiny_refiner()
    save_model(tiny_model, tmp_path / "model")
    config = run_config(dataset, 1)
    config = dataclasses.replace(config, init="model")
    trainer = StabilityTrainer(config, tmp_path, tmp_path / "x", "cpu")
    trunk = trainer.network.state_dict()["species.weight"]
    torch.testing.assert_close(
        trunk, tiny_model.refiner.species.weight, atol=1e-3, rtol=0
    )
    wider = dataclasses.replace(config, stability=dataclasses.replace(TINY, dim=24))
    with pytest.raises(CheckpointError, match="another shape"):
        StabilityTrainer(wider, tmp_path, tmp_path / "y", "cpu")
    tiny_model.refiner = None
    save_model(tiny_model, tmp_path / "model")
    with pytest.raises(ConfigError, match="no refiner"):
        StabilityTrainer(config, tmp_path, tmp_path / "z", "cpu")


def test_it_goes_on_from_a_stability_network(dataset, tiny_model, tmp_path):
    tiny_model.refiner = tiny_refiner()
    torch.manual_seed(3)
    tiny_model.stability = StabilityNetwork(TINY)
    save_model(tiny_model, tmp_path / "model")
    config = dataclasses.replace(
        run_config(dataset, 1), init="model", start="stability"
    )
    trainer = StabilityTrainer(config, tmp_path, tmp_path / "x", "cpu")
    for name, value in tiny_model.stability.state_dict().items():
        torch.testing.assert_close(
            trainer.network.state_dict()[name], value, atol=1e-3, rtol=1e-3
        )
    tiny_model.stability = None
    save_model(tiny_model, tmp_path / "model")
    with pytest.raises(ConfigError, match="no stability network"):
        StabilityTrainer(config, tmp_path, tmp_path / "y", "cpu")
    with pytest.raises(ConfigError, match="start is one of refiner, stability"):
        from_dict(StabilityRun, {"start": "noise"})


def test_from_the_command_line(dataset, tmp_path):
    config = tmp_path / "stability.toml"
    shape = "\n".join(f"{k} = {v}" for k, v in dataclasses.asdict(TINY).items())
    config.write_text(
        f'[data]\ntrain = [{{ path = "{dataset.name}" }}]\n[stability]\n{shape}\n'
        "[training]\nepochs = 1\nbatch_size = 8\nheld_out = 0.2\n"
    )
    run = tmp_path / "run"
    assert main(["train-stability", str(config), "-o", str(run), "--no-progress"]) == 0
    assert load_stability(run / "best") is not None
    shutil.rmtree(run)


def test_shares_that_differ_between_epochs_resume_as_well(dataset, tmp_path):
    config = run_config(dataset, 4, batch_size=3)
    source = dataclasses.replace(config.data.train[0], share=0.7)
    data = dataclasses.replace(config.data, train=[source])
    config = dataclasses.replace(config, data=data)
    trainer = StabilityTrainer(config, tmp_path, tmp_path / "part", "cpu")
    lengths = {len(trainer._batches(epoch)) for epoch in range(4)}
    assert len(lengths) > 1
    trainer.validate = stop_at(trainer.validate, 3)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()
    train(config, tmp_path / "part", resume=True)
    rows = read_rows(tmp_path / "part" / "metrics.csv")
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]


def stop_at(call, number):
    """The same function, interrupted at a call."""
    calls = []

    def counted():
        calls.append(1)
        if len(calls) == number:
            raise KeyboardInterrupt
        return call()

    return counted


def test_a_checkpoint_of_an_older_version_is_refused(dataset, tmp_path):
    config = run_config(dataset, 2)
    train(run_config(dataset, 2), tmp_path / "run")
    last = tmp_path / "run" / "last.pt"
    state = torch.load(last)
    state["refiner"] = state.pop("network")
    torch.save(state, last)
    with pytest.raises(CheckpointError, match="older version"):
        train(config, tmp_path / "run", resume=True)


def test_what_cannot_tell_stable_from_unstable_says_so(tmp_path, caplog):
    path = tmp_path / "stable"
    ids = [str(i) for i in range(10)]
    both = [*crystals()] * 5
    write_packed(path, pack(both), ids, {"e_above_hull": np.zeros(10)})
    best = train(run_config(path, 1), tmp_path / "run")
    assert "are stable" in caplog.text
    card = json.loads((best / "stability.json").read_text(), parse_constant=pytest.fail)
    assert "area" not in card["card"]
