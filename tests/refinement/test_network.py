import numpy as np
import pytest
import torch

from crystalvae.crystal import AsymmetricUnit
from crystalvae.geometry.lattice import FREE_COORDS, metric_tensor
from crystalvae.geometry.torus import torus_difference
from crystalvae.model import CrystalVAE
from crystalvae.pretrained import shipped_models
from crystalvae.refinement import network
from crystalvae.refinement.network import group_projectors, strain_between
from crystalvae.refinement.noise import disturb, within_positions
from crystalvae.refinement.score import refiner_inputs, residuals
from crystalvae.symmetry.spglib_wrapper import space_group_number
from crystalvae.symmetry.tables import symmetry_tables
from tests.conftest import REFERENCE
from tests.refinement.conftest import as_crystals, without_symmetry


def test_projectors_are_projectors_and_keep_what_the_group_allows():
    metric, shift = group_projectors()
    torch.testing.assert_close(metric @ metric, metric, atol=1e-5, rtol=0)
    torch.testing.assert_close(shift @ shift, shift, atol=1e-5, rtol=0)
    polar = torch.as_tensor(symmetry_tables().polar).sum(1)
    rank = torch.linalg.matrix_rank(shift)
    assert (rank[1:] == polar[1:]).all()
    free = torch.tensor(FREE_COORDS).sum(1)[torch.as_tensor(symmetry_tables().system)]
    assert (torch.linalg.matrix_rank(metric)[1:] == free[1:]).all()


def test_the_shipped_refiner_takes_crystals_back_to_where_they_were():
    refiner = CrystalVAE.from_pretrained("mp_20", "cpu").refiner
    names = ("rutile", "wurtzite", "calcite", "monoclinic", "nacl", "fe")
    known = [AsymmetricUnit.from_structure(REFERENCE[name][0]) for name in names] * 4
    sites, lattice, coords = refiner_inputs(known)
    level = torch.full((len(known),), 0.1), torch.full((len(known),), 0.02)
    generator = torch.Generator().manual_seed(0)
    noisy = disturb(refiner, sites, lattice, coords, *level, generator)
    share = sites.share(refiner.tables)

    def error(found):
        gap = refiner.centre(sites, share, torus_difference(found[1], coords))
        gap = torch.einsum("ni,nij->nj", gap, lattice[sites.owner])
        return (share * gap.square().sum(1)).sum()

    refined = refiner.refine(sites, *noisy, passes=5, noise=0.2)
    assert error(refined) < 0.3 * error(noisy)
    strain = [
        strain_between(lattice, found[0]).square().sum() for found in (noisy, refined)
    ]
    assert strain[1] < strain[0]


def test_forces_of_a_symmetric_crystal_are_symmetric(crystals, refiner):
    """The orbit graph gives what the graph of all atoms gives."""
    level = torch.full((1,), 0.1), torch.full((1,), 0.01)
    for crystal in crystals:
        sites, lattice, coords = refiner_inputs([crystal])
        moved, strain = refiner(refiner.graph(sites, lattice, coords), *level)
        strain = refiner.project_strain(sites.number, lattice, strain)
        plain, cell, site = without_symmetry(crystal)
        all_sites, all_lattice, all_coords = refiner_inputs([plain])
        graph = refiner.graph(all_sites, all_lattice, all_coords)
        all_moved, all_strain = refiner(graph, *level)
        # the P1 cell has a frame of its own: cell = factor @ rotation
        rotation = np.linalg.inv(plain.lattice) @ cell
        rotation = torch.as_tensor(rotation).float()
        scale = float(all_moved.abs().max()) + 1e-3
        torch.testing.assert_close(
            (all_moved @ rotation).norm(dim=1),
            moved.norm(dim=1)[torch.as_tensor(site)],
            atol=2e-3 * scale,
            rtol=0,
        )
        torch.testing.assert_close(
            rotation.T @ all_strain[0] @ rotation, strain[0], atol=2e-4, rtol=1e-2
        )


def test_a_move_keeps_group_positions_and_cell(crystals, refiner):
    sites, lattice, coords = refiner_inputs(crystals)
    generator = torch.Generator().manual_seed(3)
    moved = 0.1 * torch.randn(coords.shape, generator=generator)
    noise = torch.randn(lattice.shape, generator=generator)
    strain = 0.01 * (noise + noise.mT)
    new_lattice, new_coords = refiner.move(sites, lattice, coords, moved, strain)
    assert (new_lattice - lattice).abs().amax((1, 2)).min() > 1e-4
    for crystal in as_crystals(sites, new_lattice, new_coords):
        structure = crystal.to_structure()
        found = space_group_number(
            structure.lattice.matrix,
            structure.frac_coords,
            np.array(structure.atomic_numbers),
            1e-3,
        )
        assert found == crystal.number


def test_an_atom_without_freedom_stays(crystals, refiner):
    sites, lattice, coords = refiner_inputs(crystals)
    moved = torch.ones_like(coords)
    _, placed = refiner.move(sites, lattice, coords, moved, torch.zeros_like(lattice))
    dof = refiner.tables.dof[sites.number[sites.owner], sites.wyckoff]
    gap = placed - coords
    gap = (gap - gap.round()).abs().amax(1)
    assert (gap[dof == 0] < 1e-6).all()
    assert (gap[dof == 3] > 1e-3).all()


