import json

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from crystalvae.benchmark import generation
from crystalvae.benchmark.generation import (
    check_all,
    density_of,
    generation_metrics,
    group_chi_square,
    interval,
    jensen_shannon,
    template,
)
from crystalvae.benchmark.matching import match_rate
from crystalvae.benchmark.report import metrics_table
from crystalvae.cli import main
from crystalvae.crystal import AsymmetricUnit
from crystalvae.data.packed import pack, write_packed
from crystalvae.errors import DataError
from crystalvae.screening.uniqueness import ReferenceIndex, duplicate_of, is_known
from tests.conftest import REFERENCE, random_setting


def test_matches_by_hand():
    nacl, quartz = REFERENCE["nacl"][0], REFERENCE["quartz"][0]
    found = match_rate([nacl, None, nacl], [nacl, nacl, quartz], num_workers=1)
    assert (found.count, found.matches) == (3, 1)
    assert found.rmse < 1e-8
    assert abs(found.rate - 1 / 3) < 1e-12


def test_duplicates_are_found_in_any_setting(crystals):
    rng = np.random.default_rng(0)
    copies = [
        AsymmetricUnit.from_structure(random_setting(structure, rng))
        for structure, _ in REFERENCE.values()
    ]
    labels = duplicate_of([*crystals, *copies], num_workers=1)
    count = len(crystals)
    assert labels[:count] == list(range(count))
    assert labels[count:] == list(range(count))


def test_known_means_matching_the_reference(crystals):
    index = ReferenceIndex(crystals[:5])
    assert is_known(crystals, index, num_workers=1) == [
        i < 5 for i in range(len(crystals))
    ]


def test_metrics_of_known_crystals(crystals):
    draws = [*crystals, crystals[0], None]
    metrics = generation_metrics(draws, crystals, crystals[1:], num_workers=1)
    total = len(draws)
    assert metrics["draws"] == total
    assert metrics["complete"] == pytest.approx((total - 1) / total)
    assert metrics["structural_validity"] == pytest.approx((total - 1) / total)
    assert metrics["unique"] == pytest.approx((total - 2) / total)
    assert metrics["novel"] == pytest.approx(2 / total)
    assert metrics["p1_share"] == pytest.approx(1 / total)
    low, high = metrics["unique_interval"]
    assert low <= metrics["unique"] <= high


def test_perfect_copy_has_no_distance(crystals):
    metrics = generation_metrics(crystals, crystals, num_workers=1)
    assert metrics["density_wasserstein"] == pytest.approx(0)
    assert metrics["num_elements_wasserstein"] == pytest.approx(0)
    assert metrics["group_jensen_shannon"] == pytest.approx(0)


def test_jensen_shannon_limits():
    assert jensen_shannon([1, 2], [1, 2]) == pytest.approx(0)
    assert jensen_shannon([1, 1], [2, 2]) == pytest.approx(1)


def test_chi_square_by_hand():
    target = [1, 225, 225, 225]
    assert group_chi_square(target, target) == 0
    found = [1, 1, 225, 225]
    expected = (0.5 - 0.25) ** 2 / 0.25 + (0.5 - 0.75) ** 2 / 0.75
    assert group_chi_square(found, target) == pytest.approx(expected)


def test_chi_square_is_of_the_groups_that_the_target_has():
    target = [1] * 50 + [2] * 50
    assert group_chi_square([1] * 45 + [2] * 45 + [3] * 10, target) == pytest.approx(0)
    found = [1] * 54 + [2] * 36 + [3] * 10
    assert group_chi_square(found, target) == pytest.approx(2 * 0.1**2 / 0.5)


def test_density_of_rock_salt():
    crystal = AsymmetricUnit.from_structure(REFERENCE["nacl"][0])
    assert density_of(crystal) == pytest.approx(2.165, abs=0.01)


def test_interval_covers_the_mean():
    values = np.array([0.0] * 50 + [1.0] * 50)
    low, high = interval(values)
    assert 0.39 < low < 0.5 < high < 0.61


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 1.0])
def test_intervals_hold_the_truth_in_19_of_20_samples(share):
    rng = np.random.default_rng(0)
    samples = rng.random((2000, 100)) < share
    held = [low <= share <= high for low, high in map(interval, samples * 1.0)]
    assert np.mean(held) > 0.92


def test_of_no_failure_among_few_little_is_known():
    low, high = interval(np.ones(200))
    assert 0.97 < low < 0.99
    assert high == 1
    assert interval(np.ones(9))[0] < 0.75


