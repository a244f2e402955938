import csv
import dataclasses
import json
from contextlib import suppress

import numpy as np
import pytest
import torch
from safetensors import SafetensorError

from crystalvae.config import from_dict, read_toml
from crystalvae.crystal import AsymmetricUnit
from crystalvae.data.packed import pack, write_packed
from crystalvae.errors import CheckpointError, ConfigError, DataError
from crystalvae.model import CrystalVAE
from crystalvae.pretrained import resolve_device
from crystalvae.training import trainer as trainer_module
from crystalvae.training.config import RunConfig, Source
from crystalvae.training.data import epoch_batches, load_sources
from crystalvae.training.precision import fast_products, resolve_precision
from crystalvae.training.trainer import Trainer
from tests.conftest import REFERENCE, TINY_OPTIONS


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    crystals = [AsymmetricUnit.from_structure(s) for s, _ in REFERENCE.values()] * 4
    path = tmp_path_factory.mktemp("data") / "reference"
    write_packed(path, pack(crystals), [str(i) for i in range(len(crystals))], {})
    return path


def run_config(dataset, epochs=2, **training):
    return from_dict(
        RunConfig,
        {
            "data": {
                "train": [{"path": str(dataset)}],
                "val": [{"path": str(dataset)}],
            },
            "model": {
                "encoder": {"name": "gated", "options": TINY_OPTIONS},
                "latent": {"dim": 8, "hidden_dim": 16, "pair_dim": 8},
                "decoder": {"dim": 32, "num_layers": 1, "num_heads": 4},
            },
            "training": {
                "epochs": epochs,
                "batch_size": 16,
                "warmup_steps": 2,
                "precision": "32-true",
                "save_every": 2,
            }
            | training,
        },
    )


def rows(path):
    with (path / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def train(config, output, resume=False):
    return Trainer(config, output.parent, output, "cpu").fit(resume=resume)


def test_training_lowers_the_loss_and_leaves_a_model(dataset, tmp_path):
    best = train(run_config(dataset, 12, learning_rate=5e-3), tmp_path / "run")
    history = rows(tmp_path / "run")
    assert float(history[-1]["val_loss"]) < 0.7 * float(history[0]["val_loss"])
    assert float(history[-1]["val_kl_low"]) > 1
    assert (tmp_path / "run" / "curves.png").stat().st_size > 1000
    assert CrystalVAE.from_pretrained(best).card["epoch"] > 0


def decoder_after_a_step(config, folder, **source):
    """The decoder with the gradients of one step on a single source."""
    data = dataclasses.replace(config.data, train=[Source(**source)])
    config = dataclasses.replace(config, data=data)
    trainer = Trainer(config, folder, folder / "run", "cpu")
    trainer.optimizer.step = lambda: None
    trainer.optimizer.zero_grad = lambda **_: None
    trainer._step(torch.arange(8), 0)
    return trainer.model.module.decoder


def test_labels_above_their_limit_are_not_learned(dataset, tmp_path):
    config = run_config(dataset, 1, dropout=0.3, beta_high=1e-4)
    heads = decoder_after_a_step(
        config, tmp_path, path=str(dataset), label_beta_max=0.0
    )
    for head in (heads.composition_head, heads.group_head):
        assert all(not p.grad.any() for p in head.parameters() if p.grad is not None)
    assert any(p.grad.any() for p in heads.lattice_head.parameters())


def test_guessed_geometry_is_not_learned_above_its_limit(dataset, tmp_path):
    config = run_config(dataset, 1)
    heads = decoder_after_a_step(
        config, tmp_path, path=str(dataset), geometry_beta_max=0.0
    )
    for head in (heads.lattice_head, heads.coordinate_head):
        assert all(not p.grad.any() for p in head.parameters() if p.grad is not None)
    for head in (heads.composition_head, heads.wyckoff_head):
        assert any(p.grad.any() for p in head.parameters())


def test_a_share_of_a_source_comes_round_to_all_of_it(dataset, tmp_path):
    whole = Source(path=str(dataset))
    part = Source(path=str(dataset), share=0.25)
    limits = run_config(dataset).model.decoder
    crystals = load_sources([whole, part], tmp_path, limits)
    size = len(crystals.store) // 2
    taken = size // 4
    epochs = [crystals.rows(seed=3, epoch=epoch) for epoch in range(4)]
    for rows_met in epochs:
        assert sorted(set(rows_met)) == rows_met.tolist()
        assert rows_met[:size].tolist() == list(range(size))
        assert len(rows_met) == size + taken
    met = np.concatenate([rows_met[size:] for rows_met in epochs])
    assert sorted(met) == list(range(size, 2 * size))


def test_killed_run_resumes_to_the_same_weights(dataset, tmp_path, monkeypatch):
    config = run_config(dataset, 3, dropout=0.2, beta_high=0.01)
    train(config, tmp_path / "whole")
    killed = tmp_path / "killed"
    original = Trainer._step
    monkeypatch.setattr(Trainer, "_step", dying_step(original, 5))
    with pytest.raises(KeyboardInterrupt):
        train(config, killed)
    monkeypatch.setattr(Trainer, "_step", original)
    train(config, killed, resume=True)
    one = torch.load(tmp_path / "whole/last.pt", weights_only=True)
    two = torch.load(killed / "last.pt", weights_only=True)
    for name, value in one["model"].items():
        torch.testing.assert_close(two["model"][name], value, rtol=0, atol=0)
    assert [r["val_loss"] for r in rows(killed)] == [
        r["val_loss"] for r in rows(tmp_path / "whole")
    ]


@pytest.mark.parametrize("every", [1, 3])
def test_a_run_killed_while_it_validates_is_judged_all_the_same(
    dataset, tmp_path, monkeypatch, every
):
    config = run_config(dataset, 3, save_every=1, validate_every=every)
    train(config, tmp_path / "whole")
    original = Trainer._end_of_epoch

    def dying(self, epoch, mean, speed):
        if epoch == 2:
            raise KeyboardInterrupt
        original(self, epoch, mean, speed)

    monkeypatch.setattr(Trainer, "_end_of_epoch", dying)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "killed")
    monkeypatch.setattr(Trainer, "_end_of_epoch", original)
    best = train(config, tmp_path / "killed", resume=True)
    assert CrystalVAE.from_pretrained(best).card["epoch"] >= 1
    for one, two in zip(rows(tmp_path / "whole"), rows(tmp_path / "killed")):
        for name in ("epoch", "step", "train_loss", "train_kl", "val_loss"):
            assert one[name] == two[name]
    assert len(rows(tmp_path / "killed")) == 3 // every
    train(config, tmp_path / "killed", resume=True)
    assert len(rows(tmp_path / "killed")) == 3 // every


