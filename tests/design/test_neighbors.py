import pytest
import torch
from pymatgen.core import Lattice, Structure

from crystalvae.cli import main
from crystalvae.design.neighbors import Around, neighbors
from crystalvae.errors import ConfigError
from crystalvae.latent import Posterior
from crystalvae.screening.uniqueness import default_matcher
from tests.cli.conftest import table
from tests.design.conftest import exchanged, unit


def test_latents_are_spread_as_the_posteriors_are():
    mean = torch.tensor([[0.0, 5.0], [10.0, -5.0]])
    logvar = torch.tensor([[0.0, 2.0], [-2.0, 0.0]])
    around = Around(Posterior(mean, logvar), spread=0.5)
    z = around(0, 20_000, torch.Generator().manual_seed(0)).view(-1, 2, 2)
    torch.testing.assert_close(z.mean(0), mean, atol=0.05, rtol=0)
    torch.testing.assert_close(z.std(0), 0.5 * (logvar / 2).exp(), atol=0, rtol=0.03)


def test_each_draw_knows_its_crystal_in_any_batch():
    mean = torch.arange(3.0)[:, None]
    around = Around(Posterior(mean, torch.zeros(3, 1)), spread=0)
    generator = torch.Generator()
    whole = around(0, 10, generator).flatten()
    assert whole.tolist() == [i % 3 for i in range(10)]
    parts = [around(first, 5, generator) for first in (0, 5)]
    assert torch.cat(parts).flatten().tolist() == whole.tolist()


def test_what_is_found_is_new_distinct_and_accounted_for(shipped):
    known = [unit("rutile"), unit("perovskite")]
    found, report = neighbors(shipped, known, 40, beta=0.2, num_workers=1)
    assert report.draws.kept == 40
    drawn = sum(item.count for item in found)
    assert drawn + report.same + report.distorted == 40
    assert len(found) == drawn - report.repeated
    structures = [c.to_structure() for c in known] + [
        item.crystal.to_structure() for item in found
    ]
    matcher = default_matcher()
    for place, structure in enumerate(structures[2:], 2):
        assert not any(matcher.fit(structure, other) for other in structures[:place])
    assert {item.origin for item in found} == {0, 1}
    assert [item.count for item in found] == sorted(
        (item.count for item in found), reverse=True
    )


def test_a_small_beta_stays_nearer(shipped):
    stayed = []
    for beta in (0.05, 0.25, 0.6):
        _, report = neighbors(
            shipped, [unit("perovskite")], 30, beta=beta, num_workers=1
        )
        stayed.append(report.same + report.distorted)
    assert stayed[0] > stayed[1] + 3 > stayed[2] + 6


def test_distances_are_in_deviations_of_the_posterior(shipped):
    known = unit("perovskite")
    found, _ = neighbors(shipped, [known], 30, beta=0.25, num_workers=1)
    posterior = shipped.encode([known], 0.25)
    for item in found[:3]:
        mean = shipped.encode([item.crystal], 0.25).mu
        away = (mean - posterior.mu) / torch.exp(0.5 * posterior.logvar)
        expected = float(away.square().mean() ** 0.5)
        assert item.distance == pytest.approx(expected, rel=1e-3)
        assert item.distance > 0


def test_processes_change_nothing(shipped):
    runs = [
        neighbors(shipped, [unit("rutile")], 40, batch_size=20, num_workers=workers)
        for workers in (1, 2)
    ]
    (alone, report), (several, other) = runs
    assert report == other
    for one, two in zip(alone, several, strict=True):
        assert (one.draw, one.count, one.origin) == (two.draw, two.count, two.origin)
        assert one.crystal.formula == two.crystal.formula


def test_there_must_be_crystals_and_a_draw_for_each(tiny_model):
    with pytest.raises(ConfigError, match="no crystal"):
        neighbors(tiny_model, [], 5)
    with pytest.raises(ConfigError, match="5 draws around 6 crystals"):
        neighbors(tiny_model, [unit("nacl")] * 6, 5)


def test_command(shipped, tmp_path, capsys):
    source = tmp_path / "in"
    source.mkdir()
    (source / "good.cif").write_text(unit("perovskite").to_cif())
    (source / "broken.cif").write_text("nothing")
    known = tmp_path / "known"
    known.mkdir()
    (known / "ba.cif").write_text(exchanged("perovskite", Sr="Ba").to_cif())
    out = tmp_path / "out"
    command = ["neighbors", "mp_20", str(source), "-n", "40", "--beta", "0.25"]
    options = ["--workers", "1", "--no-progress", "--device", "cpu"]
    assert main([*command, "-o", str(out), "--unlisted", str(known), *options]) == 0, (
        capsys.readouterr().err
    )
    rows = table(out)
    assert {f"{row['file']}" for row in rows} == {f.name for f in out.glob("*.cif")}
    assert all(row["near"] == "good" and row["change"] for row in rows)
    assert not any(r["formula"] == "BaTiO3" and r["space_group"] == "221" for r in rows)
    assert "broken" in (out / "summary.json").read_text()
    only = tmp_path / "only"
    assert main([*command, "-o", str(only), "--elements", "Sr,Ti,O", *options]) == 0
    for row in table(only):
        assert set(row["formula"]) <= set("SrTiO()0123456789")


def test_nothing_to_search_around_is_one_sentence(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "broken.cif").write_text("nothing")
    command = ["neighbors", "mp_20", str(tmp_path / "in"), "-o", str(tmp_path / "out")]
    assert main(command) == 1
    message = capsys.readouterr().err.strip()
    assert "holds no structure" in message
    assert "\n" not in message
    assert not (tmp_path / "out").exists()


def test_what_the_model_does_not_know_is_refused(shipped, tmp_path, capsys):
    source = tmp_path / "olivine.cif"
    olivine = Structure.from_spacegroup(
        62,
        Lattice.orthorhombic(10.33, 6.01, 4.69),
        ["Li", "Fe", "P", "O", "O", "O"],
        [
            [0, 0, 0],
            [0.282, 0.25, 0.975],
            [0.095, 0.25, 0.418],
            [0.097, 0.25, 0.743],
            [0.457, 0.25, 0.206],
            [0.166, 0.046, 0.285],
        ],
    )
    olivine.to(str(source))
    command = ["neighbors", "mp_20", str(source), "-o", str(tmp_path / "out")]
    assert main([*command, "--device", "cpu"]) == 1
    message = capsys.readouterr().err
    assert "LiFePO4 has 28 atoms in the primitive cell" in message
    assert "trained on at most 20" in message
    assert not (tmp_path / "out").exists()


def test_structures_are_known_crystals_and_unlisted_ones_are_left_out(shipped):
    structure = unit("perovskite").to_structure()
    options = {"beta": 0.2, "num_workers": 1}
    found, _ = neighbors(shipped, [structure], 12, **options)
    first = found[0].crystal
    left, report = neighbors(shipped, [structure], 12, unlisted=[first], **options)
    assert len(left) + report.listed == len(found)
    assert report.listed >= 1
    assert not any(item.crystal.matches(first) for item in left)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"temprature": 1.0}, "did you mean temperature"),
        ({"require": ["O"]}, r"constraints=Constraints.of\(require=...\)"),
    ],
)
def test_unknown_arguments_are_refused(shipped, wrong, message):
    with pytest.raises(ConfigError, match=message):
        neighbors(shipped, [unit("rutile")], 2, **wrong)
