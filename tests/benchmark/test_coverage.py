import json

import numpy as np
import pytest

from crystalvae.benchmark import coverage as module
from crystalvae.benchmark.coverage import coverage, crystal_fingerprints, fingerprints
from crystalvae.benchmark.magpie import MEANS, SPREADS
from crystalvae.cli import main
from crystalvae.crystal import AsymmetricUnit
from crystalvae.errors import ConfigError
from tests.conftest import REFERENCE

UNIT = (np.zeros(1), np.ones(1))


def test_coverage_by_hand():
    reference = (np.array([[0.0], [1.0], [5.0]]), np.array([[0.0], [1.0], [2.0]]))
    generated = (np.array([[0.1], [0.9]]), np.array([[0.0], [1.0]]))
    found = coverage(generated, reference, (0.2, 0.5), num_generated=4, scale=UNIT)
    assert found["cov_recall"] == pytest.approx(2 / 3)
    assert found["cov_precision"] == pytest.approx(2 / 4)
    assert found["amsd_precision"] == pytest.approx(0.1)
    assert found["amsd_recall"] == pytest.approx((0.1 + 0.1 + 4.1) / 3)
    assert found["amcd_recall"] == pytest.approx((0 + 0 + 1) / 3)
    assert found["amcd_precision"] == pytest.approx(0)


def test_near_in_one_sense_is_not_covered():
    reference = (np.array([[0.0], [1.0]]), np.array([[5.0], [0.0]]))
    generated = (np.array([[0.0]]), np.array([[0.0]]))
    found = coverage(generated, reference, (0.1, 0.1), num_generated=1, scale=UNIT)
    assert found["cov_recall"] == 0
    assert found["cov_precision"] == 1


def test_distances_are_the_same_in_parts(monkeypatch):
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(23, 3)), rng.normal(size=(9, 3))
    whole = np.linalg.norm(one[:, None] - other[None], axis=-1)
    monkeypatch.setattr(module, "ROWS", 5)
    recall, precision = module.nearest_distances(one, other)
    np.testing.assert_allclose(recall, whole.min(0))
    np.testing.assert_allclose(precision, whole.min(1))


def test_spreads_are_the_unit_of_compositions():
    base = np.array(MEANS)[None]
    structure = np.zeros((1, 1))
    moved = base.copy()
    moved[0, 7] += 3 * SPREADS[7]
    moved[0, 80] -= 4 * SPREADS[80]
    found = coverage((structure, moved), (structure, base), (1, 6), num_generated=1)
    assert found["amcd_recall"] == pytest.approx(5)


def test_an_unknown_feature_counts_as_the_mean():
    base = np.array(MEANS)[None]
    unknown = base.copy()
    unknown[0, 3] = np.nan
    pair = (np.zeros((1, 1)), unknown), (np.zeros((1, 1)), base)
    assert coverage(*pair, (1, 1), num_generated=1)["amcd_recall"] == 0


def test_a_set_covers_itself():
    rng = np.random.default_rng(0)
    own = (rng.normal(size=(7, 4)), rng.normal(size=(7, 132)))
    found = coverage(own, own, (1e-9, 1e-9), num_generated=7)
    assert (found["cov_recall"], found["cov_precision"]) == (1, 1)


def test_nothing_generated_covers_nothing():
    nothing = (np.zeros((0, 4)), np.zeros((0, 132)))
    own = (np.zeros((2, 4)), np.zeros((2, 132)))
    found = coverage(nothing, own, (1, 1), num_generated=3)
    assert (found["cov_recall"], found["cov_precision"]) == (0, 0)