def test_the_mean_loss_is_that_of_a_step(dataset, tmp_path):
    few = dataclasses.asdict(run_config(dataset, 4, learning_rate=1e-9))
    few["training"]["batch_size"] = 1000
    means = []
    for every in (1, 4):
        few["training"]["validate_every"] = every
        train(from_dict(RunConfig, few), tmp_path / str(every))
        found = [float(r["train_loss"]) for r in rows(tmp_path / str(every))]
        means.append(sum(found) / len(found))
    assert means[0] == pytest.approx(means[1], rel=1e-3)


def test_a_run_ends_with_its_time(dataset, tmp_path, caplog):
    config = run_config(dataset, 10_000, minutes=0.05, warmup_steps=100_000)
    best = train(config, tmp_path / "run")
    step = int(rows(tmp_path / "run")[-1]["step"])
    assert 0 < step < 10_000
    assert CrystalVAE.from_pretrained(best).card["epoch"] >= 1
    assert "the time was over after" in caplog.text
    train(config, tmp_path / "run", resume=True)
    assert int(rows(tmp_path / "run")[-1]["step"]) == step


def test_what_a_run_found_is_not_overwritten_without_its_checkpoint(dataset, tmp_path):
    train(run_config(dataset, 1), tmp_path / "run")
    (tmp_path / "run" / "last.pt").unlink()
    for resume in (False, True):
        with pytest.raises(DataError, match="choose another"):
            train(run_config(dataset, 1), tmp_path / "run", resume=resume)


def test_what_is_left_out_is_said(dataset, tmp_path, caplog):
    small = dataclasses.replace(run_config(dataset).model.decoder, max_sites=1)
    sources = [Source(path=str(dataset))]
    kept = load_sources(sources, tmp_path, small)
    assert 0 < len(kept.store) < 4 * len(REFERENCE)
    assert "larger than the model can emit" in caplog.text
    none = dataclasses.replace(small, max_elements=0)
    with pytest.raises(ConfigError, match=r"nothing of .* can be used"):
        load_sources(sources, tmp_path, none)


def dying_step(original, at):
    def step(self, index, number):
        if number == at:
            raise KeyboardInterrupt
        return original(self, index, number)

    return step


def test_truncated_checkpoint_is_named(dataset, tmp_path):
    config = run_config(dataset, 1)
    train(config, tmp_path / "run")
    last = tmp_path / "run/last.pt"
    last.write_bytes(last.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"last\.pt is truncated"):
        train(config, tmp_path / "run", resume=True)


