import errno
import json
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.io import read
from pymatgen.core import Lattice, Structure

from crystalvae.cli import main
from crystalvae.crystal import AsymmetricUnit
from crystalvae.data.joined import JoinedSets
from crystalvae.data.packed import PackedDataset, pack, write_packed
from crystalvae.decoder import DecoderConfig
from crystalvae.errors import ConfigError, DataError
from crystalvae.screening import stability
from crystalvae.screening.campaign import Campaign
from crystalvae.screening.checks import Record
from crystalvae.screening.energies import EnergyFiles, energy_file
from crystalvae.screening.engine import Inspected
from crystalvae.screening.hull import Hull, reference_hull
from crystalvae.screening.potentials import file_name, load_potential
from crystalvae.screening.relax import relax
from crystalvae.screening.resume import load_pickle, save_pickle
from crystalvae.screening.stability import (
    StabilityOptions,
    add_stability,
    stability_summary,
)
from crystalvae.training.config import Source
from crystalvae.training.data import load_sources
from tests.conftest import REFERENCE

METALS = ("Cu", "Au", "Pd", "Ni")


def metallic(name):
    """A reference crystal of metals that EMT knows, with their volume an atom."""
    structure = REFERENCE[name][0].copy()
    kinds = list(dict.fromkeys(site.specie for site in structure))
    structure.replace_species(dict(zip(kinds, METALS)))
    structure.scale_lattice(14.0 * len(structure))
    return AsymmetricUnit.from_structure(structure)


def operations(atoms):
    """Rotations and translations that spglib finds at a tight tolerance."""
    import spglib

    cell = (atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers)
    found = spglib.get_symmetry_dataset(cell, symprec=1e-4)
    return found.rotations, found.translations


def known_crystals():
    return [AsymmetricUnit.from_atoms(bulk(s)) for s in ("Cu", "Au")] + [
        AsymmetricUnit.from_structure(
            Structure(
                Lattice.tetragonal(2.85, 3.7),
                ["Cu", "Au"],
                [[0, 0, 0], [0.5, 0.5, 0.5]],
            )
        )
    ]


def cu3au(stretch=1.0):
    return AsymmetricUnit.from_structure(
        Structure.from_spacegroup(
            221,
            Lattice.cubic(3.75 * stretch),
            ["Au", "Cu"],
            [[0, 0, 0], [0.5, 0.5, 0]],
        )
    )


def campaign_of(crystals):
    inspected = [
        Inspected(Record(f"own-{i}", c.formula), f"own-{i}", c)
        for i, c in enumerate(crystals)
    ]
    return Campaign(inspected, list(range(len(crystals))), {}, None)


def test_hull_of_a_line_by_hand():
    hull = Hull([{29: 1}, {79: 1}, {29: 1, 79: 1}], [0.0, 0.0, -1.0])
    assert hull.energy_above({29: 1, 79: 1}, -1.0) == pytest.approx(0)
    assert hull.energy_above({29: 3, 79: 1}, -0.4) == pytest.approx(0.1)
    assert hull.energy_above({29: 1, 79: 3}, -0.7) == pytest.approx(-0.2)
    assert hull.energy_above({29: 1, 47: 1}, 0.0) is None


@pytest.mark.parametrize("symbol", ["Cu", "Al", "Ni"])
def test_relaxation_finds_the_lattice_constant(symbol):
    near, far = bulk(symbol), bulk(symbol)
    far.set_cell(far.cell * 1.06, scale_atoms=True)
    calculator = load_potential("emt")
    ends = [relax(atoms, calculator, force=0.005) for atoms in (near, far)]
    assert ends[0].energy == pytest.approx(ends[1].energy, abs=1e-3)
    assert ends[1].energy < ends[1].start_energy
    assert ends[1].converged
    volumes = [end.atoms.get_volume() for end in ends]
    assert volumes[0] == pytest.approx(volumes[1], rel=5e-3)
    assert ends[1].rmsd < 1e-6


def test_a_crystal_without_a_symmetry_is_a_failed_relaxation(monkeypatch):
    def lost(*_, **__):
        raise ValueError("no spacegroup")

    monkeypatch.setattr("ase.constraints.FixSymmetry", lost)
    with pytest.raises(RuntimeError, match="no spacegroup"):
        relax(bulk("Cu"), load_potential("emt"))


