"""A bias of the elements: what it does, and that it is found again."""

import pytest
import torch
from ase.data import atomic_masses, atomic_numbers

from crystalvae.cli import main
from crystalvae.data.packed import PackedDataset, pack, write_packed
from crystalvae.design.settings import sampling_defaults, sampling_options
from crystalvae.errors import ConfigError
from crystalvae.generation import SamplingOptions
from crystalvae.model import CrystalVAE
from crystalvae.training.calibrate import (
    calibrate_elements,
    draw_compositions,
    element_shares,
)

NUM = 1500
HOT = SamplingOptions(temperature=1.0)


def shares_of(model, bias, seed=5):
    options = SamplingOptions(temperature=1.0, element_bias=bias)
    return element_shares(
        draw_compositions(model, NUM, beta=0.5, options=options, seed=seed)
    )


def test_shares_are_mean_atomic_fractions():
    shares = element_shares([{1: 2, 8: 1}, {8: 5}])
    assert shares[1] == pytest.approx(1 / 3)
    assert shares[8] == pytest.approx(2 / 3)
    assert shares.sum() == pytest.approx(1)
    with pytest.raises(ValueError, match="no composition"):
        element_shares([])


def test_a_bias_makes_an_element_commoner_or_absent(tiny_model):
    usual = shares_of(tiny_model, {})
    assert shares_of(tiny_model, {"Li": 4.0})[3] > 3 * usual[3] > 0
    assert shares_of(tiny_model, {"Li": -50.0})[3] == 0
    with pytest.raises(ConfigError, match="'Xx' is no element"):
        SamplingOptions(element_bias={"Xx": 1.0})
    with pytest.raises(ConfigError, match="Li goes from -50 to 50"):
        SamplingOptions(element_bias={"Li": float("nan")})


def test_calibration_finds_a_bias_again(tiny_model):
    hidden = {"O": 2.5, "Ti": -3.0, "Au": 2.0}
    wanted, usual = shares_of(tiny_model, hidden), shares_of(tiny_model, {})
    bias = calibrate_elements(
        tiny_model,
        wanted,
        beta=0.5,
        options=HOT,
        match="elements",
        rounds=5,
        num=NUM,
    )
    reached = shares_of(tiny_model, bias, seed=6)
    for z in (8, 79):
        assert usual[z] < wanted[z] / 2
        assert float(reached[z]) == pytest.approx(float(wanted[z]), rel=0.2)
    assert usual[22] > 3 * reached[22]
    assert bias["Ti"] < -0.5 < 0.5 < bias["Au"]


def test_calibration_finds_the_mean_mass_with_the_least_change(tiny_model):
    mass = torch.from_numpy(atomic_masses[:119])
    wanted = shares_of(tiny_model, {"H": 2.0, "C": 2.5, "O": 2.5})
    usual = float(shares_of(tiny_model, {}) @ mass)
    bias = calibrate_elements(
        tiny_model, wanted, beta=0.5, options=HOT, rounds=5, num=NUM
    )
    reached = float(shares_of(tiny_model, bias, seed=6) @ mass)
    missing = usual - float(wanted @ mass)
    assert missing > 8
    assert abs(reached - float(wanted @ mass)) < 0.2 * missing
    by_mass = sorted(bias, key=lambda symbol: mass[atomic_numbers[symbol]])
    values = [bias[symbol] for symbol in by_mass]
    assert values == sorted(values, reverse=True)
    with pytest.raises(ConfigError, match="mass, elements"):
        calibrate_elements(tiny_model, wanted, beta=0.5, options=HOT, match="density")


def test_draws_of_one_element_are_not_calibrated(tiny_model):
    only = SamplingOptions(temperature=1.0, element_bias={"C": 50.0}, stop_bias=50.0)
    with pytest.raises(ConfigError, match="single element"):
        calibrate_elements(
            tiny_model, element_shares([{6: 1}]), beta=0.5, options=only, num=50
        )


def test_the_command_writes_a_model_that_draws_so(tiny_model, crystals, tmp_path):
    data = tmp_path / "data"
    write_packed(data, pack(crystals), [str(i) for i in range(len(crystals))], {})
    tiny_model.card["sampling"] = {"beta": 0.5, "temperature": 1.0, "stop_bias": 0.1}
    tiny_model.save_pretrained(tmp_path / "model")
    names = [str(tmp_path / "model"), str(data), "-o", str(tmp_path / "new")]
    command = ["calibrate", *names, "--rounds", "3", "-n", "1000", "--device", "cpu"]
    command += ["--match", "elements"]
    assert main(command) == 0
    found = CrystalVAE.from_pretrained(tmp_path / "new")
    how = sampling_defaults(found)
    assert how["stop_bias"] == 0.1
    present = element_shares(c.composition for c in PackedDataset(data)) > 0
    before, after = shares_of(found, {}), shares_of(found, how["element_bias"])
    assert after[present].sum() > 2 * before[present].sum()
    assert torch.equal(
        found.decoder.species.weight,
        CrystalVAE.from_pretrained(tmp_path / "model").decoder.species.weight,
    )
    assert main(command) == 1


@pytest.mark.parametrize("match", ["mass", "elements"])
def test_elements_that_were_never_seen_stay_away(tiny_model, match):
    seen = ["Li", "O", "Ti", "Pb", "Cl"]
    tiny_model.card = {"trained_on": {"max_atoms": 9, "elements": seen}}
    tiny_model.card["sampling"] = {"element_bias": {"Po": 0.3, "O": 0.1}}
    how = sampling_defaults(tiny_model, temperature=None)
    assert how["element_bias"] == {"O": 0.1}
    bias = calibrate_elements(
        tiny_model,
        element_shares([{3: 1, 82: 3}]),
        beta=0.5,
        options=sampling_options(tiny_model, how | {"temperature": 1.0}),
        match=match,
        rounds=4,
        num=200,
    )
    assert set(bias) <= set(seen)
    assert bias["Pb"] > 0


def test_an_asked_bias_comes_on_top_of_the_cards(tiny_model):
    tiny_model.card["sampling"] = {"element_bias": {"O": 0.5, "Li": 0.1}}
    asked = {"O": 1.0, "Pb": -1.0}
    both = sampling_defaults(tiny_model, element_bias=asked)["element_bias"]
    assert both == {"O": 1.5, "Li": 0.1, "Pb": -1.0}
    alone = sampling_defaults(tiny_model, temperature=1.0, element_bias=asked)
    assert alone["element_bias"] == asked
