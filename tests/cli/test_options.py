import argparse
import math

import pytest

from crystalvae.cli import build_parser
from crystalvae.cli.options import part_temperatures, refine_settings
from crystalvae.design.settings import refinement_of, sampling_defaults
from crystalvae.errors import ConfigError
from crystalvae.generation import Refinement, SamplingOptions
from tests.refinement.conftest import tiny_refiner


def test_temperatures_of_parts():
    assert part_temperatures("count=0.3, element=1") == {"count": 0.3, "element": 1.0}
    with pytest.raises(argparse.ArgumentTypeError, match="PART=TEMPERATURE"):
        part_temperatures("count")
    with pytest.raises(ConfigError, match="'colour'"):
        SamplingOptions(part_temperature={"colour": 1.0})


def test_settings_of_refinement():
    found = refine_settings("passes=3, noise=0.5,limit=inf")
    assert found == {"passes": 3, "noise": 0.5, "limit": None}
    assert refine_settings("limit=-inf,noise=inf") == {
        "limit": -math.inf,
        "noise": math.inf,
    }
    with pytest.raises(argparse.ArgumentTypeError, match="twice"):
        refine_settings("passes=3,passes=0")
    for wrong in ("passes", "passes=many", ""):
        with pytest.raises(argparse.ArgumentTypeError, match=r"NAME=VALUE|no number"):
            refine_settings(wrong)


def test_what_is_asked_for_wins_over_the_card(tiny_model):
    parts = {"part_temperature": {"count": 0.3}, "stop_bias": 0.2}
    card = {"beta": 0.7, "temperature": 0.9, **parts}
    tiny_model.card["sampling"] = card
    usual = sampling_defaults(tiny_model)
    assert card.items() <= usual.items()
    asked = sampling_defaults(tiny_model, temperature=1.0)
    plain = {"part_temperature": {}, "stop_bias": 0.0}
    assert asked == {**usual, "temperature": 1.0, **plain}
    parts = sampling_defaults(tiny_model, part_temperature={"lattice": 0.5})
    assert parts == {**usual, "part_temperature": {"lattice": 0.5}}


def test_a_card_recommends_refinement_to_who_has_a_refiner(tiny_model):
    card = {"passes": 3, "noise": 0.1, "strain": 0.01, "limit": 2.0}
    tiny_model.card["refinement"] = card
    assert refinement_of(tiny_model).passes == 0
    with pytest.raises(ConfigError, match="no refiner"):
        refinement_of(tiny_model, {"noise": 0.1})
    tiny_model.refiner = tiny_refiner()
    assert refinement_of(tiny_model) == Refinement(**card)
    tiny_model.card["prediction_refinement"] = {"limit": 3.0}
    assert refinement_of(tiny_model) == Refinement(**card)
    looser = refinement_of(tiny_model, purpose="prediction")
    assert looser == Refinement(**card | {"limit": 3.0})
    assert refinement_of(tiny_model, {"limit": 1.0}, purpose="prediction").limit == 1.0
    asked = {"passes": 5, "limit": None}
    assert refinement_of(tiny_model, asked) == Refinement(**card | asked)
    with pytest.raises(ConfigError, match="did you mean 'passes'"):
        refinement_of(tiny_model, {"pases": 5})
    del tiny_model.card["refinement"]
    assert refinement_of(tiny_model) == Refinement()


@pytest.mark.parametrize("verb", ["sample", "benchmark"])
def test_both_verbs_draw_alike(verb):
    options = ["--part-temperature", "count=0.5", "--beta", "0.1"]
    options += ["--stop-bias", "-0.5", "--refine", "passes=2"]
    args = build_parser().parse_args([verb, "m", "-o", "d", *options])
    assert (args.stop_bias, args.refine) == (-0.5, {"passes": 2})
    assert args.part_temperature == {"count": 0.5}
    assert (args.beta, args.temperature, args.prior, args.seed) == (0.1, None, None, 0)
