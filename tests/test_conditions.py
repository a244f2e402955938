import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from crystalvae.cli import main
from crystalvae.conditions import (
    LEVELS,
    Condition,
    ConditionEmbedding,
    told_values,
)
from crystalvae.config import from_dict
from crystalvae.crystal import AsymmetricUnit
from crystalvae.data.packed import pack, write_packed
from crystalvae.decoder import PARTS
from crystalvae.design.neighbors import draw_around
from crystalvae.design.ranking import log_likelihoods
from crystalvae.design.sample import raw_draws
from crystalvae.design.settings import sampling_defaults
from crystalvae.errors import ConfigError
from crystalvae.model import CrystalVAE
from crystalvae.training.config import RunConfig, Source
from crystalvae.training.data import load_sources, require_known
from crystalvae.training.schedule import draw_told
from crystalvae.training.start import learned_conditions, start_from
from crystalvae.training.trainer import Trainer
from tests.conftest import REFERENCE, TINY_OPTIONS

GAP = Condition("gap", low=0.0, high=8.0, scale=0.5)
HULL = Condition("e_above_hull", low=0.0, high=0.5, scale=0.05, share=0.9)
FREE = 1.0
"""β at which a decoder listens."""


def embedding(conditions=(GAP, HULL), least_beta=0.0):
    made = ConditionEmbedding(conditions, 5, least_beta)
    torch.manual_seed(0)
    torch.nn.init.normal_(made.linear.weight)
    return made


def shift(values, beta=FREE, **options):
    values = torch.tensor(values, dtype=torch.float)
    return embedding(**options)(values, torch.full((len(values),), beta))


def test_what_is_not_told_moves_nothing():
    nothing, one, both = shift([[math.nan] * 2, [2.0, math.nan], [2.0, 0.1]])
    assert not nothing.any()
    assert one.any()
    only = shift([[math.nan, 0.1]])[0]
    torch.testing.assert_close(both, one + only)


def test_values_beyond_the_ends_are_the_ends_and_others_are_told_apart():
    low, under, high, over = shift([[0.0, 0], [-3.0, 0], [8.0, 0], [80.0, 0]])
    torch.testing.assert_close(low, under)
    torch.testing.assert_close(high, over)
    grid = shift([[gap, 0.0] for gap in np.linspace(0, 8, 9)])
    apart = torch.cdist(grid, grid) + 10 * torch.eye(9)
    assert apart.min() > 0.1


def test_it_is_finer_where_the_scale_says():
    near, step = shift([[math.nan, 0.0], [math.nan, 0.02]])
    far, same_step = shift([[math.nan, 0.40], [math.nan, 0.42]])
    assert (near - step).norm() > 3 * (far - same_step).norm()


def test_a_decoder_listens_from_a_beta_upwards():
    assert shift([[1.0, 0.0]], beta=0.1, least_beta=0.1).any()
    assert not shift([[1.0, 0.0]], beta=0.09, least_beta=0.1).any()


def test_quantiles_are_drawn_from_evenly():
    generator = torch.Generator().manual_seed(0)
    told = {"gap": [0.0, 1.0, 8.0]}
    values = told_values([GAP, HULL], told, 4000, generator)
    assert values[:, 1].isnan().all()
    gap = values[:, 0]
    assert gap.min() >= 0
    assert gap.max() <= 8
    assert float((gap < 1).float().mean()) == pytest.approx(0.5, abs=0.03)
    assert float((gap < 4.5).float().mean()) == pytest.approx(0.75, abs=0.03)


def test_values_that_a_model_does_not_know_are_refused():
    assert told_values([GAP], {}, 3) is None
    assert told_values([GAP], {"gap": 2}, 3).tolist() == [[2.0]] * 3
    for told in ({"gap": 9.0}, {"gap": math.nan}, {"gap": [0.0, 9.0]}):
        with pytest.raises(ConfigError, match="gap goes from 0 to 8"):
            told_values([GAP], told, 3)
    with pytest.raises(ConfigError, match="'bandgap'; it knows gap"):
        told_values([GAP], {"bandgap": 1.0}, 3)
    for wrong in ({"low": 2.0, "high": 1.0}, {"scale": 0.0}, {"share": 0.0}):
        with pytest.raises(ValueError, match="gap"):
            Condition("gap", **wrong)


