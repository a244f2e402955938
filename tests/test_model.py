import json

import numpy as np
import pytest
import torch
from ase.build import bulk

from crystalvae.batch import CrystalStore
from crystalvae.crystal import AsymmetricUnit
from crystalvae.errors import CheckpointError, ConfigError, InvalidStructureError
from crystalvae.latent import Posterior
from crystalvae.model import CrystalVAE
from crystalvae.model_config import EncoderConfig
from crystalvae.nn.basic import rows_of
from crystalvae.training.fit_prior import fit_prior
from tests.conftest import REFERENCE


def test_likelihood_is_normalised_over_space_groups(tiny_model):
    state = torch.randn(3, tiny_model.config.decoder.dim)
    logits = tiny_model.decoder.group_head.logits(state)
    total = torch.softmax(logits, -1)[:, 1:].sum(-1)
    torch.testing.assert_close(total, torch.ones(3))


def test_lattice_density_integrates_to_one_for_cubic_cells(tiny_model):
    head = tiny_model.decoder.lattice_head
    state = torch.randn(1, tiny_model.config.decoder.dim)
    grid = torch.linspace(-15, 15, 30001)
    coords = torch.zeros(len(grid), 6)
    coords[:, 0] = grid
    system = torch.full((len(grid),), 6)
    density = (-head.loss(state.expand(len(grid), -1), coords, system)).exp()
    assert abs(float(torch.trapezoid(density, grid)) - 1) < 1e-3


def test_coordinate_density_integrates_to_one(tiny_model):
    head = tiny_model.decoder.coordinate_head
    count = 4000
    context = torch.randn(1, 3 * tiny_model.config.decoder.dim).expand(count, -1)
    coords = torch.zeros(count, 3)
    coords[:, 0] = (torch.arange(count) + 0.5) / count
    free = torch.tensor([[True, False, False]]).expand(count, 3)
    density = (-head.loss(context, coords, free)).exp()
    assert abs(float(density.mean()) - 1) < 2e-3


def test_a_posterior_does_not_depend_on_the_description(tiny_model):
    from crystalvae.design.sample import draw_checked

    checks = "volume,density,distance,radii,group"
    kept, _ = draw_checked(tiny_model, 12, seed=3, num_workers=1, checks=checks)
    drawn = [item.crystal for item in kept]
    written = [
        AsymmetricUnit.from_structure(crystal.to_structure(), symprec=1e-3)
        for crystal in drawn
    ]
    assert any(
        one.wyckoffs.tolist() != other.wyckoffs.tolist()
        or not np.allclose(one.frac_coords, other.frac_coords, atol=1e-2)
        for one, other in zip(drawn, written)
    )
    means = [tiny_model.encode(crystals).mu for crystals in (drawn, written)]
    torch.testing.assert_close(*means, atol=1e-3, rtol=1e-3)
    scores = [tiny_model.log_prob(c, means[1])["total"] for c in (drawn, written)]
    torch.testing.assert_close(*scores, atol=0.05, rtol=1e-3)


def test_log_prob_does_not_depend_on_the_company(tiny_model, crystals):
    z = torch.randn(len(crystals), tiny_model.config.latent.dim)
    together = tiny_model.log_prob(crystals, z)["total"]
    single = [
        float(tiny_model.log_prob([crystal], z[i : i + 1])["total"])
        for i, crystal in enumerate(crystals)
    ]
    np.testing.assert_allclose(together, single, rtol=1e-3, atol=1e-3)


def test_every_parameter_gets_a_gradient(tiny_model, crystals):
    batch = CrystalStore.from_crystals(crystals).batch(torch.arange(len(crystals)))
    objective = tiny_model.train()(batch, tiny_model.beta_tensor(0.1, len(crystals)))
    (objective.distortion + objective.kl).mean().backward()
    for name, parameter in tiny_model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_decoding_by_steps_agrees_with_decoding_at_once(tiny_model):
    transformer = tiny_model.decoder.transformer
    tokens = torch.randn(3, 7, tiny_model.config.decoder.dim)
    valid = torch.ones(3, 7, dtype=torch.bool)
    valid[1, 3] = False
    whole = transformer(tokens, valid)
    cache = transformer.new_cache(3, 7, tokens)
    for step in range(7):
        state = transformer.step(tokens[:, step : step + 1], cache, valid[:, step])
        torch.testing.assert_close(
            state[valid[:, step]], whole[:, step][valid[:, step]], rtol=1e-4, atol=1e-5
        )