def test_a_second_run_does_not_overwrite_the_first(dataset, tmp_path):
    config = run_config(dataset, 1)
    train(config, tmp_path / "run")
    with pytest.raises(DataError, match="--resume"):
        train(config, tmp_path / "run")


def test_full_disk_keeps_the_last_checkpoint(dataset, tmp_path, monkeypatch):
    config = run_config(dataset, 2)
    real, calls = torch.save, []

    def failing(state, path):
        calls.append(path)
        if len(calls) > 1:
            raise OSError(28, "No space left on device")
        real(state, path)

    monkeypatch.setattr(torch, "save", failing)
    with pytest.raises(CheckpointError, match="disk space"):
        train(config, tmp_path / "run")
    torch.load(tmp_path / "run/last.pt", weights_only=True)
    assert not list((tmp_path / "run").glob("partial-*"))


def test_full_disk_while_keeping_the_best_can_be_gone_on_from(
    dataset, tmp_path, monkeypatch
):
    config = run_config(dataset, 1)

    def full(*_):
        raise SafetensorError("I/O error: No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("crystalvae.pretrained.save_file", full)
        with pytest.raises(CheckpointError, match=r"best.*disk space"):
            train(config, tmp_path / "run")
    assert not list((tmp_path / "run/best").iterdir())
    best = train(config, tmp_path / "run", resume=True)
    assert CrystalVAE.from_pretrained(best).card["epoch"] == 1


def test_only_the_same_crystals_resume(dataset, tmp_path):
    crystals = [AsymmetricUnit.from_structure(s) for s, _ in REFERENCE.values()] * 4
    names = [str(i) for i in range(len(crystals))]
    write_packed(tmp_path / "set", pack(crystals), names, {})
    train(run_config(tmp_path / "set", 1), tmp_path / "run")
    train(run_config(tmp_path / "set", 1), tmp_path / "run", resume=True)
    write_packed(tmp_path / "set", pack(crystals[::-1]), names, {})
    with pytest.raises(CheckpointError, match="other training crystals"):
        train(run_config(tmp_path / "set", 1), tmp_path / "run", resume=True)


@pytest.mark.parametrize(
    "training",
    [
        {"epochs": 0},
        {"batch_size": 0},
        {"bucket": 0},
        {"devices": 0},
        {"save_every": 0},
        {"seed": -1},
        {"precision": "foo"},
    ],
)
def test_impossible_settings_are_named(dataset, training):
    (name,) = training
    with pytest.raises(ConfigError, match=f"training: {name}"):
        run_config(dataset, **training)
    with pytest.raises(ConfigError, match="data: max_val"):
        from_dict(RunConfig, {"data": {"max_val": 0}})


def test_nothing_but_cuda_is_taken_unasked(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    trainer = Trainer(run_config(dataset, 1), tmp_path, tmp_path / "run")
    assert trainer.fabric.device.type == resolve_device(None).type != "mps"


def test_only_the_same_config_resumes(dataset, tmp_path):
    config = run_config(dataset, 1)
    train(config, tmp_path / "run")
    with pytest.raises(CheckpointError, match="another config"):
        train(run_config(dataset, 1, seed=5), tmp_path / "run", resume=True)
    state = torch.load(tmp_path / "run/last.pt", weights_only=True)
    older = json.loads(state["config"])
    for source in older["data"]["train"]:  # fields that came later
        del source["share"], source["geometry_beta_max"]
    progress = {
        name: value
        for name, value in state["progress"].items()
        if name not in ("validated", "sums")
    }
    older = {"config": json.dumps(older), "progress": progress}
    torch.save({**state, **older}, tmp_path / "run/last.pt")
    train(config, tmp_path / "run", resume=True)
    assert len(rows(tmp_path / "run")) == 1


def test_batches_meet_every_crystal_once_and_keep_lengths_together():
    sizes = torch.randint(1, 20, (1000,))
    batches = epoch_batches(sizes, 10, 20, seed=0, epoch=1)
    assert sorted(torch.cat(batches).tolist()) == list(range(1000))
    spread = torch.stack([sizes[b].max() - sizes[b].min() for b in batches])
    assert spread.float().mean() < 4
    again = epoch_batches(sizes, 10, 20, seed=0, epoch=1)
    assert all((a == b).all() for a, b in zip(batches, again))


def test_what_fills_no_batch_are_other_crystals_each_epoch():
    sizes = torch.arange(103)
    met = torch.zeros(103)
    for epoch in range(40):
        batches = epoch_batches(sizes, 10, 20, seed=0, epoch=epoch)
        assert [len(batch) for batch in batches] == [10] * 10
        met[torch.cat(batches)] += 1
    assert met.min() > 30
    assert met[-13:].mean() == pytest.approx(float(met.mean()), abs=1)


def test_fewer_crystals_than_a_batch_are_one():
    (only,) = epoch_batches(torch.arange(7), 10, 20, seed=0, epoch=0)
    assert sorted(only.tolist()) == list(range(7))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[training]\nepoch = 3", "did you mean 'epochs'"),
        ("[training]\nepochs = 'many'", "training.epochs must be of type int"),
        ("[model.encoder]\nname = 'gate'", "unknown encoder"),
        ("[training", "not valid TOML"),
    ],
)
def test_wrong_config_is_explained(tmp_path, text, message):
    path = tmp_path / "run.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_toml(RunConfig, path)


