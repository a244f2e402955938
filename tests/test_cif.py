import gemmi
import numpy as np
import pytest
import torch
from ase.io import read
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Structure
from pymatgen.io.ase import AseAtomsAdaptor

from crystalvae.crystal import AsymmetricUnit
from crystalvae.geometry.lattice import complete_coords, coords_to_lattice
from crystalvae.symmetry.spglib_wrapper import space_group_number
from crystalvae.symmetry.tables import symmetry_tables


@pytest.fixture(params=[True, False], ids=["symmetrised", "P1"])
def symmetrized(request):
    return request.param


def test_readers_of_others_find_the_same_crystal(reference, symmetrized, tmp_path):
    crystal = AsymmetricUnit.from_structure(reference[0])
    path = tmp_path / "crystal.cif"
    path.write_text(crystal.to_cif(symmetrized=symmetrized))
    expected = crystal.to_structure(primitive=False)
    matcher = StructureMatcher(primitive_cell=False)

    by_pymatgen = Structure.from_file(path)
    assert matcher.fit(by_pymatgen, expected)
    by_ase = read(path)
    assert len(by_ase) == crystal.num_atoms
    assert matcher.fit(AseAtomsAdaptor.get_structure(by_ase), expected)
    small = gemmi.read_small_structure(str(path))
    assert len(small.get_all_unit_cell_sites()) == crystal.num_atoms
    if symmetrized:
        assert small.spacegroup.number == crystal.number
        assert len(small.sites) == len(crystal.wyckoffs)
    found = space_group_number(
        by_pymatgen.lattice.matrix,
        by_pymatgen.frac_coords,
        by_pymatgen.atomic_numbers,
        1e-3,
    )
    assert found == reference[1]


@pytest.mark.parametrize("number", range(1, 231, 3))
def test_strict_reader_accepts_the_setting_of_every_group(number):
    tables = symmetry_tables()
    general = int((tables.multiplicity[number] > 0).sum()) - 1
    lengths = torch.tensor([31.0, 37.0, 43.0]).log()
    coords = torch.cat([lengths, torch.zeros(3)]).double()
    system = torch.tensor(int(tables.system[number]))
    lattice = coords_to_lattice(complete_coords(coords, system)).numpy()
    site = np.array([[0.113, 0.317, 0.391]])
    crystal = AsymmetricUnit(number, lattice, np.array([general]), np.array([14]), site)
    block = gemmi.cif.read_string(crystal.to_cif()).sole_block()
    small = gemmi.make_small_structure_from_block(block)
    operations = {op.triplet() for op in small.spacegroup.operations()}
    written = {
        gemmi.Op(gemmi.cif.as_string(value)).wrap().triplet()
        for value in block.find_values("_space_group_symop_operation_xyz")
    }
    assert {gemmi.Op(t).wrap().triplet() for t in operations} == written
    assert len(small.get_all_unit_cell_sites()) == crystal.num_atoms
