from concurrent.futures import ProcessPoolExecutor
from multiprocessing import current_process, get_context
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ase.data import chemical_symbols
from pymatgen.core import Element

from crystalvae.data.packed import pack, write_packed
from crystalvae.design.alike import Listed
from crystalvae.design.batches import batch_size_for, batches, workers_for
from crystalvae.design.familiar import without_unseen
from crystalvae.design.sample import draw_checked, draws, raw_draws
from crystalvae.design.settings import refinement_of
from crystalvae.errors import ConfigError, CrystalVAEError
from crystalvae.generation import Constraints
from crystalvae.properties.score import PropertyEstimate
from crystalvae.screening.base import Candidate, CheckResult
from crystalvae.screening.bonds import check_bonds
from crystalvae.screening.uniqueness import ReferenceIndex, duplicate_of
from crystalvae.stability.score import StabilityEstimate
from tests.properties.test_network import tiny_properties
from tests.stability.test_network import tiny_network


def test_what_was_found_is_kept_when_it_is_too_little(tiny_model, caplog):
    kept, report = draw_checked(tiny_model, 30, seed=5, max_draws=60)
    assert 0 < len(kept) < 30
    assert report.kept + sum(report.fallen.values()) == report.draws == 60
    assert f"only {len(kept)} of 30" in caplog.text


def test_nothing_found_is_an_error(tiny_model, monkeypatch):
    monkeypatch.setattr("crystalvae.design.sample.first_failure", lambda _: "density")
    with pytest.raises(CrystalVAEError, match="only 0 of 5"):
        draw_checked(tiny_model, 5, max_draws=5)


@pytest.mark.parametrize("beta", [1e-4, 50.0])
def test_a_beta_that_was_not_trained_is_refused(tiny_model, beta):
    with pytest.raises(ConfigError, match="trained for a beta from"):
        draw_checked(tiny_model, 2, beta=beta)


SMALL = Constraints(max_atoms=4)


def become_a_daemon():
    current_process()._config["daemon"] = True


def workers_in(*arguments):
    return workers_for(SimpleNamespace(device=torch.device("cpu")), *arguments)


def distance_on_torus(coords, others):
    difference = coords - others
    return np.abs(difference - np.round(difference)).max()


def same(crystal, other):
    if crystal is None or other is None:
        return crystal is other
    return (
        crystal.number == other.number
        and crystal.composition == other.composition
        and len(crystal.wyckoffs) == len(other.wyckoffs)
        and np.allclose(crystal.lattice, other.lattice, atol=1e-4)
        and distance_on_torus(crystal.frac_coords, other.frac_coords) < 1e-4
    )


def test_processes_change_no_draw(tiny_model):
    options = {"seed": 2, "batch_size": 16, "constraints": SMALL}
    alone = raw_draws(tiny_model, 40, num_workers=1, **options)
    several = raw_draws(tiny_model, 40, num_workers=2, **options)
    stream = draws(tiny_model, **options)
    assert len(alone) == len(several) == 40
    for crystal, other, third in zip(alone, several, stream):
        assert same(crystal, other)
        assert same(crystal, third)


def test_checked_draws_go_on_in_rounds_until_there_are_enough(tiny_model, monkeypatch):
    def check(crystal, **options):
        return {"odd": CheckResult("odd", crystal.number % 3 == 0)}

    monkeypatch.setattr("crystalvae.design.sample.check_crystal", check)
    options = {"seed": 1, "batch_size": 8, "constraints": SMALL}
    runs = [
        draw_checked(tiny_model, 20, num_workers=workers, **options)
        for workers in (1, 2)
    ]
    for kept, report in runs:
        assert len(kept) == 20
        assert 40 < report.draws == kept[-1].index + 1
        assert report.draws == runs[0][1].draws
    for first, second in zip(*(kept for kept, _ in runs)):
        assert first.index == second.index
        assert same(first.crystal, second.crystal)


def test_only_what_is_asked_is_checked(tiny_model):
    options = {"seed": 1, "batch_size": 32, "num_workers": 1, "constraints": SMALL}
    _, strict = draw_checked(tiny_model, 20, **options)
    kept, free = draw_checked(tiny_model, 20, checks="volume,distance", **options)
    assert {"charge", "radii"} & strict.fallen.keys()
    assert set(free.fallen) <= {"incomplete", "volume", "distance"}
    assert free.draws < strict.draws
    assert {name for draw in kept for name in draw.results} == {"volume", "distance"}
    with pytest.raises(ConfigError, match="unknown check 'beauty'; known are volume"):
        draw_checked(tiny_model, 2, checks=["beauty"], **options)


