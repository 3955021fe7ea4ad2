"""The page of outputs of every shape, and what its map does under a mouse and a keyboard."""

import base64
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page

from browsers import open_page
from outputs import colour, make_output, measure
from verger.output.files import read_scores
from verger.output.layout import Output, Reason
from verger.output.manifest import read_manifest
from verger.progress import Progress
from verger.report.page import write_report
from verger.report.plots import map_figure, scree_figure
from verger.report.scores import COMPARED_ROWS, MAP_ROWS, summarize
from verger.report.texts import LANGUAGES, number_formats, texts

EVIL = "<img src=x onerror=alert(1)>"
LABELS = [EVIL] * 6 + ["pear"] * 6 + ["plum"] * 6


def written(output: Output, language: str = "en") -> Path:
    write_report(output, language, Progress())
    return Path(output.report.path)


def points_of(report: Path) -> dict[str, Any]:
    found = re.search(r'id="page-data">(.*?)</script>', report.read_text(), re.DOTALL)
    assert found
    return json.loads(found[1])["points"]


MISTAKES = [(EVIL, "pear", "pear/7.png"), ("plum", EVIL, f"{EVIL}/2.png")]


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    output = make_output(folder, LABELS)
    measure(output, folder / "others", MISTAKES)
    return written(output)


def hover(page: Page, row: int) -> dict[str, str]:
    """Aim at the point of a row; what the tip then shows, read at one moment."""
    point = page.locator("#map-plot .points path").nth(row)
    point.wait_for()
    page.mouse.move(1, 1)
    page.locator("#tip").wait_for(state="hidden")
    box = point.bounding_box()
    assert box
    for aside in (1, 0):
        page.mouse.move(box["x"] + box["width"] / 2 - aside, box["y"] + box["height"] / 2)
    page.locator("#tip").wait_for(state="visible")
    return page.locator("#tip").evaluate(
        """tip => ({row: tip.dataset.row, path: tip.querySelector("span").textContent,
        label: tip.querySelector("b").textContent, source: tip.querySelector("img").src})"""
    )


def colour_of(source: str) -> tuple[int, ...]:
    """Of the middle of a picture in a data URI."""
    with Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) as picture:
        return picture.convert("RGB").getpixel((20, 15))


@pytest.mark.parametrize("width", [375, 1440])
def test_hovering_shows_the_picture_and_the_name_of_that_image(
    report: Path, browser: Browser, width: int
) -> None:
    page, complaints = open_page(browser, report, width)
    page.emulate_media(reduced_motion="reduce")  # no smooth scrolling
    page.locator("#map-plot").scroll_into_view_if_needed()
    paths = points_of(report)["paths"]
    for aimed in (0, 7, 13):
        tip = hover(page, aimed)
        # A point may lie below another: the tip says which it shows.
        path = paths[int(tip["row"])]
        number = int(re.search(r"(\d+)\.png", path)[1])
        assert (tip["path"], tip["label"]) == (path, LABELS[number])
        difference = zip(colour_of(tip["source"]), colour(number), strict=True)
        assert max(abs(one - other) for one, other in difference) < 25
    assert page.locator("#tip img[src=x]").count() == 0
    assert complaints == []


def test_the_arrow_keys_go_from_image_to_image(report: Path, browser: Browser) -> None:
    page, complaints = open_page(browser, report)
    page.locator("#map-frame").focus()
    seen = []
    for _ in range(3):
        page.keyboard.press("ArrowRight")
        seen.append(page.locator("#tip span").inner_text())
    assert len(set(seen)) == 3
    page.keyboard.press("Escape")
    assert page.locator("#tip").is_hidden()
    assert complaints == []


def test_axes_and_classes_are_chosen(report: Path, browser: Browser) -> None:
    page, complaints = open_page(browser, report)
    points = points_of(report)
    page.locator("#map-plot .points path").first.wait_for()
    page.select_option("#axis-x", "2")
    page.select_option("#highlight", str(points["classes"].index("pear")))
    drawn = page.evaluate("document.getElementById('map-plot')._fullData[0]")
    assert list(drawn["x"]) == points["scores"][2]
    bright = {row for row, opacity in enumerate(drawn["marker"]["opacity"]) if opacity == 1}
    assert bright == {row for row, path in enumerate(points["paths"]) if path.startswith("pear")}
    assert page.locator("#map-plot .xtitle").text_content() == "PC3"
    assert complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [375, 1440])
