import dataclasses
import json
import re
import shutil
import subprocess
from collections import Counter
from html.parser import HTMLParser

import numpy as np
import pytest

from crystalvae.crystal import AsymmetricUnit
from crystalvae.data.prototypes import prototype_crystals
from crystalvae.screening.base import CheckResult, element_table
from crystalvae.screening.campaign import Campaign
from crystalvae.screening.charts import _place, histogram, small_charts, wide_charts
from crystalvae.screening.checks import Record
from crystalvae.screening.engine import Inspected
from crystalvae.screening.gallery import scene
from crystalvae.screening.relax import Relaxation
from crystalvae.screening.report import GALLERY, html_report
from crystalvae.screening.tables import pretty_formula, pretty_group
from tests.conftest import REFERENCE

NASTY = "<img src=x onerror=alert(1)>"
COUNT_DRAWN = """<script>
let errors = [];
window.addEventListener("error", e => errors.push(e.message));
window.addEventListener("load", () => {
  const drawn = [...document.querySelectorAll("canvas[data-scene]")].filter(canvas => {
    const pen = canvas.getContext("2d");
    const data = pen.getImageData(0, 0, canvas.width, canvas.height).data;
    return new Set(data).size > 20;
  }).length;
  const heads = document.querySelectorAll("#ranking th");
  heads[2].click();
  const sorted = [...document.querySelectorAll("#ranking tbody tr")].map(
    row => row.cells[2].dataset.value);
  document.title = JSON.stringify({errors, drawn, sorted});
});
</script>"""


@pytest.fixture(scope="module")
def campaign():
    crystals = [crystal for _, crystal in list(prototype_crystals())[::60]][:14]
    inspected = []
    for i, crystal in enumerate(crystals):
        results = {
            "volume": CheckResult("volume", True, 10.0),
            "charge": CheckResult("charge", None, None, "an alloy"),
            "novel": CheckResult("novel", True),
            "stable": CheckResult("stable", True, 0.01 * i),
        }
        record = Record(NASTY if i == 3 else f"file-{i}", crystal.formula, results)
        inspected.append(Inspected(record, f"file-{i}.cif", crystal))
    fell = Record("fell", "Na", {"volume": CheckResult("volume", False, 1.0, "small")})
    inspected.append(Inspected(fell, "fell.cif"))
    inspected.append(Inspected(Record("bad", "", error=NASTY), "bad.cif"))
    nearest = {i: (0.1 * i, NASTY) for i in range(len(crystals))}
    return Campaign(inspected, list(range(len(crystals))), nearest, NASTY)


@pytest.fixture(scope="module")
def page(campaign):
    known = [crystal for _, crystal in list(prototype_crystals())[::30]]
    relaxed = {0: Relaxation(-3.0, -2.9, True, 10, 0.05, 0.01)}
    files = [f"{i}.cif" for i in range(len(campaign.survivors))]
    return html_report(campaign, NASTY, known, relaxed=relaxed, files=files)