def test_settings_can_be_overridden(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text("[training]\nlearning_rate = 1e-4\n")
    config = read_toml(RunConfig, path, ["training.epochs=7", "model.latent.dim=32"])
    assert config.training.epochs == 7
    assert config.training.learning_rate == 1e-4
    assert config.model.latent.dim == 32


def test_automatic_precision_never_emulates(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for supported, expected in ((True, "bf16-mixed"), (False, "32-true")):
        monkeypatch.setattr(
            torch.cpu, "_is_avx512_bf16_supported", lambda known=supported: known
        )
        assert resolve_precision("auto", "cpu") == expected
        assert resolve_precision("64-true", "cpu") == "64-true"


def test_a_loss_that_is_no_number_ends_the_run(dataset, tmp_path):
    config = run_config(dataset, epochs=6, learning_rate=1e12, save_every=1000)
    with pytest.raises(CheckpointError, match="another directory"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run" / "last.pt").exists() or all(
        torch.isfinite(value).all()
        for value in torch.load(tmp_path / "run" / "last.pt")["model"].values()
    )


def test_what_a_run_began_with_is_not_forgotten(dataset, tmp_path):
    first = train(run_config(dataset, 1), tmp_path / "first")
    seen = CrystalVAE.from_pretrained(first, "cpu").card["trained_on"]
    assert {"Na", "Cl", "Ti", "O"} <= set(seen["elements"])
    only = AsymmetricUnit.from_structure(REFERENCE["cu"][0])
    path = tmp_path / "copper"
    write_packed(path, pack([only] * 4), list("abcd"), {})
    config = dataclasses.replace(run_config(path, 1), init=str(first))
    last = CrystalVAE.from_pretrained(train(config, tmp_path / "next"), "cpu")
    assert last.card["trained_on"] == seen
    config = run_config(path, 1)
    alone = CrystalVAE.from_pretrained(train(config, tmp_path / "alone"), "cpu")
    assert alone.card["trained_on"] == {"max_atoms": 1, "elements": ["Cu"]}


def test_products_are_fast_on_gpus_alone_and_no_longer_than_asked():
    before = torch.get_float32_matmul_precision()
    with fast_products(torch.device("cpu")):
        assert torch.get_float32_matmul_precision() == before
    with suppress(KeyboardInterrupt), fast_products(torch.device("cuda")):
        assert torch.get_float32_matmul_precision() == "high"
        raise KeyboardInterrupt
    assert torch.get_float32_matmul_precision() == before


def test_a_run_that_only_gets_worse_says_so_and_leaves_its_last_model(
    dataset, tmp_path, caplog, monkeypatch
):
    losses = iter(range(100))
    real = trainer_module.validate
    monkeypatch.setattr(
        trainer_module,
        "validate",
        lambda *args: real(*args) | {"val_loss": float(next(losses))},
    )
    output = tmp_path / "run"
    best = train(run_config(dataset, 8), output)
    steps = int(rows(output)[-1]["step"])
    first = int(rows(output)[0]["step"])
    assert f"the best model is that of step {first} of {steps}" in caplog.text
    cards = [CrystalVAE.from_pretrained(output / n).card for n in (best.name, "last")]
    assert [card["step"] for card in cards] == [first, steps]
    modes = {file.stat().st_mode for file in best.iterdir()}
    assert len(modes) == 1


def test_a_run_that_gets_better_says_nothing(dataset, tmp_path, caplog):
    train(run_config(dataset, 12, learning_rate=5e-3), tmp_path / "run")
    assert "the best model is" not in caplog.text


def test_crystals_to_validate_with_are_asked_for(dataset, tmp_path):
    config = run_config(dataset)
    data = dataclasses.replace(config.data, val=[])
    config = dataclasses.replace(config, data=data)
    with pytest.raises(ConfigError, match="names no val"):
        Trainer(config, tmp_path, tmp_path / "run", "cpu")