def test_saved_model_is_the_same_model(tiny_model, crystals, tmp_path):
    tiny_model.save_pretrained(tmp_path / "one")
    loaded = CrystalVAE.from_pretrained(tmp_path / "one", device="cpu")
    loaded.save_pretrained(tmp_path / "two")
    again = CrystalVAE.from_pretrained(tmp_path / "two", device="cpu")
    one, two = loaded.encode(crystals), again.encode(crystals)
    torch.testing.assert_close(one.mu, two.mu, rtol=0, atol=0)
    assert loaded.config == tiny_model.config


def test_a_fitted_flow_draws_what_posteriors_hold_and_survives_saving(
    tiny_model, crystals, tmp_path, monkeypatch
):
    store = CrystalStore.from_crystals(crystals)
    centre = torch.full((len(store), 8), 3.0)
    monkeypatch.setattr(
        CrystalVAE,
        "encode_store",
        lambda *_: Posterior(centre, torch.full_like(centre, -4.0)),
    )
    fitted = fit_prior(tiny_model, store, steps=400, batch_size=64, learning_rate=1e-2)
    fitted.save_pretrained(tmp_path)
    loaded = CrystalVAE.from_pretrained(tmp_path, device="cpu")

    def drawn(model):
        generator = torch.Generator().manual_seed(0)
        return model.prior_sample(500, beta=0.5, generator=generator)

    torch.testing.assert_close(drawn(loaded), drawn(fitted), atol=0.05, rtol=0.01)
    assert (drawn(loaded).mean(0) - 3).abs().max() < 0.5
    assert drawn(loaded).std(0).max() < 0.6


def test_scores_take_structures_and_a_latent_vector_each(tiny_model, crystals):
    structures = [crystal.to_structure() for crystal in crystals[:2]]
    z = torch.zeros(2, 8)
    own = tiny_model.log_prob(structures, z)["total"]
    other = tiny_model.log_prob(crystals[:2], z)["total"]
    torch.testing.assert_close(own, other, atol=1e-2, rtol=1e-4)
    with pytest.raises(ConfigError, match=r"2 crystals need .* \(2, 8\)"):
        tiny_model.log_prob(structures, z[:1])
    nothing = tiny_model.log_prob([], z[:0])
    assert nothing.keys() == tiny_model.log_prob(structures, z).keys()
    assert all(len(values) == 0 for values in nothing.values())


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("model.safetensors", b"\x00" * 20),
        ("config.json", b"{"),
        ("config.json", b'{"format_version": 99, "model": {}}'),
        ("config.json", b'{"format_version": 1, "model": {"colour": 3}}'),
    ],
)
def test_damaged_model_says_which_file(tiny_model, tmp_path, file, content):
    tiny_model.save_pretrained(tmp_path)
    (tmp_path / file).write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        CrystalVAE.from_pretrained(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_truncated_weights_are_refused(tiny_model, tmp_path):
    tiny_model.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="truncated"):
        CrystalVAE.from_pretrained(tmp_path)


