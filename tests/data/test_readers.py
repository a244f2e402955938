import csv
import gzip
import io
import json
import lzma
import os
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path

import ase.db
import ase.io
import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure
from pymatgen.io.ase import AseAtomsAdaptor
from pymatgen.io.vasp import Poscar

from crystalvae.cli import main
from crystalvae.data.jobs import structure_jobs
from crystalvae.data.load import open_known
from crystalvae.data.packed import material_id
from crystalvae.data.prepare import prepare
from crystalvae.data.readers import READERS, read_structures
from crystalvae.errors import DataError
from crystalvae.files import shown
from tests.conftest import REFERENCE

NAMES = ("nacl", "quartz", "monoclinic")
STRUCTURES = {name: REFERENCE[name][0] for name in NAMES}


def write_csv(path):
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["material_id", "cif", "energy", "note"])
        for name, structure in STRUCTURES.items():
            writer.writerow([name, structure.to(fmt="cif"), "1.5", "text"])


def write_folder(path):
    path.mkdir()
    for i, (name, structure) in enumerate(STRUCTURES.items()):
        if i:
            structure.to(filename=str(path / f"{name}.cif"), symprec=0.01)
        else:
            (path / f"POSCAR_{name}").write_text(Poscar(structure).get_str())


def write_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        for name, structure in STRUCTURES.items():
            archive.writestr(f"inside/{name}.cif", structure.to(fmt="cif"))


def write_tar(path):
    mode = {".gz": "w:gz", ".tgz": "w:gz", ".xz": "w:xz", ".bz2": "w:bz2"}
    with tarfile.open(path, mode.get(path.suffix, "w")) as archive:
        for name, structure in STRUCTURES.items():
            content = structure.to(fmt="cif").encode()
            member = tarfile.TarInfo(f"{name}.cif")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def atoms_of(name):
    atoms = AseAtomsAdaptor.get_atoms(STRUCTURES[name])
    atoms = type(atoms)(
        atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=1
    )
    atoms.info = {"material_id": name, "energy_hull": 0.25}
    return atoms


def write_extxyz(path):
    ase.io.write(path, [atoms_of(name) for name in NAMES], format="extxyz")


def write_database(path):
    with ase.db.connect(str(path)) as database:
        for name in NAMES:
            database.write(atoms_of(name), material_id=name, gap=0.5)


def write_json(path):
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt") as file:
        json.dump({name: s.as_dict() for name, s in STRUCTURES.items()}, file)


WRITERS = {
    "set.csv": write_csv,
    "set.csv.gz": write_csv,
    "folder": write_folder,
    "set.zip": write_zip,
    "set.tar": write_tar,
    "set.tar.gz": write_tar,
    "set.tgz": write_tar,
    "set.tar.xz": write_tar,
    "set.tar.bz2": write_tar,
    "set.extxyz": write_extxyz,
    "set.xyz": write_extxyz,
    "set.db": write_database,
    "set.json": write_json,
    "set.json.gz": write_json,
}
SINGLE = {".cif", ".vasp", ".poscar"}


def test_every_reader_is_tested():
    covered = {suffix for suffix in READERS if f"set{suffix}" in WRITERS}
    assert covered | SINGLE == set(READERS)


@pytest.mark.parametrize("name", WRITERS)
def test_round_trip(tmp_path, name):
    path = tmp_path / name
    WRITERS[name](path)
    entries = list(read_structures(path))
    assert [entry.error for entry in entries] == [None] * 3
    matcher = StructureMatcher()
    for wanted in STRUCTURES.values():
        assert any(matcher.fit(wanted, entry.structure) for entry in entries)


@pytest.mark.parametrize("suffix", sorted(SINGLE))
def test_single_files(tmp_path, suffix):
    path = tmp_path / f"one{suffix}"
    structure = STRUCTURES["quartz"]
    text = structure.to(fmt="cif") if suffix == ".cif" else Poscar(structure).get_str()
    path.write_text(text)
    (entry,) = read_structures(path)
    assert StructureMatcher().fit(structure, entry.structure)