def test_nothing_drawn_is_the_worst_and_no_number(crystals):
    metrics = generation_metrics([None, None], crystals, num_workers=1)
    assert metrics["group_jensen_shannon"] == metrics["element_jensen_shannon"] == 1
    assert metrics["density_wasserstein"] is None
    json.dumps(metrics, allow_nan=False)
    assert "–" in metrics_table(metrics, None)
    with pytest.raises(DataError, match="no crystals"):
        generation_metrics([])


def test_workers_find_the_same(crystals, monkeypatch):
    monkeypatch.setattr(generation, "PARALLEL_FROM", 1)
    several = check_all(crystals, num_workers=2)
    np.testing.assert_array_equal(several, check_all(crystals, num_workers=1))
    assert several[:, 0].all()


def test_template_forgets_elements(crystals):
    by_formula = {crystal.formula: crystal for crystal in crystals}
    nacl = by_formula["NaCl"]
    other = AsymmetricUnit(
        225, nacl.lattice, nacl.wyckoffs, np.array([12, 8]), nacl.frac_coords
    )
    assert template(nacl) == template(other)
    assert template(nacl) != template(by_formula["CsCl"])


@pytest.mark.parametrize("option", ["--beta", "--temperature"])
def test_structures_are_not_drawn(tmp_path, crystals, capsys, option):
    (tmp_path / "a.cif").write_text(crystals[0].to_cif())
    arguments = ["benchmark", str(tmp_path / "a.cif"), "-o", str(tmp_path / "o")]
    assert main([*arguments, option, "1"]) == 1
    assert "models only" in capsys.readouterr().err


def test_benchmark_command(tiny_model, tmp_path, crystals, capsys):
    tiny_model.save_pretrained(tmp_path / "model")
    folder = tmp_path / "in"
    folder.mkdir()
    for i, crystal in enumerate(crystals):
        (folder / f"{i}.cif").write_text(crystal.to_cif())
    (folder / "broken.cif").write_text("nothing")
    arguments = ["benchmark", str(folder), "--reference", str(folder)]
    out = tmp_path / "out"
    code = main([*arguments, "--train", str(folder), "-o", str(out), "--workers", "1"])
    assert code == 0
    content = json.loads((out / "metrics.json").read_text())["metrics"]
    assert content["draws"] == len(crystals) + 1
    assert content["novel"] == 0
    assert "| structural validity" in capsys.readouterr().out
    out = tmp_path / "model_out"
    arguments = ["benchmark", str(tmp_path / "model"), "-n", "4", "-o", str(out)]
    assert main([*arguments, "--workers", "1"]) == 0
    assert (out / "metrics.md").read_text().startswith("| metric")


def test_a_template_has_no_elements_and_no_setting():
    """Perovskites are one template, whichever element stands at the origin."""
    cell = Lattice.cubic(4)
    sites = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]

    def perovskite(a, b, x):
        structure = Structure(cell, [a, b, x, x, x], sites)
        return template(AsymmetricUnit.from_structure(structure))

    known = perovskite("Sr", "Ti", "O")
    assert perovskite("Ca", "Zr", "O") == known
    assert perovskite("Ti", "Sr", "O") == known
    assert perovskite("N", "Fe", "Li") == known
    rutile = AsymmetricUnit.from_structure(REFERENCE["rutile"][0])
    assert template(rutile) != known


def test_novelty_is_judged_against_all_sets_that_are_named(crystals, tmp_path):
    for name, part in (
        ("all", crystals[:4]),
        ("a", crystals[:2]),
        ("b", crystals[2:4]),
    ):
        write_packed(tmp_path / name, pack(part), list(map(str, range(len(part)))), {})

    def novel(*names):
        output = tmp_path / f"out_{'_'.join(names)}"
        sets = [word for name in names for word in ("--train", str(tmp_path / name))]
        options = ["--reference", str(tmp_path / "a"), "-n", "4", "--no-progress"]
        everything = ["benchmark", str(tmp_path / "all"), *sets, *options]
        assert main([*everything, "--workers", "1", "-o", str(output)]) == 0
        found = json.loads((output / "metrics.json").read_text())
        return found["metrics"]["novel"], found["data"]["density_wasserstein"]

    alone, floor = novel("a")
    assert alone == 0.5
    assert novel("a", "b") == (0.0, floor)
    assert novel("b")[1] != floor