class Sources(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.loaded, self.links = Counter(), [], []

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        for name, value in attrs:
            if tag == "a" and name == "href":
                self.links.append(value)
            elif name in ("src", "href", "srcset", "data", "action", "poster"):
                self.loaded.append((tag, value))


def test_page_loads_nothing(page):
    found = Sources()
    found.feed(page)
    assert not found.loaded
    assert not found.tags["img"] + found.tags["link"] + found.tags["iframe"]
    assert found.links
    assert all(re.fullmatch(r"\d+\.cif", link) for link in found.links)
    style = page.split("<style>")[1].split("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style
    ours = page.split("</script>", 1)[1]
    assert "http" not in re.sub(r'"[^"]*plotlyServerURL[^}]*', "", ours)


def test_everything_that_was_found_is_on_the_page(campaign, page):
    for place in campaign.survivors:
        assert pretty_formula(campaign.inspected[place].crystal.formula) in page
    assert page.count("<canvas data-scene") == GALLERY
    assert NASTY not in page.split("</script>", 1)[1]
    assert "−1" in page
    assert "meV/atom above the hull" in page


def test_page_is_drawn_without_errors(page, tmp_path):
    names = ("chromium", "chromium-browser", "google-chrome")
    browser = next((p for p in map(shutil.which, names) if p), None)
    if browser is None:
        pytest.skip("no chromium on PATH")
    file = tmp_path / "report.html"
    file.write_text(page.replace("<script>", COUNT_DRAWN + "<script>", 1))
    done = subprocess.run(
        [
            browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--virtual-time-budget=5000",
            "--dump-dom",
            file.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert "Uncaught" not in done.stderr
    title = re.search(r"<title>(\{.*?\})</title>", done.stdout)
    assert title, done.stderr[-2000:]
    told = json.loads(title[1].replace("&amp;", "&").replace("&lt;", "<"))
    assert told["errors"] == []
    assert told["drawn"] == GALLERY
    assert told["sorted"] == sorted(told["sorted"], key=str.casefold)
    charts = done.stdout.count('class="plotly-graph-div')
    assert charts >= 9
    # each figure has two to three layers
    assert done.stdout.count('class="main-svg"') >= 2 * charts


def test_nothing_survives_and_nothing_is_known(campaign):
    empty = Campaign(campaign.inspected[-2:], [], {}, None)
    page = html_report(empty, "empty")
    assert "Nothing survived" in page
    assert "no reference set was given" in page


def test_scene_of_rock_salt():
    structure, _ = REFERENCE["nacl"]
    drawn = scene(AsymmetricUnit.from_structure(structure))
    symbols = [drawn["elements"][kind]["symbol"] for kind in drawn["kinds"]]
    assert sorted(Counter(symbols).values()) == [13, 14]
    points = np.array(drawn["points"])
    assert len(drawn["bonds"]) == 54
    for i, j in drawn["bonds"]:
        assert symbols[i] != symbols[j]
        assert np.linalg.norm(points[i] - points[j]) == pytest.approx(2.82, abs=1e-2)


@pytest.mark.parametrize("name", sorted(REFERENCE))
def test_scenes_repeat_whole_lattice_vectors_only(name):
    crystal = AsymmetricUnit.from_structure(REFERENCE[name][0])
    drawn = scene(crystal)
    inverse = np.linalg.inv(np.array(drawn["cell"]))
    coords = np.array(drawn["points"]) @ inverse + 0.5
    _, own, species, _ = crystal.expand()
    for x, kind in zip(coords, drawn["kinds"]):
        shift = x - own
        away = np.abs((shift - np.round(shift)) @ crystal.lattice).max(1)
        symbol = element_table()[int(species[away.argmin()])]["symbol"]
        assert away.min() < 0.01
        assert symbol == drawn["elements"][kind]["symbol"]
    assert len(coords) >= len(own)


def test_periodic_table_has_its_columns():
    places = {z: _place(z) for z in range(1, 119)}
    assert len(set(places.values())) == 118
    for column, group in {
        0: (1, 3, 11, 19, 37, 55, 87),
        2: (21, 39),
        3: (22, 40, 72, 104),
        16: (9, 17, 35, 53, 85),
        17: (2, 10, 18, 36, 54, 86, 118),
    }.items():
        assert {places[z][1] for z in group} == {column}


def test_shares_are_shares(crystals):
    figures = wide_charts(crystals, crystals) + small_charts(crystals, [])
    for figure in figures:
        for trace in figure.data:
            assert all(0 <= y <= 1 for y in trace.y)
    bins = histogram("x", [1.0, 2.0, 2.5, 90.0], [3.0])
    assert all(sum(trace.y) == pytest.approx(1) for trace in bins.data)


def test_symbols_are_set_as_in_print():
    assert pretty_group("P6_3/mmc") == "P6<sub>3</sub>/mmc"
    assert pretty_group("Fd-3m") == 'Fd<span class="over">3</span>m'
    assert pretty_formula("Fe2O3") == "Fe<sub>2</sub>O<sub>3</sub>"


def test_estimates_are_shown_and_ranked_by(campaign):
    first, second, *rest = campaign.survivors
    campaign = dataclasses.replace(
        campaign,
        survivors=[second, first, *rest],
        extra={second: {"stable_probability": 0.9}, first: {"stable_probability": 0.1}},
        ranked_by="stable_probability of mp_20",
    )
    page = html_report(campaign, "estimates")
    assert "Ranked by stable_probability of mp_20" in page
    assert "estimates only" in page
    assert "probability of being stable: 0.9" in page
    body = page[page.index('<table id="ranking">') :]
    rows = re.findall(r"<tr>.*?</tr>", body[: body.index("</table>")])
    assert len({len(re.findall("<t[dh][ >]", row)) for row in rows}) == 1
    assert ">0.900</td>" in rows[1]
