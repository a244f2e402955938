import numpy as np
import pytest

from crystalvae.benchmark.generation import template
from crystalvae.crystal import AsymmetricUnit
from crystalvae.data.load import crystal_of
from crystalvae.data.packed import PackedDataset, write_packed
from crystalvae.data.prototypes import prototypes
from crystalvae.design.substitute import draw_exchanges, exchange_counts, substitute
from crystalvae.errors import DataError
from crystalvae.screening.charge import smact_valid
from tests.conftest import REFERENCE

NA, K, RB, AG, CL, BR, CS = 11, 19, 37, 47, 17, 35, 55


def binary(group, a, cation, anion, at):
    from pymatgen.core import Lattice, Structure

    return AsymmetricUnit.from_structure(
        Structure.from_spacegroup(
            group, Lattice.cubic(a), [cation, anion], [[0, 0, 0], at]
        )
    )


def rock_salt(cation, anion):
    return binary("Fm-3m", 5.6, cation, anion, [0.5, 0.5, 0.5])


@pytest.fixture(scope="module")
def ionic():
    """Some hundreds of idealised crystals of several structure types."""
    return [crystal_of(entry) for entry in prototypes(60)]


def test_only_crystals_of_one_structure_exchange_elements():
    caesium = binary("Pm-3m", 4.1, "Cs", "Cl", [0.5, 0.5, 0.5])
    counts = exchange_counts([rock_salt("Na", "Cl"), rock_salt("K", "Cl"), caesium])
    assert counts[NA, K] == 1
    assert counts.sum() == 2
    assert not counts[CS].any()


def test_counts_are_symmetric_and_count_each_crystal_once():
    counts = exchange_counts([rock_salt(x, "Cl") for x in ("Na", "K", "Rb", "Ag")])
    np.testing.assert_allclose(counts, counts.T)
    np.testing.assert_allclose(counts.sum(1)[[NA, K, RB, AG]], 1)
    assert not np.diag(counts).any()


def test_exchanges_do_not_depend_on_the_origin_of_the_cell():
    """B1 with anion and cation in each other's place is the same structure."""
    other = binary("Fm-3m", 5.6, "Cl", "K", [0.5, 0.5, 0.5])
    assert exchange_counts([rock_salt("Na", "Cl"), other])[NA, K] == 1


def test_exchanges_lead_to_unlisted_compositions_one_element_away(ionic):
    exchanges = draw_exchanges(ionic, 400, seed=1)
    listed = {tuple(sorted(c.composition.items())) for c in ionic}
    assert len(exchanges) > 100
    assert len(set(exchanges)) == len(exchanges)
    for exchange in exchanges:
        old = ionic[exchange.row].composition
        new = {exchange.new if z == exchange.old else z: n for z, n in old.items()}
        assert len(new) == len(old)
        assert tuple(sorted(new.items())) not in listed
        assert smact_valid(new) or not smact_valid(old)
    assert draw_exchanges(ionic, 400, seed=1) == exchanges
    assert draw_exchanges(ionic, 400, seed=2) != exchanges


def test_elements_go_as_often_as_they_come(ionic, monkeypatch):
    """Before anything is refused, so that elements keep their frequencies."""
    monkeypatch.setattr("crystalvae.design.substitute._allowed", lambda *_: True)
    counts = exchange_counts(ionic)
    flow = np.zeros_like(counts)
    for seed in range(400):
        for exchange in draw_exchanges(ionic, 5, counts=counts, seed=seed):
            flow[exchange.old, exchange.new] += 1
    expected = counts / counts.sum() * flow.sum()
    gone, come = flow.sum(1), flow.sum(0)
    usual = expected.sum(1)
    assert (abs(gone - usual) < 5 * np.sqrt(usual) + 1).all()
    assert (abs(come - usual) < 5 * np.sqrt(usual) + 1).all()
    assert not flow[counts == 0].any()


def test_relatives_keep_positions_and_take_the_size_of_their_ions():
    known = [rock_salt("Na", "Cl"), rock_salt("K", "Cl"), rock_salt("Na", "Br")]
    arrays, exchanges = substitute(known, 5, num_workers=1)
    assert [(e.row, e.old, e.new) for e in exchanges] in (
        [(1, CL, BR), (2, NA, K)],
        [(2, NA, K), (1, CL, BR)],
    )
    assert set(arrays["number"]) == {225}
    grown = np.exp(arrays["lattice_coords"][:, 0])
    assert (grown > 5.7).all()
    assert sorted(arrays["comp_element"].tolist()) == [K, K, BR, BR]


def test_relatives_have_templates_of_known_crystals(ionic, tmp_path):
    arrays, exchanges = substitute(ionic, 60, seed=3, num_workers=1)
    write_packed(tmp_path / "new", arrays, [str(e) for e in exchanges], {})
    relatives = PackedDataset(tmp_path / "new")
    assert len(relatives) == len(exchanges)
    for relative, exchange in zip(relatives, exchanges):
        assert template(relative) == template(ionic[exchange.row])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "no crystals"),
        (("Na",), "no two of the crystals"),
        (("Na", "K"), "every exchange gives"),
    ],
)
def test_crystals_without_relatives_are_refused(names, message):
    perovskite = AsymmetricUnit.from_structure(REFERENCE["perovskite"][0])
    known = [rock_salt(name, "Cl") for name in names] + [perovskite] * bool(names)
    with pytest.raises(DataError, match=message):
        substitute(known, 10**15, num_workers=1)


def test_processes_change_nothing(ionic, monkeypatch):
    monkeypatch.setattr("crystalvae.design.substitute.PAYS", 0)
    monkeypatch.setattr("crystalvae.design.substitute.CHUNK", 20)
    one, first = substitute(ionic, 100, num_workers=1)
    two, second = substitute(ionic, 100, num_workers=2)
    assert first == second
    assert all((one[name] == two[name]).all() for name in one)