@pytest.mark.parametrize("num", [1, 60, 65, 1000, 10_000])
def test_batches_are_even_in_number_and_not_too_large(num):
    size = batch_size_for(num)
    parts = -(-num // size)
    assert parts == 1 if num <= 64 else parts % 2 == 0
    assert size <= 1024
    assert parts * size < num + 2 * parts + 16


def test_who_may_not_start_processes_draws_alone(tiny_model, monkeypatch):
    monkeypatch.setattr("crystalvae.design.batches.num_cores", lambda: 4)
    monkeypatch.setattr("torch.get_num_threads", lambda: 8)
    assert workers_for(tiny_model, 1000, 100) == 4
    assert workers_for(tiny_model, 150, 100) == 2
    assert workers_for(tiny_model, 1000, 100, asked=6) == 6
    monkeypatch.setattr("torch.get_num_threads", lambda: 2)
    assert workers_for(tiny_model, 1000, 100) == 2
    monkeypatch.setattr("crystalvae.design.batches.forks", lambda: False)
    assert workers_for(tiny_model, 1000, 100) == 1
    assert workers_for(tiny_model, 1000, 100, asked=2) == 2
    assert workers_for(tiny_model, 100_000, 100) == 2
    gpu = SimpleNamespace(device=torch.device("cuda"))
    assert workers_for(gpu, 100_000, 100, asked=4) == 1
    with ProcessPoolExecutor(1, get_context("spawn"), become_a_daemon) as pool:
        assert pool.submit(workers_in, 100_000, 100, 4).result() == 1


def likely(probability_of):
    """A stability network that gives crystals what a function says."""

    def estimates(network, crystals, *_):
        return [StabilityEstimate(0.0, probability_of(c)) for c in crystals]

    return estimates


def test_what_is_unlikely_to_be_stable_falls(tiny_model, monkeypatch):
    tiny_model.stability = tiny_network()
    monkeypatch.setattr(
        "crystalvae.design.wanted.stability_estimates",
        likely(lambda crystal: 0.9 if crystal.number <= 100 else 0.2),
    )
    options = {"constraints": Constraints(max_atoms=6), "num_workers": 1}
    kept, report = draw_checked(tiny_model, 12, likely_stable=0.5, **options)
    assert len(kept) == 12
    assert all(item.crystal.number <= 100 for item in kept)
    assert all(item.results["likely_stable"].value == 0.9 for item in kept)
    assert report.fallen["likely_stable"] > 0
    assert report.draws == 12 + sum(report.fallen.values())
    plain, _ = draw_checked(tiny_model, 12, **options)
    assert any(item.crystal.number > 100 for item in plain)
    assert "likely_stable" not in plain[0].results


def test_what_lies_elsewhere_falls(tiny_model, monkeypatch):
    tiny_model.stability, tiny_model.properties = tiny_network(), tiny_properties()
    monkeypatch.setattr(
        "crystalvae.design.wanted.property_estimates",
        lambda network, crystals: [
            {"gap": PropertyEstimate(c.number / 100, 0.1)} if c.number > 30 else {}
            for c in crystals
        ],
    )
    options = {"constraints": Constraints(max_atoms=6), "num_workers": 1}
    kept, report = draw_checked(tiny_model, 12, within={"gap": (0.5, 2)}, **options)
    assert all(50 <= item.crystal.number <= 200 for item in kept)
    assert report.fallen["gap_within"] > 0
    assert report.draws == 12 + sum(report.fallen.values())
    monkeypatch.setattr(
        "crystalvae.design.wanted.stability_estimates",
        lambda network, crystals: [
            StabilityEstimate(c.number / 1000, 0.9 if c.number > 60 else 0.1)
            for c in crystals
        ],
    )
    with pytest.raises(
        CrystalVAEError, match=r"estimates of gap were 0\.\d+ to [12]\."
    ):
        draw_checked(tiny_model, 2, max_draws=200, within={"gap": (2.4, 3)}, **options)
    ends = np.array([0.0, 0.1])
    kept = tiny_model.sample(
        8, within={"e_above_hull": ends}, likely_stable=0.5, **options
    )
    assert all(60 < crystal.number <= 100 for crystal in kept)


def test_stability_needs_its_network(tiny_model):
    with pytest.raises(ConfigError, match="train-stability"):
        draw_checked(tiny_model, 3, likely_stable=0.5)


def test_what_is_known_falls(tiny_model):
    options = {"constraints": Constraints(max_atoms=4), "num_workers": 1, "seed": 2}
    first, _ = draw_checked(tiny_model, 10, **options)
    listed = Listed(ReferenceIndex([item.crystal for item in first[:6]]))
    kept, report = draw_checked(tiny_model, 10, known=listed, **options)
    assert report.fallen["unlisted"] >= 6
    assert report.draws == 10 + sum(report.fallen.values())
    assert not any(listed([item.crystal for item in kept]))
    own = {item.index for item in first[:6]}
    assert not own & {item.index for item in kept}


@pytest.mark.parametrize("seed", [2**45, 10**18, -(10**18)])
def test_any_integer_is_a_seed(tiny_model, seed):
    one, again, other = (
        tiny_model.sample(2, seed=s, num_workers=1, checks="volume")
        for s in (seed, seed, seed + 1)
    )
    assert all(same(*pair) for pair in zip(one, again))
    assert not all(same(*pair) for pair in zip(one, other))


def test_nothing_is_decoded_to_nothing(tiny_model):
    posterior = tiny_model.encode([])
    assert tiny_model.decode(posterior.mu) == []


def test_repeats_fall(tiny_model):
    limits = Constraints(elements=frozenset({29}), max_atoms=1)
    options = {"constraints": limits, "num_workers": 1, "seed": 1}
    every, _ = draw_checked(tiny_model, 30, **options)
    labels = duplicate_of([item.crystal for item in every], num_workers=1)
    firsts = [every[i].index for i, label in enumerate(labels) if i == label]
    assert len(firsts) < 30
    kept, report = draw_checked(tiny_model, 30, distinct=True, **options)
    assert [item.index for item in kept][: len(firsts)] == firsts
    assert report.fallen["unique"] > 0
    assert report.draws == len(kept) + sum(report.fallen.values())
    crystals = [item.crystal for item in kept]
    assert duplicate_of(crystals, num_workers=1) == list(range(len(kept)))
    raw, _ = draw_checked(tiny_model, 12, distinct=True, raw=True, **options)
    assert len(raw) == 12


def test_required_elements_fit_the_groups_asked_for(tiny_model):
    limits = {"required": frozenset({8}), "max_atoms": 12}
    groups = Constraints(space_groups=frozenset({225}), **limits)
    kept, report = draw_checked(
        tiny_model, 8, raw=True, constraints=groups, num_workers=1
    )
    assert report.fallen["incomplete"] <= 2
    for item in kept:
        assert item.crystal.number == 225
        assert 8 in item.crystal.composition


def test_an_estimate_without_checks_is_refused(tiny_model):
    tiny_model.stability = tiny_network()
    with pytest.raises(ConfigError, match="are checks"):
        raw_draws(tiny_model, 3, likely_stable=0.5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"likely_stable": 0}, "likely_stable is above 0"),
        ({"likely_stable": 1.5}, "not 1.5"),
        ({"likely_stable": float("nan")}, "not nan"),
        ({"within": 3}, "within maps properties"),
        ({"within": {"gap": 3}}, "gap is to lie between two numbers"),
        ({"within": {"gap": (3, 1)}}, "the smaller one first"),
        ({"within": {"gap": (1, 3)}}, "train-properties"),
        ({"within": {"e_above_hull": (-5, -1)}}, "e_above_hull goes from 0 to 3"),
        ({"temperature": -0.1}, "not -0.1"),
        ({"temperature": float("inf")}, "not inf"),
        ({"part_temperature": {"count": -1}}, "not -1"),
        ({"top_p": 0}, "top_p is above 0"),
        ({"top_p": 1.01}, "not 1.01"),
        ({"seed": None}, "a seed is an integer, not None"),
        ({"seed": "a"}, "not 'a'"),
        ({"seed": 1.5}, "not 1.5"),
        ({"space_group": 5}, "no argument 'space_group'; did you mean space_groups"),
        ({"likelystable": 0.5}, "did you mean likely_stable"),
        ({"temp": 0.5}, "did you mean temperature"),
        ({"num_atoms": "4-x"}, "number of atoms must be a number or a range"),
        ({"num_atoms": (1, 2, 3)}, "one number or two"),
        ({"num_atoms": (1.5, 4)}, "one number or two"),
        ({"elements": 5}, "elements are symbols"),
        ({"qqq": 5}, "no argument 'qqq'"),
        ({"unlisted": 5}, "a path or a list of crystals, not one int"),
        ({"unlisted": [], "known": Listed.of([])}, "not both"),
    ],
)
def test_wrong_arguments_are_refused_at_once(tiny_model, monkeypatch, wrong, message):
    def never(*_, **__):
        raise AssertionError("something was drawn")

    tiny_model.stability = tiny_network()
    monkeypatch.setattr("crystalvae.design.batches.generate", never)
    with pytest.raises(ConfigError, match=message):
        tiny_model.sample(2, num_workers=1, **wrong)