def test_axe_finds_nothing_serious_in_light_and_dark(
    report: Path, browser: Browser, scheme, width: int
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.goto(report.as_uri())
    page.locator("#map-plot .points path").first.wait_for()
    found = Axe().run(page).response
    assert found["passes"], "it looked"
    serious = [
        (one["id"], [node["target"] for node in one["nodes"]])
        for one in found["violations"]
        if one["impact"] in {"serious", "critical"}
    ]
    assert serious == []


def test_in_print_everything_is_dark_on_white(report: Path, browser: Browser) -> None:
    page = browser.new_page(color_scheme="dark")
    page.goto(report.as_uri())
    page.emulate_media(media="print", color_scheme="dark")
    style = "(([what, of]) => getComputedStyle(document.querySelector(what))[of])"
    assert page.evaluate(style, ["body", "backgroundColor"]) == "rgb(255, 255, 255)"
    assert page.evaluate(style, ["body", "color"]) == "rgb(32, 38, 43)"
    assert page.evaluate(style, ["nav", "display"]) == "none"


@pytest.mark.parametrize("width", [375, 1440])
def test_photographs_that_were_confused_stand_beside_what_was_said(
    report: Path, browser: Browser, width: int
) -> None:
    page, complaints = open_page(browser, report, width)
    section = page.locator("#recognition")
    assert section.locator(".cards dd:not(.note)").all_inner_texts() == [
        "75.0%", "100.0%", "0.0312", "80.0%", "60.0%"
    ]  # fmt: skip
    pairs = section.locator(".mistakes .pair")
    assert pairs.count() == len(MISTAKES)
    for number, (label, taken_for, nearest) in enumerate(MISTAKES):
        pair = pairs.nth(number)
        assert f"Taken for {taken_for}, confidence 90.0%" in pair.inner_text()
        assert pair.locator("figcaption b").all_inner_texts() == [label, taken_for]
        left, right = (picture.bounding_box() for picture in pair.locator("img").all())
        assert left["x"] + left["width"] <= right["x"]
        assert left["y"] == right["y"]
        shown = [colour_of(picture.get_attribute("src")) for picture in pair.locator("img").all()]
        wanted = colour(number + 40), colour(int(re.search(r"(\d+)\.png", nearest)[1]))
        for one, other in zip(shown, wanted, strict=True):
            assert max(abs(a - b) for a, b in zip(one, other, strict=True)) < 25
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert complaints == []


def test_confused_photographs_that_have_gone_are_counted(tmp_path: Path) -> None:
    output = make_output(tmp_path, LABELS)
    assert 'id="recognition"' not in written(output).read_text()
    measure(output, tmp_path / "others", [("plum", "pear", "pear/7.png")] * 2)
    (tmp_path / "others/plum/1.png").unlink()
    assert "1 of these photographs could not be shown" in written(output).read_text()
    shutil.rmtree(tmp_path / "others")
    text = written(output, "fr").read_text()
    assert "2 de ces photographies manquent" in text
    assert text.count(f'aria-label="plum/0.png: {texts("fr")["no_picture"]}"') == 1


def test_an_evaluation_of_another_version_is_passed_over_and_named(tmp_path: Path) -> None:
    output = make_output(tmp_path, LABELS)
    measure(output, tmp_path / "others", [])
    Path(output.evaluation.path).write_text('{"top1": 0.5}')
    text = written(output).read_text()
    assert 'id="recognition"' not in text
    assert "Could not be read" in text


@pytest.mark.parametrize(
    ("labels", "components"),
    [
        (["pear"] * 12, 4),
        (["a", "b"], 1),
        (["", ""], 1),
        ([""] * 12, 4),
        ([f"class {number}" for number in range(500)] * 2, 4),
        (["same"] * 2 + ["other"], 1),
    ],
    ids=["one class", "two images", "two without class", "no labels", "500 classes", "three"],
)
@pytest.mark.parametrize("language", LANGUAGES)
def test_outputs_of_every_shape_have_a_page_without_complaint(
    browser: Browser, tmp_path: Path, labels: list[str], components: int, language: str
) -> None:
    output = make_output(tmp_path, labels, components, pictures=len(labels) < 20)
    page, complaints = open_page(browser, written(output, language), 375)
    page.locator("#map-plot .points path").first.wait_for()
    assert complaints == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    assert page.locator("#highlight").count() == (labels[0] != "")
    assert " 1 classes" not in page.locator(".brand").inner_text()


def test_an_output_of_another_version_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    output = make_output(tmp_path, LABELS)
    file = Path(output.manifest.path)
    old = json.loads(file.read_text()) | {"verger_version": "9.0", "counts": 3, "moon": "full"}
    del old["engine"]
    file.write_text(json.dumps(old))
    text = written(output).read_text()
    assert "another version (9.0)" in text
    assert "pear" in text


def test_damaged_scores_leave_a_page_that_says_so(tmp_path: Path) -> None:
    output = make_output(tmp_path, LABELS)
    (tmp_path / "out/pca/parquet/part-0.parquet").write_bytes(b"PAR1 no more")
    assert "Could not be read" in written(output).read_text()


def test_an_output_without_pca_says_so(tmp_path: Path) -> None:
    output = make_output(tmp_path, LABELS)
    shutil.rmtree(tmp_path / "out/pca")
    text = written(output).read_text()
    assert "has no PCA" in text
    assert "page-data" not in text


def test_a_large_output_is_sampled_in_proportion_and_stays_small(tmp_path: Path) -> None:
    labels = ["rare"] + ["few"] * 400 + ["many"] * 24_000
    output = make_output(tmp_path, labels, pictures=False)
    summary = summarize(read_scores(output), Progress())
    assert len(summary.sample) == COMPARED_ROWS
    assert summary.classes.names == ["many", "few", "rare"]
    assert summary.classes.sizes.tolist() == [24_000, 400, 1]
    again = summarize(read_scores(output), Progress())
    assert again.sample.paths.tolist() == summary.sample.paths.tolist()
    report = written(output)
    points = points_of(report)
    assert len(points["paths"]) == MAP_ROWS
    drawn = [points["classes"][code] for code in points["codes"]]
    assert drawn.count("rare") == 1
    assert drawn.count("few") == pytest.approx(MAP_ROWS * 400 / len(labels), rel=0.05)
    # 5,000 thumbnails of about 0.9 kB come on top.
    assert report.stat().st_size < 10 * 2**20
    assert "among 20,000 of 24,401 images" in report.read_text()


def test_small_scores_have_places_of_their_own_on_the_map(tmp_path: Path) -> None:
    output = make_output(tmp_path, LABELS, pictures=False)
    file = tmp_path / "out/pca/parquet/part-0.parquet"
    table = pq.read_table(file)
    scores = [[score / 1000 for score in row] for row in table["pca"].to_pylist()]
    pq.write_table(table.drop("pca").append_column("pca", [scores]), file)
    found = points_of(written(output))["scores"][0]
    assert len(set(found)) == len(LABELS)
    assert sorted(found) == pytest.approx(sorted(row[0] for row in scores), abs=1e-5)


def test_the_credit_stands_on_the_page(tmp_path: Path) -> None:
    output = make_output(tmp_path / "a", ["Pear"] * 4)
    assert "Mihai Oltean" not in written(output).read_text()
    manifest = read_manifest(output)
    manifest.settings["credit"] = "Fruits-360, Mihai Oltean & others"
    manifest.write(output)
    assert "Mihai Oltean &amp; others" in written(output).read_text()


def test_names_that_would_leave_the_data_stay_in_it(browser: Browser, tmp_path: Path) -> None:
    label = "</script><script>alert(1)</script>"
    output = make_output(tmp_path, [f"a {label[1:8]} {EVIL}", "b"] * 4, pictures=False)
    page, complaints = open_page(browser, written(output))
    assert complaints == []
    assert page.locator("script").count() == 3


def test_figures_are_what_plotly_knows() -> None:
    from plotly.graph_objects import Figure

    from verger.report.data import Component

    spectrum = [Component(number + 1, 0.25, (number + 1) / 4) for number in range(4)]
    for figure in (map_figure(), scree_figure(spectrum, 2, texts("en"))):
        Figure(figure)  # raises for a name or value that Plotly does not have
    french = scree_figure(spectrum, 2, texts("fr"))["layout"]
    assert {french[axis]["ticksuffix"] for axis in ("yaxis", "yaxis2")} == {"\u00a0%"}


def test_both_languages_name_every_reason_and_fill_the_same_places() -> None:
    english, french = (texts(language) for language in LANGUAGES)
    for name, text in english.items():
        places = set(re.findall(r"{\w+}", text))
        assert set(re.findall(r"{\w+}", french[name])) == places, name
    for language in LANGUAGES:
        assert set(texts(language, "reasons")) == {str(reason) for reason in Reason}
        assert "report" in texts(language, "stages")
    assert number_formats("fr")["count"](12_345) == "12\u202f345"
    assert number_formats("fr")["share"](0.5) == "50,0\u00a0%"
