import numpy as np
import pytest
from ase.build import bulk

from crystalvae.crystal import AsymmetricUnit
from crystalvae.errors import ConfigError
from crystalvae.screening.hull import Hull, reference_hull
from crystalvae.screening.potentials import load_potential
from crystalvae.screening.relax import relax


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


def test_relaxed_crystals_keep_their_group():
    from crystalvae.symmetry.spglib_wrapper import space_group_number

    atoms = bulk("Cu", cubic=True)
    atoms.symbols[0] = "Au"
    end = relax(atoms, load_potential("emt")).atoms
    assert space_group_number(end.cell.array, end.get_scaled_positions(), end.numbers)
    assert (
        space_group_number(end.cell.array, end.get_scaled_positions(), end.numbers)
        == 221
    )


def test_energies_are_computed_once(tmp_path):
    known = [AsymmetricUnit.from_atoms(bulk(s)) for s in ("Cu", "Au", "Al")]
    calculator, file = load_potential("emt"), tmp_path / "energies.jsonl"
    hull = reference_hull(known, [{29: 3, 79: 1}], calculator, file)
    assert len(hull.entries) == 2
    assert len(file.read_text().splitlines()) == 2
    again = reference_hull(known, [{29: 3, 79: 1}], None, file)
    np.testing.assert_allclose(
        [e for _, e in again.entries], [e for _, e in hull.entries]
    )


def test_unknown_potentials_are_named():
    with pytest.raises(ConfigError, match="chgnet"):
        load_potential("chgnett")