def test_all_that_sampling_takes_is_known(tiny_model):
    options = {"temperature": 1, "top_p": 1, "seed": np.int64(3), "batch_size": 8}
    options |= {"progress": False, "beta": 1.0, "distinct": False, "stop_bias": 0.1}
    assert len(tiny_model.sample(2, num_atoms=(1, 4), num_workers=1, **options)) == 2


@pytest.mark.parametrize("kind", [list, "data set", "folder", "structures"])
def test_unlisted_crystals_are_not_drawn_again(tiny_model, tmp_path, kind):
    options = {"num_atoms": (1, 4), "num_workers": 1, "seed": 2}
    first = tiny_model.sample(8, **options)
    known = first[:5]
    if kind == "data set":
        known = tmp_path
        write_packed(known, pack(first[:5]), [str(i) for i in range(5)], {})
    elif kind == "folder":
        known = str(tmp_path)
        for place, crystal in enumerate(first[:5]):
            (tmp_path / f"{place}.cif").write_text(crystal.to_cif())
    elif kind == "structures":
        known = [crystal.to_structure() for crystal in first[:5]]
    kept = tiny_model.sample(8, unlisted=known, **options)
    assert len(kept) == 8
    assert not any(Listed.of(first[:5])(kept))
    assert same(kept[0], first[5])


