import numpy as np
import pytest
import torch

from crystalvae.errors import ConfigError
from crystalvae.generation import Constraints, SamplingOptions, generate
from crystalvae.generation.choose import choose
from crystalvae.generation.decode import _weighted_choice
from crystalvae.generation.parsing import parse_space_groups
from crystalvae.generation.prefix import Decoding
from crystalvae.screening.base import Candidate
from crystalvae.screening.distance import check_distance
from crystalvae.symmetry.tables import symmetry_tables

HOT = SamplingOptions(temperature=1.0, restarts=1, restart_copies=2)


def draw(model, count=48, seed=0, options=HOT, **kwargs):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(count, model.config.latent.dim, generator=generator)
    return generate(model, z, options=options, generator=generator, **kwargs)


@pytest.fixture
def small():
    """Keep an untrained model's compositions small."""
    return Constraints(max_atoms=12)


def test_an_untrained_model_emits_symmetric_cells_only(tiny_model, small):
    found = draw(tiny_model, constraints=small)
    tables = symmetry_tables()
    crystals = [c for c in found.crystals() if c is not None]
    assert len(crystals) > 30
    for crystal in crystals:
        metric = crystal.lattice @ crystal.lattice.T
        assert crystal.volume > 0
        for rotation in tables.point_rotations(crystal.number):
            image = rotation.T @ metric @ rotation
            np.testing.assert_allclose(image, metric, rtol=0, atol=1e-5 * metric.max())
        embed = tables.embed[crystal.number, crystal.wyckoffs]
        offset = tables.offset[crystal.number, crystal.wyckoffs]
        exact = np.einsum("sij,sj->si", embed, crystal.frac_coords) + offset
        gap = exact - crystal.frac_coords
        np.testing.assert_allclose(gap - np.round(gap), 0, atol=1e-5)


def test_composition_once_drawn_is_completed(tiny_model, small):
    found = draw(tiny_model, constraints=small)
    limit = tiny_model.config.decoder.max_sites
    assert (found.complete | (found.num_sites == limit)).all()


def test_fixed_composition_is_obeyed(tiny_model):
    wanted = {22: 2, 8: 4}
    found = draw(tiny_model, 16, constraints=Constraints(composition=wanted))
    crystals = [c for c in found.crystals() if c is not None]
    assert crystals
    assert all(crystal.composition == wanted for crystal in crystals)


def test_space_group_elements_and_size_are_obeyed(tiny_model):
    limits = Constraints(
        elements=frozenset({3, 8, 26}),
        space_groups=frozenset({2, 14, 62}),
        min_atoms=4,
        max_atoms=10,
    )
    crystals = [c for c in draw(tiny_model, constraints=limits).crystals() if c]
    assert crystals
    for crystal in crystals:
        assert set(crystal.composition) <= {3, 8, 26}
        assert crystal.number in (2, 14, 62)
        assert 4 <= crystal.num_primitive_atoms <= 10


def test_excluding_is_allowing_all_others(tiny_model):
    every = frozenset(range(1, 119))
    free = draw(tiny_model, 32, constraints=Constraints(max_atoms=6)).crystals()
    common = frozenset({z for c in free if c is not None for z in c.composition})
    gone = frozenset(sorted(common)[::2])
    without = Constraints(max_atoms=6, excluded=gone)
    others = Constraints(max_atoms=6, elements=every - gone)
    found, again = (
        [c for c in draw(tiny_model, 32, constraints=limits).crystals() if c]
        for limits in (without, others)
    )
    assert found
    assert [c.composition for c in found] == [c.composition for c in again]
    for crystal in found:
        assert not gone & crystal.composition.keys()
        assert without.allow(crystal)
    assert any(not without.allow(c) for c in free if c is not None)


def test_same_seed_same_crystals(tiny_model, small):
    one, other = (draw(tiny_model, 8, 5, constraints=small) for _ in range(2))
    torch.testing.assert_close(one.frac_coords, other.frac_coords, rtol=0, atol=0)
    torch.testing.assert_close(one.lattice, other.lattice, rtol=0, atol=0)
    assert (one.number == other.number).all()


def test_what_does_not_collide_passes_the_distance_check(tiny_model, small):
    found = draw(tiny_model, constraints=small)
    for crystal, collides in zip(found.crystals(), found.collides.tolist()):
        if crystal is None or collides:
            continue
        lattice, coords, species, _ = crystal.expand_primitive()
        assert check_distance(Candidate(lattice, coords, species)).passed


