import json

import numpy as np
import pytest

from crystalvae.cli import main
from crystalvae.crystal import AsymmetricUnit
from crystalvae.data.packed import pack, write_packed
from crystalvae.design.alike import Listed
from crystalvae.design.judges import NetworkJudge, accuracy, try_network
from crystalvae.design.optimize import (
    Goal,
    _best,
    best_known,
    chosen_among_known,
    optimize,
    told_target,
)
from crystalvae.design.properties import Calibration, fit_property, property_values
from crystalvae.design.sample import draw_checked
from crystalvae.errors import ConfigError, DataError
from crystalvae.generation import Constraints
from crystalvae.properties.score import property_estimates
from crystalvae.screening.density import density_of
from crystalvae.screening.uniqueness import ReferenceIndex
from tests.cli.conftest import table
from tests.conftest import random_setting
from tests.design.conftest import strained, unit


@pytest.fixture(scope="module")
def density(shipped, prototypes):
    return fit_property(
        shipped, prototypes, property_values(prototypes, "density"), seed=1
    )


def test_costs_point_to_the_goal():
    values = np.array([1.0, 2.0, 4.0])
    assert np.argmin(Goal("maximize").cost(values)) == 2
    assert np.argmin(Goal("minimize").cost(values)) == 0
    assert np.argmin(Goal("target", 2.5).cost(values)) == 1


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_doubt_counts_against_a_crystal(direction):
    goal = Goal(direction, caution=2.0)
    assert goal.cost(3.0, 0.5) == pytest.approx(goal.cost(3.0, 0.0) + 1.0)


def test_the_cost_of_a_target_is_the_expected_distance():
    draws = np.random.default_rng(0).normal(size=200_000)
    for mean, doubt in ((1.0, 0.5), (3.0, 0.5), (0.2, 2.0)):
        expected = np.abs(mean + 0.7 * doubt * draws - 1.0).mean()
        found = Goal("target", 1.0, caution=0.7).cost(mean, doubt)
        assert found == pytest.approx(expected, rel=0.02)
    plain = Goal("target", 1.0, caution=0.0).cost(np.array([0.5, 3.0]), 0.4)
    assert plain == pytest.approx([0.5, 2.0])


@pytest.mark.parametrize(
    "fields", [("nearest",), ("target",), ("minimize", np.nan, -1.0)]
)
def test_an_impossible_goal_is_refused(fields):
    with pytest.raises(ConfigError):
        Goal(*fields)


def test_densities_are_learned_from_the_latent(density):
    metrics = accuracy(density)
    assert metrics["error"] < 0.4 * metrics["baseline"]
    assert metrics["r2"] > 0.7
    assert density.trained_on + 2 * metrics["tried"] == 1208


def test_most_errors_are_within_two_standard_errors(density):
    metrics = accuracy(density)
    assert metrics["within_one"] > 0.5
    assert metrics["within_two"] > 0.85


def test_uncertainties_are_those_of_similar_predictions():
    rng = np.random.default_rng(0)
    mean = np.repeat([0.0, 10.0], 500)
    scale = np.where(mean == 0, 0.1, 2.0)
    spread = np.full(1000, 0.05)
    calibration = Calibration(mean, spread, rng.normal(size=1000) * scale)
    found = calibration(np.array([0.0, 10.0]), np.array([0.05, 0.05]))
    assert found == pytest.approx([0.1, 2.0], rel=0.4)
    more = calibration(np.array([0.0]), np.array([0.5]))
    assert more[0] > 5 * found[0]


def test_the_choice_is_tried_on_crystals_held_out(density):
    chosen = chosen_among_known(density, Goal("maximize"))
    assert chosen["true"] > chosen["all"] + 3
    assert chosen["predicted"] == pytest.approx(chosen["true"], rel=0.2)
    near = chosen_among_known(density, Goal("target", 5.0))
    assert near["true"] < 0.5 * near["all"]


def test_a_prediction_does_not_depend_on_the_setting(shipped, density, reference):
    structure, _ = reference
    other = random_setting(structure, np.random.default_rng(1))
    same = [AsymmetricUnit.from_structure(s) for s in (structure, other)]
    (first, second), doubts = density.predict(shipped, same)
    assert first == pytest.approx(second, rel=0.01, abs=0.02)
    assert (doubts > 0).all()


def test_a_regression_is_repeatable_and_disturbs_no_other_draws(shipped, prototypes):
    import torch

    values = property_values(prototypes, "size")
    before = torch.random.get_rng_state()
    first = fit_property(shipped, prototypes, values, epochs=1, seed=3)
    assert torch.equal(torch.random.get_rng_state(), before)
    again = fit_property(shipped, prototypes, values, epochs=1, seed=3)
    assert accuracy(first) == accuracy(again)


