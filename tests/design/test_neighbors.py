import numpy as np
import pytest
import torch

from crystalvae.cli import main
from crystalvae.crystal import AsymmetricUnit
from crystalvae.design.neighbors import (
    Around,
    change,
    is_listed,
    merge_distorted,
    neighbors,
    occupation,
)
from crystalvae.errors import ConfigError
from crystalvae.latent import Posterior
from crystalvae.screening.uniqueness import ReferenceIndex, default_matcher
from tests.cli.conftest import table
from tests.conftest import REFERENCE, random_setting


def unit(name):
    return AsymmetricUnit.from_structure(REFERENCE[name][0])


def exchanged(name, **elements):
    structure = REFERENCE[name][0].copy()
    structure.replace_species(elements)
    return AsymmetricUnit.from_structure(structure)


def strained(name, factor):
    structure = REFERENCE[name][0].copy()
    structure.apply_strain(factor)
    return AsymmetricUnit.from_structure(structure)


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


def test_occupation_does_not_depend_on_the_setting(reference):
    structure, number = reference
    rng = np.random.default_rng(0)
    expected = occupation(AsymmetricUnit.from_structure(structure))
    assert expected[0] == number
    for _ in range(3):
        other = AsymmetricUnit.from_structure(random_setting(structure, rng))
        assert occupation(other) == expected


def test_occupation_ignores_strain_and_sees_elements():
    assert occupation(strained("rutile", 0.2)) == occupation(unit("rutile"))
    assert occupation(exchanged("rutile", Ti="Sn")) != occupation(unit("rutile"))


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (lambda: exchanged("perovskite", Sr="Ba"), "Sr → Ba"),
        (lambda: exchanged("perovskite", Sr="Ba", Ti="Zr"), "Ti Sr → Zr Ba"),
        (lambda: strained("perovskite", 0.1), "geometry"),
        (lambda: unit("rutile"), "all"),
    ],
)
def test_change_says_what_is_different(found, expected):
    assert change(unit("perovskite"), found()) == expected


def test_a_polymorph_is_another_structure():
    assert change(unit("nacl"), exchanged("cscl", Cs="Na")) == "structure"


def test_distortions_are_merged_and_matches_followed():
    crystals = [
        unit("nacl"),
        unit("rutile"),
        strained("nacl", 0.2),
        strained("nacl", 0.21),
    ]
    assert merge_distorted(crystals, [0, 1, 2, 2]) == [0, 1, 0, 0]


def test_a_distortion_of_a_known_crystal_is_listed():
    index = ReferenceIndex([unit("nacl"), unit("rutile")])
    looked_up = [strained("nacl", 0.3), exchanged("nacl", Na="K"), unit("rutile")]
    assert is_listed(looked_up, index, num_workers=1) == [True, False, True]


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
    assert len({occupation(item.crystal) for item in found}) == len(found)
    assert {item.origin for item in found} == {0, 1}
    assert [item.count for item in found] == sorted(
        (item.count for item in found), reverse=True
    )


def test_a_small_beta_stays_nearer(shipped):
    stayed = []
    for beta in (0.05, 0.15, 0.5):
        _, report = neighbors(
            shipped, [unit("perovskite")], 30, beta=beta, num_workers=1
        )
        stayed.append(report.same + report.distorted)
    assert stayed[0] > stayed[1] + 3 > stayed[2] + 6


def test_there_must_be_a_crystal(tiny_model):
    with pytest.raises(ConfigError, match="no crystal"):
        neighbors(tiny_model, [], 5)


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