def test_another_try_does_not_favour_what_collides_less(tiny_model, small):
    """The first round keeps composition and group, the second draws them anew."""
    drafts = [
        draw(
            tiny_model,
            constraints=small,
            options=SamplingOptions(temperature=1.0, restarts=n, restart_copies=2),
        )
        for n in (0, 1, 2)
    ]
    first = drafts[0]
    assert first.collides.any()
    collided = first.collides
    for name in ("element", "count", "number"):
        kept = getattr(drafts[1], name)[collided]
        assert (kept == getattr(first, name)[collided]).all()
    again, anew = drafts[1].collides, drafts[2].collides
    assert anew.sum() < again.sum() < collided.sum()
    mended = again & ~anew
    assert (drafts[2].number[mended] != first.number[mended]).any()


def test_greedy_choice_and_nucleus():
    logits = torch.tensor([[2.0, 1.0, -1e9]]).expand(500, 3)
    assert (choose(logits, 0.0) == 0).all()
    generator = torch.Generator().manual_seed(0)
    drawn = choose(logits, 1.0, generator=generator)
    assert set(drawn.tolist()) == {0, 1}
    share = float((drawn == 0).float().mean())
    assert abs(share - 1 / (1 + np.exp(-1))) < 0.06
    assert (choose(logits, 1.0, top_p=0.5, generator=generator) == 0).all()


def test_a_model_without_flow_says_so(tiny_model):
    with pytest.raises(ConfigError, match="gaussian"):
        tiny_model.prior_sample(2, prior="flow")


def test_dropped_sequences_leave_the_others_as_they_were(tiny_model):
    """Decoding on after a drop gives what decoding without the dropped ones gives."""
    transformer = tiny_model.decoder.transformer
    tokens = torch.randn(6, 3, tiny_model.config.decoder.dim)
    more = torch.randn(6, 1, tiny_model.config.decoder.dim)
    gone = torch.tensor([True, False, False, True, False, True])

    def cache_of(rows):
        cache = transformer.new_cache(len(rows), 8, tokens)
        transformer.step(tokens[rows], cache)
        return cache

    with torch.no_grad():
        cache = cache_of(torch.arange(6))
        order = cache.drop(gone)
        assert sorted(order.tolist()) == [1, 2, 4]
        after = transformer.step(more[order], cache)
        alone = transformer.step(more[order], cache_of(order))
    torch.testing.assert_close(after, alone)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"min_atoms": 9, "max_atoms": 3}, "no number of atoms"),
        ({"elements": frozenset()}, "no element"),
        ({"space_groups": frozenset({0, 5})}, "1 to 230"),
        ({"space_groups": frozenset()}, "no space group"),
        ({"composition": {}}, "at least one atom"),
        ({"composition": {8: 10**9}}, "too large"),
        ({"composition": dict.fromkeys(range(3, 15), 1)}, "too large"),
        ({"composition": {8: 2}, "elements": frozenset({11})}, "not allowed"),
        ({"composition": {8: 2}, "max_atoms": 1}, "excludes it"),
        ({"elements": frozenset({8}), "min_atoms": 300}, "more than this model"),
        ({"required": frozenset({8}), "excluded": frozenset({8})}, "O is required"),
        ({"composition": {8: 2}, "excluded": frozenset({8})}, "O is in the comp"),
        ({"excluded": frozenset(range(1, 119))}, "every element"),
        ({"elements": frozenset({8}), "excluded": frozenset({8})}, "every element"),
        ({"excluded": frozenset(range(2, 119)), "min_atoms": 300}, "than this model"),
    ],
)
def test_constraints_that_nothing_obeys_are_refused(tiny_model, limits, message):
    z = torch.zeros(1, tiny_model.config.latent.dim)
    with pytest.raises(ConfigError, match=message):
        generate(tiny_model, z, constraints=Constraints(**limits))


def test_what_is_complete_has_enough_atoms(tiny_model):
    limits = Constraints(elements=frozenset({8, 22}), min_atoms=90)
    z = torch.randn(8, tiny_model.config.latent.dim)
    options = SamplingOptions(temperature=1.0, restarts=0)
    found = generate(tiny_model, z, options=options, constraints=limits)
    for crystal in found.crystals():
        assert crystal is None or crystal.num_primitive_atoms >= 90


def test_constraints_allow_what_obeys_them(crystals):
    by_formula = {crystal.formula: crystal for crystal in crystals}
    rutile, salt = by_formula["TiO2"], by_formula["NaCl"]
    for constraints in (
        Constraints(composition={22: 2, 8: 4}),
        Constraints(elements=frozenset({8, 22, 40})),
        Constraints(space_groups=frozenset({136})),
        Constraints(min_atoms=3),
    ):
        assert constraints.allow(rutile)
        assert not constraints.allow(salt)
    assert not Constraints(max_atoms=5).allow(rutile)
    assert Constraints().allow(salt)