def test_what_cannot_be_learned_is_refused(shipped, prototypes):
    with pytest.raises(DataError, match="no property 'gap'; it has density"):
        property_values(prototypes, "gap")
    with pytest.raises(DataError, match="only 0 crystals"):
        fit_property(shipped, prototypes, property_values(prototypes, "none"))
    with pytest.raises(DataError, match="same value"):
        fit_property(shipped, prototypes, np.ones(len(prototypes)))


def test_the_best_known_crystals_are_the_best(shipped, prototypes):
    values = property_values(prototypes, "density")
    best = best_known(shipped, prototypes, values, Goal("maximize"), 5)
    assert len({crystal.formula for crystal in best}) == 5
    assert density_of(best[0]) == pytest.approx(values.max())
    values[:3] = np.inf
    assert len(best_known(shipped, prototypes, values, Goal("maximize"), 5)) == 5
    values[:] = np.nan
    assert best_known(shipped, prototypes, values, Goal("maximize"), 5) == []


def test_starts_obey_the_constraints(shipped, prototypes, caplog):
    values = property_values(prototypes, "density")
    only = Constraints(elements=frozenset({3, 8, 11, 17}))
    goal = Goal("maximize")
    starts = best_known(shipped, prototypes, values, goal, 3, only)
    assert starts
    assert all(crystal.composition.keys() <= {3, 8, 11, 17} for crystal in starts)
    none = Constraints(elements=frozenset({2}))
    free = best_known(shipped, prototypes, values, goal, 3)
    again = best_known(shipped, prototypes, values, goal, 3, none)
    assert [c.formula for c in again] == [c.formula for c in free]
    assert "obeys the constraints" in caplog.text