@pytest.mark.parametrize(
    "name",
    ["cscl", "wurtzite", "rutile", "perovskite", "quartz", "monoclinic", "polar"],
)
def test_relaxed_crystals_keep_every_operation_of_their_group(name):
    crystal = metallic(name)
    atoms = crystal.to_atoms()
    before = operations(atoms)
    assert len(before[0]) * len(atoms) >= len(crystal.wyckoffs)
    found = relax(atoms, load_potential("emt"), max_steps=25)
    assert found.energy < found.start_energy
    assert abs(found.volume_change) > 1e-4
    metric = found.atoms.cell.array @ found.atoms.cell.array.T
    coords, numbers = found.atoms.get_scaled_positions(), found.atoms.numbers
    for rotation, translation in zip(*before):
        np.testing.assert_allclose(rotation.T @ metric @ rotation, metric, atol=1e-4)
        image = coords @ rotation.T + translation
        apart = image[:, None] - coords[None]
        apart -= np.round(apart)
        distance = np.linalg.norm(apart @ found.atoms.cell.array, axis=-1)
        distance[numbers[:, None] != numbers[None]] = np.inf
        assert distance.min(1).max() < 1e-3


@pytest.mark.parametrize("steps", [0, 20])
def test_energies_are_computed_once(tmp_path, steps):
    known = [*known_crystals(), AsymmetricUnit.from_atoms(bulk("Al"))]
    calculator, file = load_potential("emt"), tmp_path / "energies.jsonl"
    hull = reference_hull(known, [{29: 3, 79: 1}], calculator, file, steps=steps)
    assert hull.lowest.keys() == {frozenset([29]), frozenset([79]), frozenset([29, 79])}
    assert len(file.read_text().splitlines()) >= 3 + 2 * bool(steps)
    with file.open("a") as cut:
        cut.write("[0, -3.")
    again = reference_hull(known, [{29: 3, 79: 1}], None, file, steps=steps)
    assert again.lowest == hull.lowest
    with EnergyFiles({0: file}) as energies:
        energies.add(7, 0, -1.5)
    assert "-3.[" not in file.read_text()
    with EnergyFiles({0: file}) as energies:
        assert energies.known[7, 0] == -1.5


def test_a_place_that_may_not_be_written_keeps_nothing(tmp_path, monkeypatch, caplog):
    known, file = known_crystals(), tmp_path / "e.jsonl"
    options = {"steps": 0}
    wanted, calculator = [{29: 1, 79: 1}], load_potential("emt")
    kept = reference_hull(known, wanted, calculator, file, **options)

    def barred(path, mode="r", *rest, **named):
        assert mode == "r", "nothing new has to be written"
        return path_open(path, mode, *rest, **named)

    path_open = Path.open
    monkeypatch.setattr(Path, "open", barred)
    assert reference_hull(known, wanted, None, file, **options).lowest == kept.lowest

    def read_only(path, mode="r", *rest, **named):
        if "r" not in mode:
            raise OSError(errno.EROFS, "Read-only file system")
        return path_open(path, mode, *rest, **named)

    monkeypatch.setattr(Path, "open", read_only)
    other = reference_hull(known, wanted, calculator, tmp_path / "o.jsonl", **options)
    assert other.lowest == kept.lowest
    assert "o.jsonl cannot be written" in caplog.text

    def full(path, mode="r", *rest, **named):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(DataError, match="No space left"):
        reference_hull(known, wanted, calculator, tmp_path / "x.jsonl", **options)


def test_energies_of_a_folder_that_changed_are_computed_anew(tmp_path):
    folder, work = tmp_path / "known", tmp_path / "work"
    folder.mkdir()
    (folder / "b.cif").write_text(known_crystals()[0].to_cif())
    before = energy_file(folder, "emt", work)
    assert energy_file(folder, "emt", work) == before
    (folder / "a.cif").write_text(known_crystals()[1].to_cif())
    assert energy_file(folder, "emt", work) != before
    (folder / "a.cif").unlink()
    moved = folder.rename(tmp_path / "moved")
    (moved / "b.cif").touch()
    assert energy_file(moved, "emt", work) == before