@pytest.mark.parametrize("required", [{8}, {3, 8}, {1, 26, 92}])
def test_required_elements_occur(tiny_model, required):
    limits = Constraints(required=frozenset(required), max_atoms=12)
    for seed in (0, 1):
        found = draw(tiny_model, constraints=limits, seed=seed)
        crystals = [c for c in found.crystals() if c is not None]
        assert len(crystals) > 30
        for crystal in crystals:
            assert required <= crystal.composition.keys()
            assert crystal.num_primitive_atoms <= 12
            assert limits.allow(crystal)
    assert not Constraints(required=frozenset({79})).allow(crystals[0]) or (
        79 in crystals[0].composition
    )


def test_the_tightest_requirement_is_met(tiny_model):
    only = frozenset({11, 17})
    limits = Constraints(elements=only, required=only, max_atoms=2)
    for crystal in draw(tiny_model, 12, constraints=limits).crystals():
        assert crystal is None or crystal.composition == {11: 1, 17: 1}


def test_one_of_several_elements_occurs(tiny_model):
    limits = Constraints.of(require="Li,O,Mn/Fe/Co,S/Se", num_atoms=(4, 12))
    assert limits.required == {3, 8}
    assert set(limits.any_of) == {frozenset({25, 26, 27}), frozenset({16, 34})}
    found = [c for c in draw(tiny_model, constraints=limits).crystals() if c]
    assert len(found) > 30
    chosen = set()
    for crystal in found:
        own = crystal.composition.keys()
        assert {3, 8} <= own
        assert own & {25, 26, 27}
        assert own & {16, 34}
        assert limits.allow(crystal)
        chosen |= own & {25, 26, 27, 16, 34}
    assert len(chosen) > 2
    tight = Constraints.of(require="Li,Mn/Fe,O", elements="Li,Fe,O", num_atoms=3)
    for crystal in draw(tiny_model, 12, constraints=tight).crystals():
        assert crystal is None or crystal.composition == {3: 1, 8: 1, 26: 1}
    assert not limits.allow(next(c for c in draw(tiny_model).crystals() if c))
    for wrong in ({"exclude": "Mn,Fe"}, {"elements": "Li,O"}, {"composition": "NaCl"}):
        with pytest.raises(ConfigError, match="none of Mn/Fe is allowed"):
            draw(tiny_model, 2, constraints=Constraints.of(require="Mn/Fe", **wrong))


@pytest.mark.parametrize(
    "limits",
    [
        {"elements": {1, 2}, "required": {3}},
        {"composition": {11: 1, 17: 1}, "required": {3}},
        {"max_atoms": 1, "required": {3, 8}},
        {"required": set(range(1, 40))},
    ],
)
def test_requirements_that_cannot_be_met_are_refused(tiny_model, limits):
    limits = {k: frozenset(v) if isinstance(v, set) else v for k, v in limits.items()}
    with pytest.raises(ConfigError, match=r"required|is not allowed"):
        draw(tiny_model, 2, constraints=Constraints(**limits))


def test_weights_give_back_what_masks_took(tiny_model):
    """Weighted, masked draws are those of all draws that have the element."""
    zinc = 30
    need = Constraints(required=frozenset({zinc}), max_atoms=8)
    generator = torch.Generator().manual_seed(0)

    def compositions(limits, count):
        z = torch.zeros(count, tiny_model.config.latent.dim)
        beta = tiny_model.beta_tensor(None, count)
        hot = SamplingOptions(temperature=1.0)
        run = Decoding(tiny_model, z, beta, hot, limits, generator)
        run.compositions()
        return run

    free = compositions(Constraints(max_atoms=8), 40_000)
    other = Constraints(any_of=(frozenset({zinc, 47}),), max_atoms=8)
    either = ((free.element == zinc) | (free.element == 47)).any(1).float().mean()
    weight = compositions(other, 8000).log_weight.double().exp()
    assert float(weight.mean()) == pytest.approx(float(either), rel=0.2)
    has = (free.element == zinc).any(1)
    masked = compositions(need, 8000)
    weight = masked.log_weight.double().exp()
    assert float(weight.mean()) == pytest.approx(float(has.float().mean()), rel=0.2)
    first = masked.element[:, 0] == zinc
    expected = float((free.element[has, 0] == zinc).float().mean())
    assert float((weight * first).sum() / weight.sum()) == pytest.approx(
        expected, abs=0.1
    )
    assert float(first.float().mean()) < expected / 2
    chosen = _weighted_choice(masked.log_weight.double(), 100, generator)
    assert len(set(chosen.tolist())) == 100
    assert float(first[chosen].float().mean()) > 2 * float(first.float().mean())