def test_parents_are_the_crystals_that_were_drawn_around(shipped, prototypes, density):
    heavy = best_known(
        shipped, prototypes, property_values(prototypes, "density"), Goal("maximize"), 2
    )
    seeds = []

    def spy(model, num, *, seed, latents, **options):
        seeds.append(seed)
        return draw_checked(model, num, seed=seed, latents=latents, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("crystalvae.design.neighbors.draw_checked", spy)
        found, _ = optimize(
            shipped,
            density,
            Goal("minimize"),
            [unit("rutile"), heavy[0]],
            Listed(ReferenceIndex(prototypes)),
            constraints=Constraints(max_atoms=12),
            rounds=2,
            draws=30,
            parents=4,
            beta=0.25,
            num_workers=1,
        )
    assert len(set(seeds)) == 2
    first = [item for item in found if item.round == 1]
    assert {item.parent.formula for item in first} == {"TiO2", heavy[0].formula}
    own = others = 0
    for item in first:
        other = heavy[0] if item.parent.formula == "TiO2" else unit("rutile")
        elements = item.crystal.composition.keys()
        own += len(elements & item.parent.composition.keys())
        others += len(elements & other.composition.keys())
    assert own > 2 * others
    formulas = [item.parent.formula for item in found if item.round == 2]
    assert len(set(formulas)) <= 4


def test_one_parent_a_formula():
    nacl, rutile = unit("nacl"), unit("rutile")
    population = [(1.0, strained("nacl", 0.3)), (0.5, nacl), (2.0, rutile)]
    assert _best(population, 5) == [nacl, rutile]
    assert _best(population, 1) == [nacl]


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_the_search_goes_where_it_should(shipped, prototypes, density, direction):
    values = property_values(prototypes, "density")
    middle = np.argsort(values)[len(values) // 2 :][:5]
    starts = [prototypes[int(row)] for row in middle]
    listed = Listed(ReferenceIndex(prototypes))
    found, history = optimize(
        shipped,
        density,
        Goal(direction),
        starts,
        listed,
        rounds=3,
        draws=40,
        parents=5,
        beta=0.3,
        num_workers=1,
    )
    best = np.mean([density_of(item.crystal) for item in found[:5]])
    sign = 1 if direction == "maximize" else -1
    assert sign * (best - np.median(values)) > 0.2
    assert not any(listed([item.crystal for item in found], num_workers=1))
    assert sum(len(item.values) for item in history) == len(found)
    for item in history:
        assert item.passed == item.known + item.repeated + len(item.values)


def test_command(shipped, prototypes, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["optimize", "mp_20", str(prototypes.path), "-o", str(out)]
    goal = ["--property", "density", "--target", "6"]
    size = ["-n", "5", "--rounds", "2", "--draws", "20", "--workers", "1"]
    options = ["--no-progress", "--device", "cpu"]
    assert main([*command, *goal, *size, *options]) == 0
    rows = table(out)
    assert len(rows) == 5 == len(list(out.glob("*.cif")))
    mean, doubt = (
        np.array([float(row[name]) for row in rows])
        for name in ("predicted_density", "uncertainty")
    )
    costs = Goal("target", 6.0).cost(mean, doubt)
    assert costs == pytest.approx(np.sort(costs), abs=1e-3)
    summary = json.loads((out / "summary.json").read_text())
    assert len(summary["rounds"]) == 2
    assert summary["accuracy"]["error"] > 0
    assert summary["choice_among_these"]["chosen"] > 0
    assert (out / "search.png").read_bytes()[:4] == b"\x89PNG"
    assert "held out" in capsys.readouterr().out
    assert (
        main([*command[:-1], str(tmp_path / "no"), "--property", "x", *goal[2:]]) == 1
    )
    assert "no property 'x'" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


def test_a_network_judges_what_it_knows(shipped, prototypes, monkeypatch):
    size = len(prototypes)
    judge = try_network(shipped, "band_gap", prototypes, np.zeros(size))
    assert len(judge.truth) == min(size, 1000)
    mean, doubt = judge.predicted
    assert accuracy(judge)["error"] == pytest.approx(np.abs(mean).mean())
    assert (doubt > 0).all()
    one = judge.predict(shipped, [unit("rutile")])
    estimate = property_estimates(shipped.properties, [unit("rutile")])[0]["band_gap"]
    assert (one[0][0], one[1][0]) == (estimate.value, estimate.uncertainty)
    assert len(judge.predict(shipped, [])[0]) == 0
    with pytest.raises(DataError, match="no crystal"):
        try_network(shipped, "band_gap", prototypes, np.full(size, np.nan))


def test_what_a_judge_says_nothing_of_falls(shipped, prototypes):
    class Silent(NetworkJudge):
        def predict(self, model, crystals):
            values = np.array([float(6 in c.composition) for c in crystals])
            return np.where(values > 0, np.nan, 1.0), np.ones(len(crystals))

    found, history = optimize(
        shipped,
        Silent("x"),
        Goal("minimize"),
        [unit("nacl"), unit("rutile")],
        Listed(ReferenceIndex(prototypes)),
        constraints=Constraints(max_atoms=8),
        rounds=1,
        draws=30,
        beta=0.5,
        num_workers=1,
    )
    assert found
    assert not any(6 in item.crystal.composition for item in found)
    assert len(history[0].values) == len(found)


def test_a_target_is_told_to_who_hears_it(shipped):
    target = Goal("target", 1.4)
    assert told_target(shipped, target, "band_gap") == {"band_gap": 1.4}
    others = {"e_above_hull": 0.1}
    told = told_target(shipped, target, "band_gap", others)
    assert told == {"band_gap": 1.4, "e_above_hull": 0.1}
    any_gap = {"band_gap": None}
    assert told_target(shipped, target, "band_gap", any_gap) == any_gap
    for goal, name, beta in (
        (Goal("maximize"), "band_gap", None),
        (target, "density", None),
        (Goal("target", 99.0), "band_gap", None),
        (target, "band_gap", 0.01),
    ):
        assert told_target(shipped, goal, name, None, beta) is None


def test_the_command_asks_the_network_where_there_is_one(
    shipped, prototypes, tmp_path, capsys, caplog
):
    path = tmp_path / "gaps"
    crystals = list(prototypes)[:200]
    estimates = property_estimates(shipped.properties, crystals)
    gaps = np.array([e["band_gap"].value for e in estimates])
    names = prototypes.material_ids[:200]
    write_packed(path, pack(crystals), names, {"band_gap": gaps})
    command = ["optimize", "mp_20", str(path), "--property", "band_gap"]
    size = ["--rounds", "1", "--draws", "20", "--workers", "1", "--no-progress"]
    out = tmp_path / "out"
    assert main([*command, "--target", "2", *size, "-o", str(out)]) == 0
    summary = json.loads((out / "summary.json").read_text())
    assert summary["judge"] == "property network"
    assert summary["accuracy"]["error"] < 0.01
    assert summary["conditions"]["band_gap"] == 2
    for row in table(out):
        assert row["predicted_band_gap"] == row["band_gap_estimate"]
    assert "is not that of" not in caplog.text
    write_packed(path, pack(crystals), names, {"band_gap": gaps[::-1]})
    again = ["--target", "2", *size, "-o", str(tmp_path / "again")]
    assert main([*command, *again]) == 0
    assert "is not that of" in caplog.text
    other = ["optimize", "mp_20", str(prototypes.path), "--property", "density"]
    ask = ["--maximize", "--judge", "network", "-o", str(tmp_path / "no")]
    assert main([*other, *ask, *size]) == 1
    assert "no network that knows density" in capsys.readouterr().err
