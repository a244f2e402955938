"""What is asked for on the command line reaches the functions that do it."""

import numpy as np
import pytest

from crystalvae.cli import main
from crystalvae.data.packed import pack, write_packed
from crystalvae.data.prototypes import prototype_crystals
from crystalvae.pretrained import shipped_models


class Reached(Exception):
    """Stands for the function that was called."""

    def __init__(self, arguments, options):
        self.arguments, self.options = arguments, options


@pytest.fixture
def known(tmp_path):
    crystals = [crystal for _, crystal in list(prototype_crystals())[:600:5]]
    names = [str(i) for i in range(len(crystals))]
    write_packed(tmp_path / "known", pack(crystals), names, {})
    return str(tmp_path / "known")


def reached(monkeypatch, function, command):
    """Arguments and options with which a command calls a function."""
    caught = []

    def stand_in(*arguments, **options):
        caught.append(Reached(arguments, options))
        raise caught[0]

    monkeypatch.setattr(f"crystalvae.{function}", stand_in)
    assert main([*map(str, command), "--no-progress"]) == 1
    assert caught, f"{function} was not called"
    return caught[0]


@pytest.mark.parametrize(
    ("given", "name", "value"),
    [
        (["--parents", "7"], "parents", 7),
        (["--draws", "9"], "draws", 9),
        (["--rounds", "3"], "rounds", 3),
        (["--spread", "0.5"], "spread", 0.5),
        (["--temperature", "0.7"], "temperature", 0.7),
        (["--beta", "0.3"], "beta", 0.3),
        (["--checks", "volume"], "checks", "volume"),
        (["--workers", "2"], "num_workers", 2),
    ],
)
def test_optimize(monkeypatch, model_dir, known, tmp_path, given, name, value):
    command = ["optimize", model_dir, known, "--property", "density", "--maximize"]
    command += ["-o", tmp_path / "out", *given]
    found = reached(monkeypatch, "design.optimize.optimize", command)
    assert found.options[name] == value


@pytest.mark.parametrize(
    ("given", "direction", "target"),
    [
        (["--maximize"], "maximize", None),
        (["--minimize"], "minimize", None),
        (["--target", "4"], "target", 4.0),
    ],
)
def test_goals(monkeypatch, model_dir, known, tmp_path, given, direction, target):
    command = ["optimize", model_dir, known, "--property", "density", *given]
    command += ["--caution", "0.5", "-o", tmp_path / "out"]
    goal = reached(monkeypatch, "design.optimize.optimize", command).arguments[2]
    assert (goal.direction, goal.caution) == (direction, 0.5)
    costs = {"maximize": (5, 4), "minimize": (4, 5), "target": (4.1, 5)}[direction]
    better, worse = (goal.cost(np.array([value])) for value in costs)
    assert better < worse


@pytest.mark.parametrize(
    ("given", "name", "value"),
    [
        (["--highest-first", "--rank-by", "volume"], "highest", True),
        (["--rank-by", "volume"], "rank_by", "volume"),
        (["--scheduler", "tcp://a:1"], "scheduler", "tcp://a:1"),
        (["--checks", "volume"], "names", ("volume",)),
    ],
)
def test_screen(monkeypatch, known, tmp_path, given, name, value):
    command = ["screen", known, "-o", tmp_path / "out", *given]
    found = reached(monkeypatch, "screening.campaign.screen", command)
    assert found.options[name] == value


@pytest.mark.parametrize(
    ("given", "name", "value"),
    [
        (["--relax-top", "5"], "top", 5),
        (["--reference-steps", "0"], "reference_steps", 0),
        (["--stable-below", "0.2"], "threshold", 0.2),
    ],
)
def test_screen_relaxes(monkeypatch, known, tmp_path, given, name, value):
    command = ["screen", known, "-o", tmp_path / "out", "--reference", known]
    command += ["--relax", "emt", *given]
    found = reached(monkeypatch, "screening.stability.add_stability", command)
    assert getattr(found.arguments[4], name) == value


@pytest.mark.parametrize(
    ("given", "name", "value"),
    [
        (["--symprec", "0.02"], "symprec", 0.02),
        (["--max-atoms", "9"], "max_atoms", 9),
        (["--scheduler", "tcp://a:1"], "scheduler", "tcp://a:1"),
    ],
)
def test_prepare(monkeypatch, known, tmp_path, given, name, value):
    command = ["prepare", known, "-o", tmp_path / "out", *given]
    found = reached(monkeypatch, "data.prepare.prepare", command)
    assert found.options[name] == value


@pytest.mark.skipif("mp_20" not in shipped_models(), reason="no shipped weights")
@pytest.mark.parametrize(
    ("given", "name", "value"),
    [
        (["--spread", "0.5"], "spread", 0.5),
        (["--distortions"], "distortions", True),
        (["--unlisted", "a", "--unlisted", "b"], "unlisted", ["a", "b"]),
    ],
)
def test_neighbors(monkeypatch, known, tmp_path, given, name, value):
    command = ["neighbors", "mp_20", known, "-n", "200", "-o", tmp_path / "out"]
    found = reached(monkeypatch, "design.neighbors.neighbors", [*command, *given])
    assert found.options[name] == value


@pytest.mark.parametrize(
    ("given", "name", "value"),
    [
        (["--prior", "gaussian"], "prior", "gaussian"),
        (["--element-bias", "Li=1,Pb=-2"], "element_bias", {"Li": 1.0, "Pb": -2.0}),
        (["--repeats"], "distinct", False),
        ([], "distinct", True),
        (["--top-p", "0.9"], "top_p", 0.9),
        (["--stop-bias", "0.4"], "stop_bias", 0.4),
    ],
)
def test_sample(monkeypatch, model_dir, tmp_path, given, name, value):
    command = ["sample", model_dir, "-o", tmp_path / "out", *given]
    found = reached(monkeypatch, "design.sample.draw_checked", command)
    assert found.options[name] == value


def test_sample_constrains(monkeypatch, model_dir, tmp_path):
    command = ["sample", model_dir, "-o", tmp_path / "out", "--composition", "Na2Cl2"]
    command += ["--space-group", "63", "--num-atoms", "4"]
    found = reached(monkeypatch, "design.sample.draw_checked", command)
    constraints = found.options["constraints"]
    assert constraints.composition == {11: 2, 17: 2}
    assert constraints.space_groups == {63}
    assert (constraints.min_atoms, constraints.max_atoms) == (4, 4)