def test_a_data_set_learns_its_energies(tmp_path, capsys):
    copper, gold, alloy = known_crystals()
    metals = [("Cu", "bcc", 2.87), ("Cu", "bcc", 3.1), ("Pd", "fcc", 3.9)]
    atoms = [bulk(symbol, kind, a=length) for symbol, kind, length in metals]
    own = [gold, *map(AsymmetricUnit.from_atoms, atoms)]
    for name, crystals in (("own", own), ("known", [copper, gold, alloy])):
        ids = [str(i) for i in range(len(crystals))]
        write_packed(tmp_path / name, pack(crystals), ids, {})
    command = ["energies", str(tmp_path / "own"), "-o", str(tmp_path / "labelled")]
    command += ["--reference", str(tmp_path / "known"), "--potential", "emt"]
    assert main([*command, "--workers", "1", "--no-progress"]) == 0
    assert "4 of 4 crystals have an energy, 3 of them" in capsys.readouterr().out
    labelled = PackedDataset(tmp_path / "labelled")
    assert [c.formula for c in labelled] == [c.formula for c in own]
    energy = labelled.properties["energy_emt"]
    for crystal, value in zip(own, energy):
        atoms = crystal.to_atoms()
        atoms.calc = load_potential("emt")
        expected = atoms.get_potential_energy() / len(atoms)
        assert value == pytest.approx(expected, abs=1e-5)
    above = labelled.properties["e_above_hull_emt"]
    assert above[0] == pytest.approx(0, abs=1e-6)
    assert above[2] - above[1] == pytest.approx(energy[2] - energy[1])
    assert np.isnan(above[3])
    again = [*command, "--workers", "1", "--no-progress", "--relax-some", "5"]
    assert main(again) == 0
    lowered = PackedDataset(tmp_path / "labelled")
    left = lowered.info["left_by_relaxing"]
    relaxed = relax(own[2].to_atoms(), load_potential("emt"), max_steps=50).energy
    assert left == pytest.approx(1 - (energy[2] - relaxed) / above[2], abs=1e-3)
    assert 0.05 < left < 0.5
    below = lowered.properties["e_above_hull_emt"]
    np.testing.assert_allclose(below, np.where(above > 0, left * above, above))
    source = Source("labelled", columns={"e_above_hull": "e_above_hull_emt"})
    learned = load_sources([source], tmp_path, DecoderConfig(), "e_above_hull")
    np.testing.assert_allclose(learned.labels, below[:3], atol=1e-6)
    assert main([*command[:3], str(tmp_path / "own"), *command[4:]]) == 1
    assert "no data set made by energies" in capsys.readouterr().err
    assert len(PackedDataset(tmp_path / "own")) == 4


def test_what_failed_is_tried_again(tmp_path, caplog):
    from ase.calculators.emt import EMT

    class Moody(EMT):
        def __init__(self, refused):
            super().__init__()
            self.refused = refused

        def calculate(self, atoms=None, *arguments, **options):
            if self.refused & set(atoms.get_chemical_symbols()):
                raise RuntimeError("out of memory")
            super().calculate(atoms, *arguments, **options)

    file, wanted = tmp_path / "e.jsonl", [{29: 1, 79: 1}]
    options = {"steps": 0}
    hull = reference_hull(known_crystals(), wanted, Moody({"Au"}), file, **options)
    assert hull.lowest.keys() == {frozenset([29])}
    assert "2 of 3 crystals have no energy" in caplog.text
    hull = reference_hull(known_crystals(), wanted, Moody(set()), file, **options)
    assert len(hull.lowest) == 3
    other, broken = tmp_path / "other.jsonl", Moody({"Cu", "Au"})
    with pytest.raises(ConfigError, match="out of memory"):
        reference_hull(known_crystals(), wanted, broken, other, **options)


def test_relaxations_of_other_crystals_are_not_taken(tmp_path):
    gold = AsymmetricUnit.from_atoms(bulk("Au", a=4.3))
    copper = AsymmetricUnit.from_atoms(bulk("Cu", a=3.7))
    for crystal, symbol in ((copper, "Cu"), (gold, "Au")):
        found = add_stability(
            campaign_of([crystal]),
            known_crystals(),
            tmp_path,
            tmp_path / "e.jsonl",
            StabilityOptions("emt", reference_steps=0),
        )
        assert set(found[0].atoms.get_chemical_symbols()) == {symbol}


def test_several_sets_make_one_hull(tmp_path):
    known = known_crystals()
    joined = JoinedSets([known[:2], known[2:]])
    files = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    wanted, calculator = [{29: 1, 79: 1}], load_potential("emt")
    whole = reference_hull(known, wanted, calculator, tmp_path / "c.jsonl", steps=5)
    parted = reference_hull(joined, wanted, calculator, files, steps=5)
    assert parted.lowest == whole.lowest
    rows = [json.loads(line)[0] for line in files[1].read_text().splitlines()]
    assert set(rows) == {0}
    assert reference_hull(joined, wanted, None, files, steps=5).lowest == whole.lowest