def test_the_table_shows_the_coverage_of_the_data_itself(
    crystals, tmp_path, monkeypatch, capsys
):
    def simple(some, **_):
        rows = [[c.volume / c.num_atoms] for c in some]
        return np.array(rows), np.tile(MEANS, (len(rows), 1))

    monkeypatch.setattr(module, "fingerprints", simple)
    monkeypatch.setattr(module, "require_featurizers", lambda: None)
    folder, half = tmp_path / "in", tmp_path / "half"
    folder.mkdir()
    half.mkdir()
    for i, crystal in enumerate(crystals):
        (folder / f"{i}.cif").write_text(crystal.to_cif())
        if i < 6:
            (half / f"{i}.cif").write_text(crystal.to_cif())
    arguments = ["benchmark", str(half), "--reference", str(folder), "--workers", "1"]
    arguments += ["--train", str(folder), "--coverage", "perov_5"]
    assert main([*arguments, "-o", str(tmp_path / "out")]) == 0
    content = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert content["metrics"]["cov_precision"] == 1
    assert content["metrics"]["cov_recall"] < 1
    assert 0 < content["data"]["cov_recall"] <= 1
    line = next(x for x in capsys.readouterr().out.split("\n") if "COV-R" in x)
    assert line.count("|") == 5
    assert line.split("|")[4].strip() == f"{content['data']['cov_recall']:.4f}"


def test_what_is_missing_is_said_before_anything_is_drawn(
    crystals, tmp_path, monkeypatch, capsys
):
    def absent():
        raise ConfigError("coverage needs matminer")

    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.cif").write_text(crystals[0].to_cif())
    arguments = ["benchmark", "mp_20", "-n", "5", "-o", str(tmp_path / "out")]
    monkeypatch.setattr(module, "require_featurizers", absent)
    monkeypatch.setattr("crystalvae.design.sample.raw_draws", None)
    reference = ["--reference", str(tmp_path / "in")]
    assert main([*arguments, *reference, "--coverage", "mp_20"]) == 1
    assert "needs matminer" in capsys.readouterr().err
    assert main([*arguments, *reference, "--train", str(tmp_path / "no")]) == 1
    assert "unexpected" not in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_orbits_give_the_mean_over_atoms():
    pytest.importorskip("matminer")
    from matminer.featurizers.site.fingerprint import CrystalNNFingerprint

    featurizer = CrystalNNFingerprint.from_preset("ops")
    for name in ("rutile", "calcite", "perovskite"):
        crystal = AsymmetricUnit.from_structure(REFERENCE[name][0])
        structure = crystal.to_structure()
        rows = [featurizer.featurize(structure, i) for i in range(len(structure))]
        found, composition = crystal_fingerprints(crystal)
        np.testing.assert_allclose(found, np.mean(rows, axis=0), atol=1e-6)
        assert composition.shape == (132,)
    kept = fingerprints([crystal, crystal], num_workers=1)
    np.testing.assert_allclose(kept[0][0], found)


def test_fingerprints_are_found_again_by_content(crystals, tmp_path, monkeypatch):
    asked = []

    def slow(crystal):
        asked.append(crystal)
        if crystal.num_atoms == crystals[0].num_atoms:
            return None
        return np.full(61, crystal.volume), np.full(132, float(crystal.number))

    monkeypatch.setattr(module, "crystal_fingerprints", slow)
    path = tmp_path / "coverage.npz"
    first = fingerprints(crystals[:4], num_workers=1, cached=path)
    assert len(asked) == 4
    again = fingerprints([*crystals[5:6], *crystals[:4]], num_workers=1, cached=path)
    assert len(asked) == 5
    np.testing.assert_array_equal(again[0][1:], first[0])
    assert len(first[0]) < 4
    path.write_bytes(b"truncated")
    fingerprints(crystals[:4], num_workers=1, cached=path)
    assert len(asked) == 9


def test_an_interruption_keeps_what_was_done(crystals, tmp_path, monkeypatch):
    def until_the_second(crystal):
        if crystal is crystals[1]:
            raise KeyboardInterrupt
        return np.zeros(61), np.zeros(132)

    monkeypatch.setattr(module, "crystal_fingerprints", until_the_second)
    monkeypatch.setattr(module, "CHUNK", 1)
    path = tmp_path / "coverage.npz"
    with pytest.raises(KeyboardInterrupt):
        fingerprints(crystals, num_workers=1, cached=path)
    with np.load(path) as kept:
        assert len(kept["key"]) == 1