def test_numbers_become_properties(tmp_path):
    write_csv(tmp_path / "a.csv")
    assert next(read_structures(tmp_path / "a.csv")).properties == {"energy": 1.5}
    write_extxyz(tmp_path / "a.extxyz")
    entry = next(read_structures(tmp_path / "a.extxyz"))
    assert entry.material_id == "nacl"
    assert entry.properties["energy_hull"] == 0.25


@pytest.mark.parametrize("name", sorted(n for n in WRITERS if n != "folder"))
def test_a_broken_file_is_named(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"\x1f\x8b this is nothing of the kind")
    error, entries = None, []
    try:
        entries = list(read_structures(path))
    except DataError as caught:
        error = str(caught)
    if error is not None:
        assert str(path) in error
        return
    assert entries
    assert all(e.error and str(path) in e.source for e in entries)


def good_cif():
    return STRUCTURES["nacl"].to(fmt="cif")


def torture(folder):
    """File name → part of the message that is expected."""
    text = good_cif()
    (folder / "truncated.cif").write_text(text[: len(text) // 3])
    (folder / "empty.cif").write_text("")
    (folder / "binary.cif").write_bytes(bytes(range(256)))
    (folder / "prose.cif").write_text("Dear editor, please find attached")
    alloy = Structure(Lattice.cubic(3), [{"Cu": 0.5, "Au": 0.5}], [[0, 0, 0]])
    alloy.to(filename=str(folder / "disordered.cif"))
    overlap = Structure(Lattice.cubic(4), ["Cu", "Cu"], [[0, 0, 0], [0.01, 0, 0]])
    overlap.to(filename=str(folder / "overlap.cif"))
    flat = Structure(Lattice.orthorhombic(0.2, 10, 10), ["Cu"], [[0, 0, 0]])
    flat.to(filename=str(folder / "flat.cif"))
    (folder / "unknown.cif").write_text(text.replace("Na", "Xx"))
    length = next(line for line in text.splitlines() if "_cell_length_a" in line)
    negative = length.replace(length.split()[1], "-" + length.split()[1])
    (folder / "negative.cif").write_text(text.replace(length, negative))
    (folder / "bare.cif").write_text(text[: text.index("loop_\n _atom_site")])
    (folder / "directory.cif").mkdir()
    return {
        "truncated": "no readable CIF",
        "empty": "empty",
        "binary": "not text",
        "prose": "no readable CIF",
        "disordered": "disordered",
        "overlap": "overlap",
        "flat": "degenerate",
        "unknown": "element",
        "negative": "not positive",
        "bare": "no atom sites",
        "directory": "directory",
    }


def test_bad_files_cost_only_themselves(tmp_path):
    expected = torture(tmp_path)
    (tmp_path / "good.cif").write_text(good_cif())
    (tmp_path / "latin.cif").write_bytes(b"# caf\xe9\n" + good_cif().encode())
    found = {entry.material_id: entry.error for entry in read_structures(tmp_path)}
    assert found.pop("good") is None
    assert found.pop("latin") is None
    assert set(found) == set(expected)
    for name, part in expected.items():
        assert part in found[name], (name, found[name])
        assert "\n" not in found[name]


def test_symmetric_cif_is_expanded_and_its_group_kept(tmp_path):
    path = tmp_path / "rutile.cif"
    REFERENCE["rutile"][0].to(filename=str(path), symprec=0.01)
    (entry,) = read_structures(path)
    assert len(entry.atomic_numbers) == 6
    assert entry.declared_group == 136


def test_empty_folder_and_unknown_type(tmp_path):
    with pytest.raises(DataError, match="holds no"):
        list(read_structures(tmp_path))
    (tmp_path / "table.xls").write_text("x")
    with pytest.raises(DataError, match=r"\.csv"):
        list(read_structures(tmp_path / "table.xls"))
    with pytest.raises(DataError, match="no file"):
        list(read_structures(tmp_path / "nothing.csv"))


def test_csv_without_cif_column(tmp_path):
    path = tmp_path / "bad.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="no column 'cif'"):
        list(read_structures(path))


def test_truncated_gzip(tmp_path):
    path = tmp_path / "set.csv.gz"
    write_csv(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="cannot be read"):
        list(read_structures(path))


@pytest.fixture
def postgres(tmp_path):
    """URL of a real PostgreSQL server, if its programs are installed."""
    pytest.importorskip("psycopg2")
    pytest.importorskip("ase_db_backends")
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not programs:
        pytest.skip("PostgreSQL is not installed")
    binaries = programs[-1].parent
    data, socket = tmp_path / "pg", Path("/tmp") / f"crystalvae-pg-{os.getpid()}"
    socket.mkdir(exist_ok=True)
    as_user = []
    if os.geteuid() == 0:
        subprocess.run(["chown", "postgres", tmp_path, socket], check=True)
        for parent in tmp_path.parents[:3]:
            parent.chmod(0o755)
        as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]

    def call(*command):
        subprocess.run(
            [*as_user, *map(str, command)], check=True, capture_output=True, timeout=120
        )

    call(binaries / "initdb", "-D", data, "-U", "tester", "--auth=trust")
    options = f"-c listen_addresses='' -k {socket} -c fsync=off"
    call(
        binaries / "pg_ctl",
        "-D",
        data,
        "-w",
        "-o",
        options,
        "-l",
        tmp_path / "log",
        "start",
    )
    try:
        call(binaries / "createdb", "-h", socket, "-U", "tester", "crystals")
        yield f"postgresql://tester@/crystals?host={socket}"
    finally:
        call(binaries / "pg_ctl", "-D", data, "-m", "immediate", "stop")
        shutil.rmtree(socket, ignore_errors=True)


def test_postgresql(postgres):
    write_database(postgres)
    entries = list(read_structures(postgres))
    assert sorted(e.material_id for e in entries) == sorted(NAMES)
    assert entries[0].properties["gap"] == 0.5
    by_name = {e.material_id: e.structure for e in entries}
    for name in NAMES:
        assert StructureMatcher().fit(by_name[name], STRUCTURES[name])


CENTRED = """data_x
_cell_length_a 6
_cell_length_b 7
_cell_length_c 8
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M '{name}'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
Na1 Na 0 0 0
Cl1 Cl 0.3 0.2 0.1
"""


@pytest.mark.parametrize(
    ("name", "count"), [("P 1", 2), ("C 1", 4), ("I 1", 4), ("F 1", 8)]
)
def test_centring_multiplies_atoms_in_p1_too(tmp_path, name, count):
    path = tmp_path / "a.cif"
    path.write_text(CENTRED.format(name=name))
    (entry,) = read_structures(path)
    assert len(entry.atomic_numbers) == count


@pytest.mark.parametrize("line", CENTRED.splitlines()[1:7])
@pytest.mark.parametrize("change", ["missing", "unknown"])
def test_a_cell_that_is_not_given_is_not_made_up(tmp_path, line, change):
    tag = line.split()[0]
    new = "" if change == "missing" else f"{tag} ?"
    (tmp_path / "a.cif").write_text(CENTRED.format(name="P 1").replace(line, new))
    (entry,) = read_structures(tmp_path / "a.cif")
    assert tag in entry.error


def test_an_unknown_group_needs_operations_or_a_number(tmp_path):
    path = tmp_path / "a.cif"
    path.write_text(CENTRED.format(name="P 42/m m n"))
    (entry,) = read_structures(path)
    assert "P 42/m m n" in entry.error
    operations = "loop_\n_symmetry_equiv_pos_as_xyz\n'x,y,z'\n'-x,-y,-z'\n"
    path.write_text(CENTRED.format(name="P 42/m m n") + operations)
    (entry,) = read_structures(path)
    assert entry.error is None
    assert len(entry.atomic_numbers) == 3
    path.write_text(CENTRED.format(name="foo") + "_space_group_IT_number 2\n")
    (entry,) = read_structures(path)
    assert len(entry.atomic_numbers) == 3
    path.write_text(CENTRED.format(name="?"))
    (entry,) = read_structures(path)
    assert len(entry.atomic_numbers) == 2


@pytest.mark.parametrize(("letter", "count"), [("Z", 32), ("S", 16)])
@pytest.mark.parametrize("symbol", ["F d -3 m ", "Fd-3m"])
def test_symbols_of_the_icsd_are_understood(tmp_path, symbol, letter, count):
    text = CENTRED.format(name=f"{symbol}{letter}")
    for axis in "abc":
        text = text.replace(f"_cell_length_{axis} {'678'['abc'.index(axis)]}", "")
    cell = "".join(f"_cell_length_{axis} 8\n" for axis in "abc")
    text = text.replace("data_x", f"data_x\n{cell}").replace(
        "0.3 0.2 0.1", "0.5 0.5 0.5"
    )
    (tmp_path / "a.cif").write_text(text)
    (entry,) = read_structures(tmp_path / "a.cif")
    assert entry.error is None
    assert entry.declared_group == 227
    # 0, 0, 0 is 16c in origin choice 2 and 8a in choice 1; 1/2, 1/2, 1/2 is 16d and 8b
    assert len(entry.atomic_numbers) == count


def test_whole_numbers_of_extxyz_are_numbers(tmp_path):
    frames = [atoms_of("nacl") for _ in range(3)]
    for frame, gap in zip(frames, (0, 1.5, -2)):
        frame.info |= {"gap": gap, "metal": gap == 0, "source": 1.5}
    ase.io.write(tmp_path / "a.extxyz", frames, format="extxyz")
    entries = list(read_structures(tmp_path / "a.extxyz"))
    assert [entry.properties["gap"] for entry in entries] == [0, 1.5, -2]
    assert all(entry.error is None for entry in entries)


def test_energies_of_extxyz_are_properties(tmp_path):
    path = tmp_path / "a.extxyz"
    ase.io.write(path, [atoms_of("nacl")], format="extxyz")
    text = path.read_text().replace("energy_hull=0.25", "energy=-7.5 energy_hull=0.25")
    path.write_text(text)
    (entry,) = read_structures(path)
    assert entry.properties == {"energy": -7.5, "energy_hull": 0.25}


def test_a_number_as_an_id_is_an_id(tmp_path):
    record = {"material_id": 7, "structure": STRUCTURES["nacl"].as_dict()}
    (tmp_path / "a.json").write_text(json.dumps([record]))
    (entry,) = read_structures(tmp_path / "a.json")
    assert (entry.material_id, entry.error) == ("7", None)


def test_a_csv_from_a_spreadsheet_keeps_its_ids(tmp_path):
    write_csv(tmp_path / "a.csv")
    text = (tmp_path / "a.csv").read_text()
    (tmp_path / "b.csv").write_text(text, encoding="utf-8-sig")
    ids = [entry.material_id for entry in read_structures(tmp_path / "b.csv")]
    assert ids == list(NAMES)


def test_deuterium_is_hydrogen_in_every_format(tmp_path):
    structure = Structure(Lattice.cubic(4), ["Li", "H"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    text = structure.to(fmt="cif").replace("  H  H1", "  D  D1")
    (tmp_path / "a.cif").write_text(text)
    (tmp_path / "b.vasp").write_text(Poscar(structure).get_str().replace("H", "D"))
    for name in ("a.cif", "b.vasp"):
        (entry,) = read_structures(tmp_path / name)
        assert sorted(entry.atomic_numbers) == [1, 3]


def test_a_cif_with_two_structures_is_refused(tmp_path):
    texts = [REFERENCE[name][0].to(fmt="cif") for name in ("rutile", "nacl")]
    path = tmp_path / "two.cif"
    path.write_text("\n".join(texts))
    (entry,) = read_structures(path)
    assert "2 structures" in entry.error
    path.write_text("data_global\n_audit_creation_method x\n" + texts[0])
    (entry,) = read_structures(path)
    assert entry.error is None
    assert len(entry.atomic_numbers) == 6


def test_half_written_files_are_no_structures(tmp_path):
    (tmp_path / "one.cif").write_text(good_cif())
    (tmp_path / "partial-two.cif").write_text(good_cif()[:200])
    assert [e.material_id for e in read_structures(tmp_path)] == ["one"]


def test_names_that_are_not_utf8_can_be_written(tmp_path):
    name = os.fsdecode(b"caf\xe9.cif")
    (tmp_path / name).write_text(STRUCTURES["nacl"].to(fmt="cif"))
    (entry,) = read_structures(tmp_path)
    assert entry.error is None
    assert entry.material_id.encode() == b"caf\\udce9"
    report = prepare(tmp_path, tmp_path.parent / "out", num_workers=1)
    assert report.converted == 1


def test_damaged_members_and_odd_contents_are_said(tmp_path):
    text = "".join(structure.to(fmt="cif") for structure in STRUCTURES.values())
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bad.cif", text)
        archive.writestr("good.cif", STRUCTURES["nacl"].to(fmt="cif"))
    broken = bytearray((tmp_path / "a.zip").read_bytes())
    broken[60:90] = b"\xff" * 30
    (tmp_path / "a.zip").write_bytes(broken)
    bad, good = read_structures(tmp_path / "a.zip")
    assert "unpacked" in bad.error
    assert good.error is None
    for name, content in (
        ("a.csv.gz", gzip.compress(b"material_id,cif\n" + text.encode())),
        ("a.tar.xz", lzma.compress(text.encode() * 20)),
    ):
        half = len(content) // 2
        damaged = content[:half] + b"\xff" * 40 + content[half + 40 :]
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(DataError, match=name):
            list(read_structures(tmp_path / name))
    (tmp_path / "five.json").write_text("5")
    with pytest.raises(DataError, match="no structures"):
        list(read_structures(tmp_path / "five.json"))


@pytest.mark.parametrize(("occupancy", "usable"), [(1.0, True), (0.5, False)])
def test_an_occupancy_that_is_a_number_is_no_crash(tmp_path, occupancy, usable):
    atoms = AseAtomsAdaptor.get_atoms(STRUCTURES["nacl"])
    atoms.info["occupancy"] = occupancy
    ase.io.write(tmp_path / "a.extxyz", [atoms, atoms])
    entries = list(read_structures(tmp_path / "a.extxyz"))
    assert [entry.error is None for entry in entries] == [usable, usable]


def test_a_file_named_like_a_database_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    structures = {name: s.as_dict() for name, s in STRUCTURES.items()}
    Path("postgres_dump.json").write_text(json.dumps(structures))
    assert len(list(structure_jobs("postgres_dump.json"))) == len(NAMES)


def test_passwords_are_not_shown():
    url = "postgresql://me:secret@host:5432/crystals?password=secret"
    assert shown(url) == "postgresql://host:5432/crystals"
    assert shown("folder/a@b.cif") == "folder/a@b.cif"
    for password in ("pa/ss", "pa#ss", "pa?ss", "[pass", "pa@ss"):
        text = shown(f"postgresql://me:{password}@host/db?password={password}")
        assert text == "postgresql://host/db", password
    with pytest.raises(DataError) as raised:
        list(read_structures("postgresql://me:secret@nowhere.invalid/crystals"))
    assert "secret" not in str(raised.value)


def test_a_prepared_set_can_be_read(tmp_path):
    write_folder(tmp_path / "in")
    prepare(tmp_path / "in", tmp_path / "set", num_workers=1)
    entries = {e.material_id: e for e in read_structures(tmp_path / "set")}
    assert len(entries) == len(NAMES)
    for entry in entries.values():
        name = entry.material_id.removeprefix("POSCAR_")
        assert StructureMatcher().fit(entry.structure, STRUCTURES[name])
    assert main(["validate", str(tmp_path / "set"), "-o", str(tmp_path / "out")]) == 0
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["structures"] == len(NAMES)


def test_unprepared_known_crystals_keep_their_names(tmp_path):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a-broken.cif").write_text("nonsense")
        (tmp_path / name / f"{name}.cif").write_text(STRUCTURES["nacl"].to(fmt="cif"))
    known = open_known([str(tmp_path / "one"), str(tmp_path / "other")])
    assert [material_id(known, row) for row in range(2)] == ["one", "other"]


def test_files_that_folders_are_not_searched_for_are_named(tmp_path, caplog):
    write_folder(tmp_path / "in")
    assert len(list(read_structures(tmp_path / "in"))) == len(NAMES)
    (tmp_path / "in/summary.json").write_text("{}")
    assert len(list(structure_jobs(tmp_path / "in"))) == len(NAMES)
    assert not caplog.text
    (tmp_path / "in/more.json").write_text("[]")
    assert len(list(read_structures(tmp_path / "in"))) == len(NAMES)
    assert "not 1 others (more.json)" in caplog.text
