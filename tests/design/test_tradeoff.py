import csv

import pytest

from crystalvae.cli import main
from crystalvae.design.tradeoff import plot_tradeoff, tradeoff


def test_rows_obey_their_laws(tiny_model, crystals):
    rows = tradeoff(tiny_model, crystals, points=3, num_draws=4)
    latent = tiny_model.config.latent
    assert [row["beta"] for row in rows][::2] == pytest.approx(
        [latent.beta_min, latent.beta_max], rel=1e-5
    )
    for row in rows:
        assert row["rate"] >= 0
        assert 0 <= row["active_units"] <= latent.dim
        assert row["sites_right"] <= min(row["composition_right"], row["group_right"])
        assert row["valid"] <= row["complete"] <= 1


def test_a_collapsed_model_is_plotted_as_well(tiny_model, crystals, tmp_path):
    rows = tradeoff(tiny_model, crystals[:1], points=2, num_draws=0)
    assert {row["active_units"] for row in rows} == {0}
    plot_tradeoff(rows, tmp_path / "flat.png")
    assert (tmp_path / "flat.png").read_bytes()[:4] == b"\x89PNG"


def test_command(tiny_model, tmp_path, crystals):
    tiny_model.save_pretrained(tmp_path / "model")
    (tmp_path / "in").mkdir()
    for i, crystal in enumerate(crystals[:6]):
        (tmp_path / "in" / f"{i}.cif").write_text(crystal.to_cif())
    out = tmp_path / "out"
    command = ["tradeoff", str(tmp_path / "model"), str(tmp_path / "in"), "-o"]
    options = ["--points", "2", "--draws", "4", "--no-progress", "--device", "cpu"]
    assert main([*command, str(out), *options]) == 0
    with (out / "tradeoff.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 2
    assert (out / "tradeoff.png").read_bytes()[:4] == b"\x89PNG"
    assert main([*command, str(out), *options]) == 1
