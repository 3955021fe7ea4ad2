"""The documentation and the talk: built whole, from results of runs, without asking other hosts."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import figures
import pytest
import readme
import slides
from browser import BIN, node_environment

from browsers import chromium
from verger.report import charts

pytestmark = pytest.mark.docs

ROOT = Path(__file__).parents[2]
REQUEST = re.compile(
    r"<(?:script|img|iframe|link)\b[^>]*?(?:src|href)=[\"']?(https?:[^\"' >]+)|url\((https?:[^)]+)|"
    r"@import [\"'](https?:[^\"']+)"
)


def requests_in(text: str) -> list[str]:
    """What a browser would fetch from other hosts to show a page."""
    links = [match for match in REQUEST.finditer(text) if "canonical" not in match[0]]
    return ["".join(filter(None, match.groups())) for match in links]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [BIN / "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


def test_documentation_builds_without_a_warning_and_asks_no_other_host(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert {"index.html", "scaling.html", "api.html"} <= {page.name for page in pages}
    for page in pages:
        text = page.read_text()
        assert requests_in(text) == [], page
        assert "{{" not in text, page


def test_every_public_function_is_in_the_documentation(site: Path) -> None:
    import verger

    text = (site / "api.html").read_text()
    assert [name for name in verger.__all__ if f'id="verger.steps.{name}"' not in text] == []


def test_figures_of_the_documentation_are_those_of_the_results() -> None:
    drawn = figures.draw(1)
    assert {path.name for path in figures.DOCS.iterdir()} - {"report.png"} == set(drawn)
    assert [
        name for name, content in drawn.items() if (figures.DOCS / name).read_bytes() != content
    ] == []


@pytest.mark.parametrize("name", readme.TEXTS)
def test_readmes_say_how_fast_it_is(name: str) -> None:
    text = (readme.ROOT / name).read_text()
    bench = figures.load_data()["bench"]
    assert readme.fill(name, text, bench) == text
    seconds = readme.told(bench)["verger"]
    assert f"**{seconds:.1f} s**".replace(".", "," if name == "README.fr.md" else ".") in text


@pytest.fixture
def built(tmp_path: Path, monkeypatch) -> Path:
    """The figures in a folder of this test."""
    monkeypatch.setattr(figures, "BUILD", tmp_path)
    monkeypatch.setattr(figures, "DOCS", tmp_path / "docs")
    monkeypatch.setattr(slides, "BUILD", tmp_path)
    figures.main()
    return tmp_path


def test_slides_are_filled_from_results(built: Path) -> None:
    data = figures.load_data()
    text = slides.fill(data)
    assert 14 <= text.count("\n---\n") <= 18
    assert "{{" not in text
    assert "Fruits-360, Mihai Oltean, CC BY-SA 4.0" in text
    assert slides.percent(data["run"]["explained_variance_ratio"]) in text
    assert requests_in(text) == []


def test_slides_say_the_published_cost_where_there_is_no_plan(built: Path) -> None:
    data = figures.load_data()
    planned = slides.fill(data)
    assert data["plan"][0]["machine"] in planned
    del data["plan"]
    assert "d'après l'exécution de référence publiée" in slides.fill(data)


def test_numbers_are_written_as_the_french_do() -> None:
    assert slides.number(1234567.891, 2) == "1\u202f234\u202f567,89"
    assert slides.percent(0.7188, 2) == "71,88\u00a0%"


OVERFULL = """() => [...document.querySelectorAll("section")].filter(slide => {
  const foot = slide.querySelector("footer").getBoundingClientRect().top
  return [...slide.children].some(
    part => part.tagName != "FOOTER" && part.getBoundingClientRect().bottom > foot
  )
}).map(slide => slide.querySelector("h1").innerText)"""


def test_marp_makes_html_and_pdf_of_the_slides(built: Path, monkeypatch) -> None:
    folder = built / "presentation"
    folder.mkdir()
    for name in ("package.json", "package-lock.json"):
        shutil.copy(ROOT / "presentation" / name, folder)
    install = [BIN / "npm", "ci", "--no-audit", "--no-fund"]
    subprocess.run(install, cwd=folder, env=node_environment(), check=True)
    monkeypatch.setattr(slides, "MARP", folder / slides.MARP.relative_to(slides.HERE))
    monkeypatch.setattr(sys, "argv", ["slides.py"])
    slides.main()
    assert requests_in((built / "verger.html").read_text()) == []
    pdf = (built / "verger.pdf").read_bytes()
    assert pdf.startswith(b"%PDF")
    assert len(pdf) > 100_000
    (bare := built / "bare").mkdir()
    slides.convert(built / "slides.md", "--template", "bare", "--output", str(bare / "all.html"))
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 720})
        page.goto((bare / "all.html").as_uri())
        assert page.evaluate("document.querySelectorAll('section').length") > 10
        assert page.evaluate(OVERFULL) == []


def test_a_scree_plot_has_a_bar_a_component() -> None:
    svg = charts.scree([0.5, 0.25, 0.125]).svg
    assert svg.count("<rect") == 1 + 3
    assert svg.count("<polyline") == 1


def test_charts_write_the_decimal_mark_that_is_asked_for() -> None:
    assert "2.5 %" in charts.scree([0.1, 0.05]).svg
    french = charts.scree([0.1, 0.05], decimal_mark=",").svg
    assert "2,5 %" in french
    assert "2.5 %" not in french
    drawn = figures.bars([("one", 1.25)], unit="s", strong=0, decimal_mark=",")
    assert "1,25 s" in drawn.svg


def test_a_map_writes_frequent_names_and_escapes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(charts, "NAMED", 1)
    points = [(0.0, 0.0, "a<b"), (1.0, 1.0, "a<b"), (0.0, 1.0, "rare")]
    svg = charts.scatter(points).svg
    assert svg.count("<circle") == 3
    assert "a&lt;b" in svg
    assert "rare" not in svg


def test_a_map_of_points_in_one_place_is_drawn() -> None:
    assert charts.scatter([(1.0, 1.0, "")] * 2).svg.count("<circle") == 2


def test_a_drawing_is_saved(tmp_path: Path) -> None:
    drawn = charts.scree([0.5, 0.25])
    assert drawn.save(str(tmp_path / "new/scree.svg")) is drawn
    assert (tmp_path / "new/scree.svg").read_text() == drawn._repr_svg_()