def test_what_lies_far_below_the_hull_is_doubted(tmp_path, monkeypatch):
    options, file = StabilityOptions("emt", threshold=5.0), tmp_path / "e.jsonl"

    def judged():
        campaign = campaign_of([cu3au(1.0), metallic("fe")])
        relaxed = add_stability(campaign, known_crystals(), tmp_path, file, options)
        results = [item.record.results["stable"] for item in campaign.inspected]
        return campaign, stability_summary(campaign, relaxed, options), results

    campaign, summary, results = judged()
    low, high = campaign.survivors
    assert summary["far_below_the_hull"] == 0
    between = (results[low].value + results[high].value) / 2
    monkeypatch.setattr(stability, "FAR_BELOW", -between)
    campaign, summary, results = judged()
    assert campaign.survivors == [high, low]
    assert "far below" in results[low].message
    assert "far below" not in results[high].message
    assert summary["far_below_the_hull"] == 1


def test_relaxed_into_what_is_known_is_said(tmp_path):
    wide = AsymmetricUnit.from_structure(
        Structure(
            Lattice.tetragonal(2.85, 5.2), ["Cu", "Au"], [[0, 0, 0], [0.5, 0.5, 0.5]]
        )
    )
    again = AsymmetricUnit.from_atoms(bulk("Ni", a=3.6))
    campaign = campaign_of([wide, again, AsymmetricUnit.from_atoms(bulk("Ni"))])
    options = StabilityOptions("emt", threshold=5.0)
    known = [*known_crystals(), metallic("nacl")]
    relaxed = add_stability(campaign, known, tmp_path, tmp_path / "e.jsonl", options)
    same = [campaign.extra[place]["relaxed_same_as"] for place in range(3)]
    assert same == ["2", "", "own-1"]
    summary = stability_summary(campaign, relaxed, options)
    passed = [campaign.inspected[p].record.results["stable"].passed for p in range(3)]
    assert summary["of_these_known_or_repeated_once_relaxed"] == sum(
        bool(ok) for ok, text in zip(passed, same) if text
    )


def test_relaxing_the_known_lowers_the_hull(tmp_path):
    known, calculator = known_crystals(), load_potential("emt")
    wanted = [{29: 1, 79: 1}]
    energies = [
        reference_hull(known, wanted, calculator, tmp_path / "e.jsonl", steps=steps)
        for steps in (0, 30)
    ]
    plain, relaxed = (hull.lowest for hull in energies)
    assert plain.keys() == relaxed.keys()
    for system, found in plain.items():
        assert all(relaxed[system][shares] <= e for shares, e in found.items())
    assert energies[1].energy_above({29: 1, 79: 1}, 0.0) > energies[0].energy_above(
        {29: 1, 79: 1}, 0.0
    )


def test_formation_energy_by_hand():
    hull = Hull([{29: 1}, {29: 1}, {79: 1}, {29: 1, 79: 1}], [-3.0, -2.0, -4.0, -5.0])
    assert hull.formation_energy({29: 1}, -3.0) == pytest.approx(0)
    assert hull.formation_energy({29: 3, 79: 1}, -4.25) == pytest.approx(-1)
    assert hull.formation_energy({29: 1, 47: 1}, 0.0) is None


def test_stability_is_judged_and_goes_on(tmp_path, monkeypatch):
    campaign = campaign_of([cu3au(1.05), metallic("fe"), cu3au(1.0)])
    energies, options = tmp_path / "e.jsonl", StabilityOptions("emt", threshold=0.3)
    relaxed = add_stability(campaign, known_crystals(), tmp_path, energies, options)
    assert set(relaxed) == {0, 1, 2}
    values = [item.record.results["stable"].value for item in campaign.inspected]
    assert values[0] == pytest.approx(values[2], abs=5e-3)
    assert values[1] > -1e-6
    assert campaign.survivors == sorted(campaign.survivors, key=values.__getitem__)
    assert campaign.extra[0]["relaxed_volume_change"] < 0
    summary = stability_summary(campaign, relaxed, options)
    assert summary["relaxed"] == summary["judged"] == 3
    monkeypatch.setattr(stability, "relax", None)
    again = campaign_of([cu3au(1.05), metallic("fe"), cu3au(1.0)])
    repeated = add_stability(again, known_crystals(), tmp_path, energies, options)
    assert [r.energy for r in repeated.values()] == [r.energy for r in relaxed.values()]


