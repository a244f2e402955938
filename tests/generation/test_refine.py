import dataclasses

import pytest
import torch

from crystalvae.errors import ConfigError
from crystalvae.generation import Constraints, Refinement, SamplingOptions, generate
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
    assert (free.residual[~good] == 0).all()
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
    with pytest.raises(ConfigError):
        Refinement(passes=-1)
    with pytest.raises(ConfigError):
        Refinement(noise=0.0)
    with pytest.raises(ConfigError):
        Refinement(limit=0.0)


def test_nothing_to_refine_is_no_error(model):
    found = draw(model)
    found.complete[:] = False
    refine(model.refiner, found, SOME, 0.7)


def apart(model):
    """A refiner that pushes every atom away from its neighbours."""
    torch.nn.init.zeros_(model.refiner.out[1].weight)
    model.refiner.out[1].bias.data = torch.tensor([-2.0, 1.0])


def test_atoms_on_top_of_each_other_come_apart(model):
    apart(model)
    once = dataclasses.replace(HOT, restarts=0)
    before = draw(model, None, once)
    stuck = before.complete & before.collides
    again = Refinement(passes=4, noise=0.3, repeats=6, repeat_noise=0.5)
    after = draw(model, again, once)
    healed = stuck & ~after.collides
    assert int(healed.sum()) > 0
    for crystal, usable in zip(after.crystals(), healed.tolist()):
        if usable:
            assert check_radii(Candidate.of(crystal)).passed
    unhealed = stuck & after.collides
    assert torch.equal(before.frac_coords[unhealed], after.frac_coords[unhealed])


def test_more_descents_leave_less_above_the_limit(model):
    apart(model)
    once = dataclasses.replace(HOT, restarts=0)
    doubted = []
    for repeats in (0, 8):
        how = Refinement(passes=2, noise=0.2, limit=3.0, repeats=repeats)
        doubted.append(int(how.doubts(draw(model, how, once).residual).sum()))
    assert doubted[1] < doubted[0]