def test_config_of_a_saved_model_is_plain_json(tiny_model, tmp_path):
    tiny_model.save_pretrained(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    assert content["model"]["latent"]["dim"] == 8


def test_unknown_encoder_and_model_are_named():
    with pytest.raises(ConfigError, match="moment"):
        EncoderConfig("momentum")
    with pytest.raises(CheckpointError, match="no model"):
        CrystalVAE.from_pretrained("nothing-of-this-name")


def test_dropout_acts_on_the_crystals_that_it_is_for(tiny_model, crystals):
    batch = CrystalStore.from_crystals(crystals).batch(torch.arange(len(crystals)))
    beta = tiny_model.beta_tensor(0.1, len(crystals))
    dropout = torch.where(torch.arange(len(crystals)) % 2 == 0, 0.5, 0.0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        plain = tiny_model(batch, beta, mean=True).distortion
        noisy = tiny_model(batch, beta, generator, mean=True, dropout=dropout)
    same = torch.isclose(plain, noisy.distortion, atol=1e-5)
    assert torch.equal(same, dropout == 0)


def test_surplus_rows_change_nothing(tiny_model, crystals, monkeypatch):
    """Under autocast the number of sites is rounded up, in heads and encoder alike."""
    batch = CrystalStore.from_crystals(crystals).batch(torch.arange(len(crystals)))
    beta = tiny_model.beta_tensor(0.1, len(crystals))
    with torch.no_grad():
        plain = tiny_model(batch, beta, mean=True)
        monkeypatch.setattr(torch, "is_autocast_enabled", lambda _: True)
        rows, counts = rows_of(batch.site_mask)
        rounded = tiny_model(batch, beta, mean=True)
    assert len(rows) > int(counts.sum()) == int(batch.site_mask.sum())
    torch.testing.assert_close(plain.posterior.mu, rounded.posterior.mu)
    for part, value in plain.parts.items():
        torch.testing.assert_close(value, rounded.parts[part])


def test_structures_and_atoms_are_encoded_as_crystals(tiny_model, crystals):
    crystals = crystals[:6]
    mixed = [
        *crystals[:2],
        *(crystal.to_structure() for crystal in crystals[2:4]),
        *(crystal.to_atoms() for crystal in crystals[4:]),
    ]
    expected = tiny_model.encode(crystals).mu
    torch.testing.assert_close(
        tiny_model.encode(mixed).mu, expected, atol=1e-3, rtol=1e-3
    )
    assert tiny_model.encode([]).mu.shape == (0, tiny_model.config.latent.dim)


@pytest.mark.parametrize("wrong", ["NaCl", 3, None])
def test_what_is_no_crystal_is_named(tiny_model, wrong):
    with pytest.raises(InvalidStructureError, match=type(wrong).__name__):
        tiny_model.encode([wrong])


def test_one_crystal_is_no_list(tiny_model, crystals):
    for one in (crystals[0], crystals[0].to_structure(), crystals[0].to_atoms()):
        with pytest.raises(InvalidStructureError, match="a list"):
            tiny_model.encode(one)


def test_latents_of_another_shape_are_refused(tiny_model):
    dim = tiny_model.config.latent.dim
    for wrong in (torch.zeros(dim), torch.zeros(2, dim + 1), np.zeros((1, 1, dim))):
        with pytest.raises(ConfigError, match="shape"):
            tiny_model.decode(wrong)
    assert len(tiny_model.decode(np.zeros((2, dim)))) == 2


def test_sampling_takes_symbols(tiny_model):
    drawn = tiny_model.sample(
        3, require=["O"], elements=["Ti", "O", "Mg"], num_atoms=(2, 8), refine=None
    )
    assert len(drawn) == 3
    for crystal in drawn:
        assert 8 in crystal.composition
        assert crystal.composition.keys() <= {8, 12, 22}
        assert 2 <= crystal.num_primitive_atoms <= 8
    kept = tiny_model.sample(3, elements="Ti,O,Mg", exclude=["O"], num_atoms=(1, 4))
    assert not any(8 in crystal.composition for crystal in kept)
    with pytest.raises(ConfigError, match="at least 1"):
        tiny_model.sample(-1)


def test_a_crystal_of_a_file(tmp_path, crystals):
    path = tmp_path / "one.cif"
    path.write_text(crystals[0].to_cif())
    found = AsymmetricUnit.from_file(path)
    assert (found.number, found.formula) == (crystals[0].number, crystals[0].formula)
    same = AsymmetricUnit.from_structure(REFERENCE["rutile"][0])
    assert same.density == pytest.approx(REFERENCE["rutile"][0].density, rel=1e-3)
    path.write_text("")
    with pytest.raises(InvalidStructureError, match="empty"):
        AsymmetricUnit.from_file(path)


def test_wrong_calls_say_what_to_do(tiny_model):
    with pytest.raises(
        ConfigError, match=r"options=SamplingOptions\(temperature=...\)"
    ):
        tiny_model.decode(torch.zeros(1, 8), temperature=1.0)
    with pytest.raises(InvalidStructureError, match=r"Atoms.*AsymmetricUnit\.of"):
        AsymmetricUnit.from_structure(bulk("Cu"))
