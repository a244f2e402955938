import dataclasses

import pytest
import torch

from crystalvae.errors import ConfigError
from crystalvae.generation import (
    Constraints,
    Refinement,
    SamplingOptions,
    decode,
    generate,
)
from crystalvae.generation import refine as refine_module
from crystalvae.generation.options import TOO_SHORT
from crystalvae.generation.refine import refine
from crystalvae.screening.base import Candidate
from crystalvae.screening.distance import check_distance, check_radii
from tests.refinement.conftest import tiny_refiner

HOT = SamplingOptions(temperature=1.0, restarts=1, restart_copies=2)
SOME = Refinement(passes=3, noise=0.1)


def draw(model, refinement=None, options=HOT, max_atoms=8):
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(48, model.config.latent.dim, generator=generator)
    return generate(
        model,
        z,
        options=options,
        constraints=Constraints(max_atoms=max_atoms),
        refinement=refinement,
        generator=generator,
    )


@pytest.fixture
def model(tiny_model):
    tiny_model.refiner = tiny_refiner()
    return tiny_model


def test_refining_changes_the_geometry_and_nothing_else(model):
    before, after = draw(model), draw(model, SOME)
    for name in ("number", "wyckoff", "atomic_numbers", "complete", "num_sites"):
        assert torch.equal(getattr(before, name), getattr(after, name))
    good = before.complete & ~before.collides
    assert int(good.sum()) > 10
    changed = (before.lattice - after.lattice).abs().amax((1, 2)) > 1e-4
    assert changed[good].float().mean() > 0.5
    assert not changed[~good].any()


def test_refined_crystals_still_have_room_for_their_atoms(model):
    after = draw(model, SOME)
    good = after.complete & ~after.collides
    for crystal, usable in zip(after.crystals(), good.tolist()):
        if usable:
            candidate = Candidate.of(crystal)
            assert check_distance(candidate).passed
            assert check_radii(candidate).passed


def test_what_would_collide_stays_as_it_was(model):
    """A refiner that shrinks every cell as far as it may."""
    torch.nn.init.zeros_(model.refiner.out[1].weight)
    model.refiner.out[1].bias.data = torch.tensor([0.0, -50.0])
    before, after = draw(model), draw(model, Refinement(passes=12, noise=0.6))
    good = after.complete & ~after.collides
    kept = (before.lattice - after.lattice).abs().amax((1, 2)) == 0
    assert kept[good].any()
    for crystal, usable in zip(after.crystals(), good.tolist()):
        if usable:
            assert check_radii(Candidate.of(crystal)).passed


def test_what_the_refiner_doubts_is_drawn_again(model):
    options = dataclasses.replace(HOT, restarts=3, restart_copies=6)
    free = draw(model, SOME, options, max_atoms=3)
    good = free.complete & ~free.collides
    assert (free.residual[good] > 0).all()
    limit = float(free.residual[good & free.residual.isfinite()].median())
    strict = draw(model, dataclasses.replace(SOME, limit=limit), options, 3)
    usable = strict.complete & ~strict.collides
    assert (free.residual[good] > limit).float().mean() > 0.3
    assert (strict.residual[usable] > limit).float().mean() < 0.35


def test_a_draw_that_never_passes_is_the_best_of_its_drafts(model):
    options = dataclasses.replace(HOT, restart_copies=6)
    free = draw(model, SOME, options, max_atoms=3)
    strict = draw(model, dataclasses.replace(SOME, limit=1e-6), options, 3)
    both = (free.residual > 0) & (strict.residual > 0)
    both &= free.residual.isfinite() & strict.residual.isfinite()
    assert strict.residual[both].median() < 0.9 * free.residual[both].median()


@pytest.mark.parametrize("channel", [0, 1])
def test_a_network_that_gives_nonsense_changes_nothing(model, channel):
    model.refiner.out[1].bias.data[channel] = torch.nan
    once = dataclasses.replace(HOT, restarts=0)
    before, after = draw(model, None, once), draw(model, SOME, once)
    good = before.complete & ~before.collides
    assert after.residual[good].isinf().all()
    for name in ("lattice", "frac_coords"):
        assert torch.equal(getattr(before, name), getattr(after, name))


def test_no_passes_is_no_refinement(model):
    before, after = draw(model), draw(model, Refinement(passes=0))
    for field in dataclasses.fields(before):
        assert torch.equal(getattr(before, field.name), getattr(after, field.name))


def test_a_model_without_a_refiner_says_so(tiny_model):
    with pytest.raises(ConfigError, match="no refiner"):
        draw(tiny_model, SOME)
    assert draw(tiny_model, Refinement(passes=0)).complete.any()


def test_impossible_settings_are_refused():
    names = ("passes", "repeats", "noise", "strain", "limit", "repeat_noise")
    for wrong in (*names, "close_repeats"):
        with pytest.raises(ConfigError, match=wrong):
            Refinement(**{wrong: -1})
    for wrong, value in (("passes", 10**19), ("noise", 1e-50), ("strain", 1e300)):
        with pytest.raises(ConfigError, match=wrong):
            Refinement(**{wrong: value})


def test_nothing_to_refine_is_no_error(model):
    found = draw(model)
    found.complete[:] = False
    refine(model.refiner, found, SOME, 0.7)


def apart(model):
    """A refiner that pushes every atom away from its neighbours."""
    torch.nn.init.zeros_(model.refiner.out[1].weight)
    model.refiner.out[1].bias.data = torch.tensor([-2.0, 1.0])


