import pytest

from crystalvae.screening.hull import Hull
from crystalvae.screening.phases import Phase, draw, known_system, phase_diagrams
from crystalvae.screening.report import html_report
from crystalvae.screening.stability import StabilityOptions, add_stability
from tests.screening.test_stability import campaign_of, cu3au, known_crystals, metallic

LI, OX, FE = 3, 8, 26


def names(system, indices):
    return {system.known[i].formula for i in indices}


def test_lines_of_two_elements_join_neighbors_on_the_hull():
    hull = Hull(
        [{LI: 1}, {OX: 2}, {LI: 2, OX: 1}, {LI: 2, OX: 2}, {LI: 1, OX: 2}],
        [0.0, 0.0, -1.0, -0.9, -0.3],
    )
    system = known_system(hull, (LI, OX), [])
    joined = {frozenset(names(system, line)) for line in system.lines}
    assert joined == {
        frozenset({"Li", "Li2O"}),
        frozenset({"Li2O", "Li2O2"}),
        frozenset({"Li2O2", "O2"}),
    }
    above = {phase.formula: phase.above for phase in system.known}
    assert above.pop("LiO2") == pytest.approx(0.3)
    assert max(above.values()) < 1e-9


def test_lines_of_three_elements_make_triangles():
    compositions = [{LI: 1}, {OX: 2}, {FE: 1}, {LI: 1, OX: 2, FE: 1}, {OX: 3, FE: 2}]
    hull = Hull(compositions, [0.0, 0.0, 0.0, -1.0, 0.2])
    system = known_system(hull, (LI, OX, FE), [])
    corners = {corner for line in system.lines for corner in line}
    assert names(system, corners) == {"Li", "O2", "Fe", "LiFeO2"}
    assert len(system.lines) == 6  # three sides, and three to the one inside
    inside = [line for line in system.lines if "LiFeO2" in names(system, line)]
    assert len(inside) == 3


@pytest.mark.parametrize(
    ("elements", "shares"), [((LI, OX), (0.4, 0.6)), ((LI, OX, FE), (0.2, 0.5, 0.3))]
)
def test_figures_hold_every_phase(elements, shares):
    hull = Hull([{z: 1} for z in elements], [0.0] * len(elements))
    found = Phase("LiXO", shares, -0.5, -0.5)
    traces = draw(known_system(hull, elements, [found])).data
    named = {trace.name: trace for trace in traces if trace.name}
    assert len(named["known, on the hull"].text) == len(elements)
    (text,) = named["screened"].hovertext
    assert text == "LiXO: -0.500 eV/atom of formation, -500 meV/atom above the hull"


def test_a_report_shows_the_systems_that_were_relaxed(tmp_path):
    campaign = campaign_of([cu3au(1.05), metallic("fe"), cu3au(1.0)])
    relaxed = add_stability(
        campaign,
        known_crystals(),
        tmp_path,
        tmp_path / "e.jsonl",
        StabilityOptions("emt", threshold=1.0),
    )
    (figure,) = phase_diagrams(campaign, relaxed, campaign.hull)
    screened = next(trace for trace in figure.data if trace.name == "screened")
    assert list(screened.text) == ["Cu3Au", "Cu3Au"]
    assert list(screened.x) == pytest.approx([0.25, 0.25])
    values = [campaign.inspected[p].record.results["stable"].value for p in (0, 2)]
    known = {trace.name: trace for trace in figure.data}["known, on the hull"]
    line = dict(zip(known.x, known.y))
    height = 0.5 * line.get(0.5, 0.0)  # of the hull at a quarter
    above = [energy - height for energy in screened.y]
    assert sorted(above) == pytest.approx(sorted(values), abs=1e-3)
    assert "Phase diagrams" in html_report(campaign, "t", relaxed=relaxed)
    assert "Phase diagrams" not in html_report(campaign_of([cu3au()]), "t")