def test_the_strain_between_two_cells_leads_from_one_to_the_other(crystals, refiner):
    sites, lattice, coords = refiner_inputs(crystals)
    zero = torch.zeros_like(coords)
    noise = torch.randn(lattice.shape)
    other, _ = refiner.move(sites, lattice, coords, zero, 0.02 * (noise + noise.mT))
    strain = strain_between(lattice, other)
    reached, _ = refiner.move(sites, lattice, coords, zero, strain)
    torch.testing.assert_close(
        metric_tensor(reached), metric_tensor(other), atol=1e-3, rtol=1e-4
    )


def test_the_largest_strains_leave_cells_of_their_group(crystals, refiner):
    sites, lattice, coords = refiner_inputs(crystals)
    noise = torch.randn(lattice.shape, generator=torch.Generator().manual_seed(4))
    strain = refiner.project_strain(sites.number, lattice, 0.2 * (noise + noise.mT))
    assert strain.flatten(1).norm(dim=1).max() > 0.6
    zero = torch.zeros_like(coords)
    other, _ = refiner.move(sites, lattice, coords, zero, strain, limited=False)
    torch.testing.assert_close(
        strain_between(lattice, other), strain, atol=1e-3, rtol=1e-3
    )


def test_noise_within_positions_is_as_large_in_every_direction(crystals, refiner):
    sites, lattice, coords = refiner_inputs(crystals * 200)
    wild = torch.randn(coords.shape, generator=torch.Generator().manual_seed(5))
    shift = within_positions(refiner.tables, sites, lattice, wild)
    again = within_positions(refiner.tables, sites, lattice, shift)
    torch.testing.assert_close(again, shift, atol=1e-4, rtol=0)
    assert ((wild - shift) * shift).sum(1).abs().max() < 1e-3
    dof = refiner.tables.dof[sites.number[sites.owner], sites.wyckoff]
    for freedom in (1, 2, 3):
        variance = shift[dof == freedom].square().sum(1).mean() / freedom
        assert abs(float(variance) - 1) < 0.15
    small = 0.01 * shift
    nothing = torch.zeros_like(lattice)
    _, placed = refiner.move(sites, lattice, coords, small, nothing)
    moved = torch.einsum(
        "ni,nij->nj", torus_difference(placed, coords), lattice[sites.owner]
    )
    torch.testing.assert_close(moved, small, atol=1e-4, rtol=0)


def test_no_pass_goes_further_than_it_may(crystals, refiner):
    sites, lattice, coords = refiner_inputs(crystals)
    moved = torch.full_like(coords, 50.0)
    strain = torch.full_like(lattice, -7.0)
    new_lattice, _ = refiner.move(sites, lattice, coords, moved, strain)
    assert torch.isfinite(new_lattice).all()
    assert (torch.linalg.det(new_lattice) > 0).all()
    size = strain_between(lattice, new_lattice).flatten(1).norm(dim=1)
    assert (size <= refiner.config.max_strain * 1.01).all()


@pytest.mark.parametrize("passes", [1, 5])
def test_refining_twice_the_same_gives_the_same(crystals, refiner, passes):
    sites, lattice, coords = refiner_inputs(crystals)
    one, other = (
        refiner.refine(sites, lattice, coords, passes=passes) for _ in range(2)
    )
    for a, b in zip(one, other):
        torch.testing.assert_close(a, b, atol=0, rtol=0)


def test_crystals_do_not_see_each_other(crystals, refiner):
    together = as_crystals(*_refined(crystals, refiner))
    for crystal, found in zip(crystals, together):
        (alone,) = as_crystals(*_refined([crystal], refiner))
        np.testing.assert_allclose(alone.lattice, found.lattice, atol=1e-3)
        gap = alone.frac_coords - found.frac_coords
        np.testing.assert_allclose(gap - np.round(gap), 0, atol=1e-3)


@pytest.mark.parametrize("levels", [1, 3])
def test_a_residual_is_the_same_in_every_description(crystals, refiner, levels):
    for crystal in crystals:
        plain, _, _ = without_symmetry(crystal)
        found = residuals(refiner, [crystal, plain], levels)
        assert found[0] > 0
        assert found[1] == pytest.approx(found[0], rel=2e-2, abs=1e-3)


def test_several_levels_give_the_geometric_mean(crystals, refiner, monkeypatch):
    noises = network.residual_noises(3)
    assert noises == pytest.approx([0.03, (0.03 * 0.4) ** 0.5, 0.4])
    each = []
    for noise in noises:
        monkeypatch.setattr(network, "RESIDUAL_NOISE", noise)
        each.append(residuals(refiner, crystals, 1))
    expected = np.exp(np.log(each).mean(0))
    np.testing.assert_allclose(residuals(refiner, crystals, 3), expected, rtol=1e-4)


def test_distorted_crystals_have_larger_residuals():
    if "mp_20" not in shipped_models():
        pytest.skip("no shipped weights")
    refiner = CrystalVAE.from_pretrained("mp_20", device="cpu").refiner
    for name in ("rutile", "wurtzite", "perovskite", "nacl", "monoclinic"):
        structure = REFERENCE[name][0]
        strained = structure.copy()
        strained.apply_strain(0.08)
        crystals = [AsymmetricUnit.from_structure(s) for s in (structure, strained)]
        real, distorted = residuals(refiner, crystals)
        assert distorted > 1.5 * real


def _refined(crystals, refiner):
    sites, lattice, coords = refiner_inputs(crystals)
    return sites, *refiner.refine(sites, lattice, coords, passes=3, noise=0.05)