def test_each_property_is_told_as_often_as_its_share_says():
    values = torch.zeros(5000, 2)
    values[:1000] = math.nan
    told = draw_told(values, [GAP, HULL], torch.Generator().manual_seed(0))
    assert told[:1000].isnan().all()
    shares = told[1000:].isfinite().double().mean(0)
    np.testing.assert_allclose(shares, [0.5, 0.9], atol=0.03)
    both = told[1000:].isfinite().all(1).double().mean()
    assert float(both) == pytest.approx(0.45, abs=0.03)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Rock salt with a gap of 6, caesium chloride with one of 1."""
    wanted = {"NaCl": 6.0, "CsCl": 1.0}
    named = {
        AsymmetricUnit.from_structure(s).formula: AsymmetricUnit.from_structure(s)
        for s, _ in REFERENCE.values()
    }
    crystals = [named[formula] for formula in wanted] * 32
    path = tmp_path_factory.mktemp("data") / "two"
    gaps = np.array(list(wanted.values()) * 32)
    write_packed(path, pack(crystals), list(map(str, range(64))), {"own_gap": gaps})
    return path


def run_config(dataset, **model):
    source = {"path": str(dataset), "columns": {"gap": "own_gap"}}
    return from_dict(
        RunConfig,
        {
            "data": {"train": [source], "val": [source]},
            "model": {
                "encoder": {"name": "gated", "options": TINY_OPTIONS},
                "latent": {"dim": 8, "hidden_dim": 16, "pair_dim": 8, "beta_max": 3.0},
                "decoder": {"dim": 32, "num_layers": 1, "num_heads": 4},
                "conditions": [{"name": "gap", "high": 8.0, "share": 0.8}],
            }
            | model,
            "training": {
                "epochs": 120,
                "batch_size": 64,
                "warmup_steps": 5,
                "learning_rate": 1e-2,
                "precision": "32-true",
                "beta_min_share": 0.1,
                "beta_high_share": 0.8,
                "validate_every": 60,
            },
        },
    )


@pytest.fixture(scope="module")
def trained(dataset, tmp_path_factory):
    output = tmp_path_factory.mktemp("run")
    return Trainer(run_config(dataset), output, output, accelerator="cpu").fit()


def test_draws_have_what_they_were_told(trained):
    model = CrystalVAE.from_pretrained(trained, device="cpu")

    def share_of_caesium(**conditions):
        drawn = raw_draws(model, 200, beta=3.0, conditions=conditions)
        return np.mean([55 in c.composition for c in drawn if c is not None])

    assert share_of_caesium(gap=1.0) > 0.9
    assert share_of_caesium(gap=6.0) < 0.1
    assert 0.2 < share_of_caesium() < 0.8


def test_sample_takes_conditions(trained, tmp_path, capsys):
    def sample(*options, name="out"):
        output = ["-n", "8", "--beta", "3", "--raw", "-o", str(tmp_path / name)]
        return main(["sample", str(trained), "--no-progress", *output, *options])

    assert sample("--condition", "gap=1") == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["conditions"] == {"gap": 1.0}
    for wrong, said in (
        ("gap=99", "gap goes from 0 to 8"),
        ("colour=1", "cannot be told 'colour'"),
    ):
        assert sample("--condition", wrong, name="wrong") == 1
        assert said in capsys.readouterr().err
        assert not (tmp_path / "wrong").exists()


def test_required_elements_and_conditions_go_together(trained):
    model = CrystalVAE.from_pretrained(trained, device="cpu")
    drawn = model.sample(
        8, require=["Cl"], conditions={"gap": 1.0}, beta=3.0, distinct=False
    )
    assert all({17, 55} == set(crystal.composition) for crystal in drawn)


def test_a_card_says_what_is_told_by_default(trained, capsys, tmp_path):
    model = CrystalVAE.from_pretrained(trained, device="cpu")
    quantiles = [0.0, 1.0, 6.0]
    model.card["sampling"] = {"conditions": {"gap": quantiles}}
    model.card["likely_stable_sampling"] = {
        "conditions": {"gap": 6.0},
        "condition_strength": 2.0,
    }
    plain = sampling_defaults(model)
    assert plain["conditions"] == {"gap": quantiles}
    assert plain["condition_strength"] == 1
    assert sampling_defaults(model, conditions={"gap": 2})["conditions"] == {"gap": 2}
    choosy = sampling_defaults(model, likely_stable=0.8)
    assert choosy["conditions"] == {"gap": 6.0}
    assert choosy["condition_strength"] == 2
    model.save_pretrained(tmp_path)
    assert main(["info", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "can be told     gap 0 to 8" in said
    assert "gap as in the data (0 to 6)" in said


@pytest.fixture
def salt():
    return next(
        AsymmetricUnit.from_structure(s)
        for s, _ in REFERENCE.values()
        if s.composition.reduced_formula == "NaCl"
    )


def test_predictions_and_neighbours_are_told_what_is_due_for_them(trained, salt):
    model = CrystalVAE.from_pretrained(trained, device="cpu")

    def nats(gap):
        model.card["prediction_conditions"] = {"gap": gap}
        return log_likelihoods(model, [salt])[0]

    assert nats(6.0) > nats(1.0) + 1

    def share_of_sodium(gap):
        model.card["design_conditions"] = {"gap": gap}
        posterior = model.encode([salt], 3.0)
        drawn, _ = draw_around(model, posterior, 60, beta=3.0, raw=True)
        return np.mean([11 in draw.crystal.composition for draw in drawn])

    assert share_of_sodium(6.0) > 0.9
    assert share_of_sodium(1.0) < 0.1


def test_the_more_conditions_count_the_better_they_are_obeyed(trained):
    model = CrystalVAE.from_pretrained(trained, device="cpu")

    def share_of_caesium(strength):
        drawn = raw_draws(
            model, 300, beta=3.0, conditions={"gap": 1.0}, condition_strength=strength
        )
        return np.mean([55 in c.composition for c in drawn if c is not None])

    free = np.mean([55 in c.composition for c in raw_draws(model, 300, beta=3.0) if c])
    nothing, little, all_of_it = map(share_of_caesium, (0.0, 0.3, 1.0))
    assert nothing == pytest.approx(free, abs=0.02)
    assert nothing + 0.1 < little < all_of_it
    with pytest.raises(ConfigError, match="strength goes from 0 to 10"):
        share_of_caesium(11.0)


def test_a_model_that_gets_conditions_begins_as_it_was(dataset, trained, tmp_path):
    deaf = run_config(dataset, conditions=[])
    source = CrystalVAE(deaf.model)
    source.save_pretrained(tmp_path / "deaf")
    config = dataclasses.replace(run_config(dataset), init=str(tmp_path / "deaf"))
    begun = Trainer(config, tmp_path, tmp_path / "run", accelerator="cpu")
    model = begun.model.module.eval()
    batch = begun.crystals.store.batch(torch.arange(8))
    beta, z = torch.full((8,), FREE), torch.randn(8, 8)
    told = torch.full((8, 1), 3.0)
    with torch.no_grad():
        quiet = model.decoder(batch, z, beta)
        heard = model.decoder(batch, z, beta, told=told)
        before = CrystalVAE.from_pretrained(tmp_path / "deaf", device="cpu").decoder(
            batch, z, beta
        )
    for part in PARTS:
        torch.testing.assert_close(heard[part], quiet[part])
        torch.testing.assert_close(before[part], quiet[part])


def test_what_was_learned_of_a_property_goes_on_beside_new_ones(
    dataset, trained, tmp_path
):
    both = [
        {"name": "other", "high": 9.0},
        {"name": "gap", "high": 8.0, "share": 0.3},
    ]
    config = dataclasses.replace(
        run_config(dataset, conditions=both), init=str(trained)
    )
    with pytest.raises(ConfigError, match="'other'"):  # which no crystal has
        Trainer(config, tmp_path, tmp_path / "run", accelerator="cpu")
    model = CrystalVAE(config.model)
    source = start_from(model, str(trained), tmp_path)
    new, kept = model.decoder.conditions.linear.weight.split(LEVELS, 1)
    assert not new.any()
    assert torch.equal(kept, source.decoder.conditions.linear.weight)
    assert learned_conditions(model, source) == {"gap"}
    wider = run_config(dataset, conditions=[{"name": "gap", "high": 9.0}])
    again = CrystalVAE(wider.model)
    assert learned_conditions(again, start_from(again, str(trained), tmp_path)) == set()
    assert not again.decoder.conditions.linear.weight.any()


def test_properties_that_no_crystal_has_are_refused(dataset, tmp_path):
    named = [{"name": "gap", "high": 8.0}, {"name": "colour"}]
    config = run_config(dataset, conditions=named)
    with pytest.raises(ConfigError, match=r"no training crystal has .*'colour'"):
        Trainer(config, tmp_path, tmp_path, accelerator="cpu")


def test_what_a_set_does_not_know_is_not_told(dataset, tmp_path):
    limits = run_config(dataset).model.decoder
    sources = [Source(str(dataset)), Source(str(dataset), columns={"gap": "own_gap"})]
    told = load_sources(sources, tmp_path, limits, told=["gap"]).told[:, 0]
    assert told[:64].isnan().all()
    assert sorted(set(told[64:].tolist())) == [1.0, 6.0]


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"gap": "2"}, "gap is told as a number, not '2'"),
        ({"gap": [1.0]}, "two quantiles"),
        ({"gap": [1.0, "x"]}, "told as a number"),
    ],
)
def test_what_is_no_value_is_refused(told, said):
    with pytest.raises(ConfigError, match=said):
        told_values([GAP], told, 3)


def test_none_and_any_are_not_told(trained, tmp_path):
    assert told_values([GAP, HULL], {"gap": None}, 3).isnan().all()
    model = CrystalVAE.from_pretrained(trained, device="cpu")
    model.card["sampling"] = {"conditions": {"gap": 1.0}}
    assert sampling_defaults(model)["conditions"] == {"gap": 1.0}
    for beta in (3.0, 0.05):
        how = sampling_defaults(model, conditions={"gap": None}, beta=beta)
        assert how["conditions"] == {}
    assert sampling_defaults(model, beta=0.05)["conditions"] == {}
    output = tmp_path / "out"
    options = ["-n", "8", "--beta", "3", "--raw", "--no-progress", "-o", str(output)]
    assert main(["sample", str(trained), "--condition", "gap=any", *options]) == 0
    assert json.loads((output / "summary.json").read_text())["conditions"] == {}


def test_options_that_would_do_nothing_are_refused(trained, salt, tiny_model):
    model = CrystalVAE.from_pretrained(trained, device="cpu")
    with pytest.raises(ConfigError, match="listens to conditions from beta"):
        raw_draws(model, 4, beta=0.05, conditions={"gap": 1.0})
    for nothing in ({}, {"conditions": {"gap": None}}):
        with pytest.raises(ConfigError, match="nothing is told"):
            raw_draws(model, 4, condition_strength=2.0, **nothing)
    with pytest.raises(ConfigError, match="cannot be told 'gap', or anything else"):
        raw_draws(tiny_model, 4, conditions={"gap": 1.0})
    with pytest.raises(ConfigError, match="map properties to values"):
        raw_draws(model, 4, conditions="gap")
    posterior = model.encode([salt], 0.05)
    with pytest.raises(ConfigError, match="listens"):
        draw_around(model, posterior, 4, beta=0.05, conditions={"gap": 1.0})
    z = torch.zeros(2, 8)
    with pytest.raises(ConfigError, match="listens"):
        model.decode(z, conditions={"gap": 1.0})
    with pytest.raises(ConfigError, match="shape"):
        model.decode(z, beta=3.0, told=torch.ones(2, 3))


def test_below_its_beta_a_decoder_draws_the_same_whatever_the_card_tells(trained, salt):
    model = CrystalVAE.from_pretrained(trained, device="cpu")
    posterior = model.encode([salt], 0.05)

    def drawn():
        found, _ = draw_around(model, posterior, 12, beta=0.05, raw=True)
        return [draw.crystal for draw in found]

    untold = drawn()
    model.card["design_conditions"] = {"gap": 1.0}
    assert drawn() == untold


def test_decoding_and_scores_can_be_told(trained, salt):
    model = CrystalVAE.from_pretrained(trained, device="cpu")
    z = torch.zeros(1, 8)
    for gap, element in ((1.0, 55), (6.0, 11)):
        (crystal,) = model.decode(z, beta=3.0, conditions={"gap": gap})
        assert element in crystal.composition
    scores = [
        float(model.log_prob([salt], z, 3.0, conditions={"gap": gap})["total"])
        for gap in (6.0, 1.0)
    ]
    assert scores[0] > scores[1] + 1


@pytest.mark.parametrize(
    ("conditions", "told_beta", "said"),
    [
        ([{"name": "gap"}, {"name": "gap"}], 0.1, "named twice"),
        ([{"name": "gap", "high": math.inf}], 0.1, "low and high"),
        ([{"name": "gap", "scale": math.inf}], 0.1, "scale"),
        ([{"name": "gap"}], 4.0, "told_beta"),
        ([{"name": "gap"}], math.nan, "told_beta"),
    ],
)
def test_impossible_conditions_are_refused(dataset, conditions, told_beta, said):
    with pytest.raises(ConfigError, match=said):
        run_config(dataset, conditions=conditions, told_beta=told_beta)


def test_large_numbers_are_resolved_as_evenly_as_small_ones():
    small = embedding([Condition("modulus", high=2.0)])
    large = embedding([Condition("modulus", high=2e11)])
    values, beta = torch.linspace(0, 2, 9)[:, None], torch.ones(9)
    torch.testing.assert_close(small(values, beta), large(1e11 * values, beta))


def test_columns_and_units_that_cannot_be_meant_are_refused(dataset, tmp_path, caplog):
    limits = run_config(dataset).model.decoder

    def load(**columns):
        return load_sources(
            [Source(str(dataset), columns=columns)], tmp_path, limits, told=["gap"]
        )

    with pytest.raises(ConfigError, match=r"no property 'own_gapp'; .* own_gap"):
        load(gap="own_gapp")
    with pytest.raises(
        ConfigError, match="'gpa', which this training does not ask for"
    ):
        load(gpa="own_gap")
    crystals = load(gap="own_gap")  # gaps of 1 and 6
    with pytest.raises(ConfigError, match="same unit"):
        require_known(crystals, [Condition("gap", high=0.5)])
    require_known(crystals, [Condition("gap", high=2.0)])
    assert "50% of the training crystals" in caplog.text


def test_neighbors_take_conditions(trained, salt, tmp_path):
    file, found = tmp_path / "salt.cif", tmp_path / "found"
    file.write_text(salt.to_cif())
    options = ["--beta", "3", "-n", "40", "--no-progress", "-o", str(found)]
    told = ["--condition", "gap=1", "--condition-strength", "2"]
    assert main(["neighbors", str(trained), str(file), *told, *options]) == 0
    summary = json.loads((found / "summary.json").read_text())
    assert summary["conditions"] == {"gap": 1.0}
    assert summary["condition_strength"] == 2
    files = list(found.glob("*.cif"))
    assert files
    assert all("Cs" in file.read_text() for file in files)