ONCE = dataclasses.replace(HOT, restarts=0)


def test_atoms_on_top_of_each_other_come_apart(model):
    apart(model)
    before = draw(model, None, ONCE)
    stuck = before.complete & before.collides
    healed = []
    for repeats in (0, 6):
        again = Refinement(
            passes=4,
            noise=0.3,
            repeats=repeats,
            repeat_noise=0.5,
            close_repeats=repeats,
        )
        after = draw(model, again, ONCE)
        healed.append(stuck & ~after.collides)
    assert int(healed[1].sum()) > int(healed[0].sum())
    for crystal, usable in zip(after.crystals(), healed[1].tolist()):
        if usable:
            assert check_radii(Candidate.of(crystal)).passed
    unhealed = stuck & after.collides
    assert torch.equal(before.frac_coords[unhealed], after.frac_coords[unhealed])


def test_who_mends_drafts_does_not_abandon_them(model, monkeypatch):
    apart(model)
    asked = []
    placer = decode.SitePlacer

    def spy(run, abandon):
        asked.append(abandon)
        return placer(run, abandon)

    monkeypatch.setattr(decode, "SitePlacer", spy)
    for repeats, abandons in ((0, True), (2, False)):
        asked.clear()
        draw(model, dataclasses.replace(SOME, repeats=repeats))
        assert asked[0] is abandons


def test_what_is_good_enough_descends_once(model):
    apart(model)
    one = Refinement(passes=2, noise=0.2, limit=3.0, close_repeats=4)
    few, many = (draw(model, dataclasses.replace(one, repeats=n), ONCE) for n in (0, 4))
    good = ~one.doubts(few.residual) & few.complete
    assert int(good.sum()) > 5
    for name in ("lattice", "frac_coords", "residual"):
        assert torch.equal(getattr(few, name)[good], getattr(many, name)[good])
    assert int(one.doubts(many.residual).sum()) < int(one.doubts(few.residual).sum())


def test_what_is_stuck_is_given_up():
    how = Refinement(limit=1.0, bonds=0.9)
    inf = float("inf")
    residual = torch.tensor([0.5, 1.5, TOO_SHORT + 0.5, TOO_SHORT + 1.5, inf])
    assert how.doubts(residual).tolist() == [False, True, True, True, True]
    assert how.stuck(residual).tolist() == [False, False, True, False, True]


def test_who_is_stuck_descends_no_further(model, monkeypatch):
    """Atoms that stay on top of each other descend close_repeats times more."""
    descents = []

    def spy(refiner, found, rows, *_):
        descents.append(len(rows))
        return torch.full((len(rows),), torch.inf)

    monkeypatch.setattr(refine_module, "_descend", spy)
    for most, expected in ((0, 1), (2, 3), (9, 5)):
        found = draw(model, None, ONCE)
        descents.clear()
        how = Refinement(passes=1, repeats=4, close_repeats=most)
        refine(model.refiner, found, how, 0.7)
        assert sum(descents) == expected * int(found.complete.sum())


def test_no_descent_makes_a_crystal_worse(model):
    apart(model)
    one = Refinement(passes=2, noise=0.2, limit=0.5)
    last = draw(model, one, ONCE)
    for repeats in (1, 3, 6):
        more = draw(model, dataclasses.replace(one, repeats=repeats), ONCE)
        assert (more.residual <= last.residual)[last.complete].all()
        last = more


def test_repeats_expect_their_own_noise(model):
    apart(model)
    hot = Refinement(passes=2, noise=0.2, limit=0.5, repeats=1)
    changes = ({"repeat_noise": 1.0}, {"repeat_strain": 0.2})
    plain = draw(model, hot, ONCE)
    for change in changes:
        other = draw(model, dataclasses.replace(hot, **change), ONCE)
        assert not torch.equal(plain.frac_coords, other.frac_coords)


def test_chunks_change_nothing(model, monkeypatch):
    whole = draw(model, SOME, ONCE)
    monkeypatch.setattr(refine_module, "CHUNK", {"cpu": 7})
    parts = draw(model, SOME, ONCE)
    good = whole.complete & whole.residual.isfinite()
    torch.testing.assert_close(parts.lattice[good], whole.lattice[good])
    torch.testing.assert_close(
        parts.residual[good], whole.residual[good], rtol=1e-3, atol=1e-3
    )


def test_without_a_limit_only_collisions_are_drawn_again(model, monkeypatch):
    model.refiner.out[1].bias.data[:] = torch.nan
    drawn = []
    refined = decode.refine

    def spy(refiner, found, how, min_distance):
        drawn.append(int((found.collides | ~found.complete).sum()))
        drawn.append(len(found))
        refined(refiner, found, how, min_distance)

    monkeypatch.setattr(decode, "refine", spy)
    draw(model, SOME)
    collided, _, again = drawn[0], drawn[1], drawn[3] if len(drawn) > 2 else 0
    assert again == collided


def test_the_stop_bias_shifts_the_number_of_elements(model):
    sizes = []
    for bias in (-3.0, 0.0, 3.0):
        found = draw(model, None, dataclasses.replace(ONCE, stop_bias=bias))
        sizes.append(float((found.element > 0).sum(1).float().mean()))
    assert sizes[0] > sizes[1] > sizes[2]
    with pytest.raises(ConfigError, match="from -50 to 50"):
        SamplingOptions(stop_bias=float("nan"))