def test_a_group_that_cannot_hold_a_composition_is_named(tiny_model):
    limits = Constraints(composition={11: 1, 17: 1}, space_groups=frozenset({62}))
    with pytest.raises(ConfigError, match="4 times the formula"):
        draw(tiny_model, 2, constraints=limits)
    more = Constraints(composition={11: 4, 17: 4}, space_groups=frozenset({62}))
    assert any(c is not None for c in draw(tiny_model, 4, constraints=more).crystals())


def test_constraints_from_symbols():
    made = Constraints.of(
        elements="Li,Fe-O",
        require=["Li"],
        composition="Li2FeO2",
        space_groups=62,
        num_atoms=(2, 9),
    )
    assert made == Constraints(
        {3: 2, 26: 1, 8: 2},
        frozenset({3, 26, 8}),
        frozenset({62}),
        2,
        9,
        frozenset({3}),
    )
    assert Constraints.of() == Constraints()
    whole = Constraints.of(num_atoms=np.int64(4), space_groups=np.int64(5))
    assert whole == Constraints(None, None, frozenset({5}), 4, 4)
    for wrong in ({"require": ["Xy"]}, {"composition": "Xy3"}, {"elements": "D3"}):
        with pytest.raises(ConfigError, match="no element symbol"):
            Constraints.of(**wrong)
    assert Constraints.of(exclude="Tl,Cd").excluded == {81, 48}


def test_space_groups_are_numbers_ranges_and_symbols():
    for number in range(1, 231):
        symbol = symmetry_tables().symbol[number]
        for given in (number, str(number), symbol, [symbol], symbol.replace("_", "")):
            assert parse_space_groups(given) == {number}
    mixed = Constraints.of(space_groups="62, 139-142,R-3m").space_groups
    assert mixed == {62, 139, 140, 141, 142, 166}
    assert Constraints.of(space_groups=[225, "P6_3/mmc", "3-4"]).space_groups == {
        *(225, 194, 3, 4)
    }


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("Fm-3x", "'Fm-3x' is no space group; did you mean Fm-3"),
        ("p1", "did you mean P1"),
        ("62,Qqqqqq", "'Qqqqqq' is no space group"),
        ("", "'' is no space group"),
        ("-1", "is no space group"),
        ("139-1e3", "a range A-B"),
        ("1-999999999999", "1 to 230"),
        (0, "1 to 230"),
        ([3.5], "numbers or symbols, not 3.5"),
    ],
)
def test_what_is_no_space_group_is_said(given, message):
    with pytest.raises(ConfigError, match=message):
        Constraints.of(space_groups=given)


@pytest.mark.parametrize("argument", ["elements", "exclude", "require"])
def test_symbols_in_lower_case_are_recognised(argument):
    with pytest.raises(ConfigError, match="'li' is no element symbol; did you mean Li"):
        Constraints.of(**{argument: ["O", "li"]})
    with pytest.raises(ConfigError, match="'qq' is no element symbol") as caught:
        Constraints.of(**{argument: ["qq"]})
    assert "did you mean" not in str(caught.value)


def test_what_the_group_fixes_is_exact(tiny_model):
    groups = [152, 166, 194, 123, 225]
    drawn = []
    for seed, number in enumerate(groups):
        found = tiny_model.sample(
            6,
            seed=seed,
            space_groups=number,
            num_workers=1,
            distinct=False,
            checks="volume",
        )
        drawn += found
    for crystal in drawn:
        metric = crystal.lattice @ crystal.lattice.T
        assert abs(metric[0, 0] - metric[1, 1]) < 1e-12 * metric[0, 0]
        if 143 <= crystal.number <= 194:
            assert abs(metric[0, 1] + 0.5 * metric[0, 0]) < 1e-12 * metric[0, 0]
            text = crystal.to_cif()
            assert "_cell_angle_gamma  120.00000000" in text
            lengths = [
                line.split()[1]
                for line in text.splitlines()
                if line.startswith("_cell_length_")
            ]
            assert lengths[0] == lengths[1]
        tables = symmetry_tables()
        place = crystal.number, crystal.wyckoffs
        exact = np.einsum("sij,sj->si", tables.embed[place], crystal.frac_coords)
        gap = exact + tables.offset[place] - crystal.frac_coords
        assert np.abs(gap - np.round(gap)).max() < 1e-14


@pytest.mark.parametrize(
    ("symbol", "number"),
    [("Pbnm", 62), ("P2_1/n", 14), ("P21/c", 14), ("I2/a", 15), ("A2/m", 12)],
)
def test_symbols_of_other_settings_are_known(symbol, number):
    assert Constraints.of(space_groups=symbol).space_groups == {number}