def test_constraints_are_not_given_twice(tiny_model):
    with pytest.raises(ConfigError, match="not both"):
        tiny_model.sample(2, require=["O"], constraints=Constraints(max_atoms=6))


def test_groups_leave_counts_that_their_positions_can_hold(shipped):
    """In Cmcm every orbit has an even number of atoms in the primitive cell."""
    for asked in (
        {"space_groups": 63, "require": "Na,Mn,O", "num_atoms": "4-8"},
        {"space_groups": 63, "num_atoms": "4-8"},
        {"space_groups": 62, "require": "Li,O"},
    ):
        constraints = Constraints.of(**asked)
        kept, report = draw_checked(
            shipped,
            16,
            raw=True,
            constraints=constraints,
            batch_size=16,
            num_workers=1,
            refine=False,
        )
        assert report.fallen["incomplete"] <= 1, asked
        assert all(constraints.allow(draw.crystal) for draw in kept)
    with pytest.raises(ConfigError, match="at least 6 atoms, and at most 5"):
        shipped.sample(2, space_groups=63, num_atoms="1-5", require="Li,Mn,O")
    with pytest.raises(ConfigError, match="at least 8 atoms"):
        shipped.sample(2, space_groups=230, num_atoms=4)
    assert Constraints.of(space_groups=63).counts_of_one(7) == [2, 4, 6]
    assert Constraints.of(space_groups=[63, 1]).counts_of_one(3) == [1, 2, 3]
    assert Constraints.of(num_atoms=3).counts_of_one(3) is None


def test_short_bonds_are_mended_or_drawn_again(shipped):
    """Of draws that are not asked for it every tenth has one."""

    def share(**refine):
        crystals = raw_draws(shipped, 120, seed=4, num_workers=1, refine=refine)
        verdicts = [
            check_bonds(Candidate.of(crystal)).passed
            for crystal in crystals
            if crystal is not None
        ]
        return verdicts.count(False) / len(verdicts)

    assert share(bonds=0.0) > 0.04
    assert share(bonds=0.94) < 0.02
    assert share(bonds=0.94, limit=None) < 0.02


def test_what_nobody_asked_for_is_not_drawn_of_unseen_elements(shipped):
    seen = set(shipped.card["trained_on"]["elements"])
    options = {"num_atoms": "30-40", "checks": ["volume"], "refine": False}
    for crystal in shipped.sample(3, num_workers=1, **options):
        assert {chemical_symbols[z] for z in crystal.composition} <= seen
    asked = without_unseen(shipped, Constraints.of(require="Og"), ())
    assert 118 not in asked.excluded
    discouraged = batches(shipped, element_bias={"Po": -3.0}).constraints
    assert 84 in discouraged.excluded
    assert 84 not in batches(shipped, element_bias={"Po": 3.0}).constraints.excluded
    assert 117 in asked.excluded


def test_refinement_can_be_left_out(tiny_model):
    assert refinement_of(tiny_model, False).passes == 0
    with pytest.raises(ConfigError, match="number of crystals must be an integer"):
        tiny_model.sample(2.5)
    with pytest.raises(ConfigError, match="beta is a number"):
        tiny_model.sample(2, beta="high")
    with pytest.raises(ConfigError, match="likely_stable is above 0"):
        tiny_model.sample(2, likely_stable=True)


def test_elements_are_symbols_or_what_is_written_as_one():
    asked = Constraints.of(
        elements=[Element("Na"), "O"], require=[["Mn", "Fe"], Element("O")]
    )
    assert asked.elements == {11, 8}
    assert asked.required == {8}
    assert asked.any_of == (frozenset({25, 26}),)
