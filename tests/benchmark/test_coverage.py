import numpy as np
import pytest

from crystalvae.benchmark.coverage import coverage, crystal_fingerprints, fingerprints
from crystalvae.crystal import AsymmetricUnit
from tests.conftest import REFERENCE


def test_coverage_by_hand():
    reference = (np.array([[0.0], [1.0], [5.0]]), np.array([[0.0], [1.0], [2.0]]))
    generated = (np.array([[0.1], [0.9]]), np.array([[0.0], [1.0]]))
    found = coverage(generated, reference, (0.2, 0.5), num_generated=4)
    assert found["cov_recall"] == pytest.approx(2 / 3)
    assert found["cov_precision"] == pytest.approx(2 / 4)
    assert found["amsd_precision"] == pytest.approx(0.1)


def test_a_set_covers_itself():
    rng = np.random.default_rng(0)
    own = (rng.normal(size=(7, 4)), rng.normal(size=(7, 3)))
    found = coverage(own, own, (1e-9, 1e-9), num_generated=7)
    assert (found["cov_recall"], found["cov_precision"]) == (1, 1)


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