def test_what_cannot_be_judged_says_so(tmp_path):
    campaign = campaign_of([cu3au(), AsymmetricUnit.from_atoms(bulk("W"))])
    relaxed = add_stability(
        campaign, [], tmp_path, tmp_path / "e.jsonl", StabilityOptions("emt")
    )
    verdicts = [item.record.results["stable"] for item in campaign.inspected]
    assert [verdict.passed for verdict in verdicts] == [None, None]
    assert "no known crystals" in verdicts[0].message
    assert "relaxation failed" in verdicts[1].message
    assert set(relaxed) == {0}
    assert stability_summary(campaign, relaxed, StabilityOptions())["judged"] == 0


def test_screen_relaxes_and_writes(tmp_path):
    write_packed(tmp_path / "known", pack(known_crystals()), ["cu", "au", "cuau"], {})
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "found.cif").write_text(cu3au(1.03).to_cif())
    out = tmp_path / "out"
    arguments = ["screen", str(tmp_path / "in"), "-o", str(out), "--workers", "1"]
    arguments += ["--reference", str(tmp_path / "known"), "--relax", "emt"]
    assert main([*arguments, "--no-progress", "--stable-below", "1"]) == 0
    frame = read(out / "relaxed.extxyz")
    assert frame.info["material_id"] == "00001-Cu3Au"
    assert frame.info["relaxed_volume_change"] < 0
    written = AsymmetricUnit.from_file(out / "relaxed" / "00001-Cu3Au.cif")
    assert written.number == 221
    assert written.volume == pytest.approx(frame.get_volume(), rel=1e-4)
    page = (out / "report.html").read_text()
    assert "meV/atom above the hull" in page
    assert "1 of 1" in page


def test_kept_results_are_whole_or_absent(tmp_path):
    path = tmp_path / "a.pickle"
    assert load_pickle(path) is None
    save_pickle(path, {"a": 1})
    assert load_pickle(path) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]
    path.write_bytes(path.read_bytes()[:-3])
    assert load_pickle(path) is None
    with pytest.raises(DataError, match="cannot write"):
        save_pickle(tmp_path / "absent" / "b.pickle", 1)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("chgnett", "known are chgnet, sevennet, mace, emt"),
        ("no_such_package:Calculator", "not installed"),
        ("ase.calculators.emt:Absent", "makes no calculator"),
        ("builtins:dict", "no ASE calculator"),
    ],
)
def test_what_is_no_potential_is_refused(name, message):
    with pytest.raises(ConfigError, match=message):
        load_potential(name)


def test_any_ase_calculator_is_a_potential():
    name = "ase.calculators.emt:EMT"
    energies = []
    for potential in (name, "emt"):
        atoms = bulk("Cu")
        atoms.calc = load_potential(potential)
        energies.append(atoms.get_potential_energy())
    assert energies[0] == energies[1]
    assert file_name(name) == "ase.calculators.emt-EMT"
    assert file_name("chgnet") == "chgnet"


@pytest.mark.parametrize("name", ["chgnet", "sevennet"])
def test_potentials_push_a_strained_crystal_back(name):
    pytest.importorskip({"sevennet": "sevenn"}.get(name, name))
    calculator = load_potential(name)
    short, right = cu3au(0.95).to_atoms(), cu3au().to_atoms()
    short.calc, right.calc = calculator, calculator
    assert short.get_potential_energy() > right.get_potential_energy() + 0.1
    assert short.get_stress()[:3].max() < right.get_stress()[:3].min()
    assert np.abs(right.get_forces()).max() < 1e-3


def test_processes_change_no_verdict(tmp_path):
    found = []
    for workers in (1, 2):
        directory = tmp_path / str(workers)
        directory.mkdir()
        campaign = campaign_of([cu3au(1.05), metallic("fe"), cu3au(1.0)])
        relaxed = add_stability(
            campaign,
            known_crystals(),
            directory,
            directory / "e.jsonl",
            StabilityOptions("emt", reference_steps=20),
            num_workers=workers,
        )
        energies = [relaxed[place].energy for place in sorted(relaxed)]
        found.append((energies, (directory / "e.jsonl").read_text()))
    np.testing.assert_allclose(found[0][0], found[1][0], atol=1e-9)
    assert found[0][1] == found[1][1]
