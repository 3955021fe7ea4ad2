"""The page of an output: in a real browser, in two languages, and of outputs that are not whole."""

import json
import re
import shutil
from pathlib import Path
from typing import ClassVar

import pyarrow.parquet as pq
import pytest
from PIL import Image
from playwright.sync_api import Browser

from browsers import open_page
from helpers import go, verger
from verger import chain
from verger.chain import ending
from verger.cli.summary import show_summary
from verger.datasets import packing
from verger.errors import InputError, TooManyRejectedError
from verger.images.loading import Loader
from verger.output.layout import ListedImage, Output, Rejection
from verger.progress import Progress
from verger.report import explorer, page
from verger.report.page import write_report
from verger.settings import RunSettings
from verger.store.location import Location

EVIL = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def finished(spark, orchard: Path, tmp_path_factory) -> Path:
    """An output whose first class has a name that would be a tag."""
    images = tmp_path_factory.mktemp("evil") / "in"
    shutil.copytree(orchard, images)
    next(iter(sorted(images.iterdir()))).rename(images / EVIL)
    (images / "broken.jpg").write_bytes(b"\xff\xd8\xff no photograph")
    go(images, images.parent / "out", components=5, max_rejected=1)
    return images.parent / "out"


@pytest.fixture
def output(finished: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    shutil.copytree(finished, tmp_path / "out")
    return tmp_path / "out"


def write(output: Path, language: str = "en") -> str:
    write_report(Output(Location(str(output))), language, Progress())
    return (output / "report.html").read_text()


@pytest.mark.parametrize("width", [375, 1440])
def test_a_run_ends_with_a_page_that_asks_nothing_and_fits(
    finished: Path, browser: Browser, width: int
) -> None:
    page, complaints = open_page(browser, finished / "report.html", width)
    assert complaints == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("svg.main-svg, canvas").count() > 0, "the plots are drawn"
    assert page.get_by_text(EVIL).count() > 0, "the name stays text"
    assert page.locator("img[src=x]").count() == 0


def test_thumbnails_of_large_photographs_are_not_made_again(
    spark, orchard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = tmp_path / "in"
    for number, small in enumerate(sorted(orchard.glob("*/*.jpg"))[:6]):
        (images / small.parent.name).mkdir(parents=True, exist_ok=True)
        picture = Image.open(small)
        picture = picture.resize((1200, 900)) if number % 2 else picture
        picture.save(images / small.parent.name / f"{number}.jpg")
    go(images, tmp_path / "out", components=2)
    asked: list[str] = []
    read_once = Loader.read_once

    def read(loader: Loader, image: ListedImage) -> bytes | Rejection:
        asked.append(image.path)
        return read_once(loader, image)

    monkeypatch.setattr(page, "_exhibited", lambda _: [])
    monkeypatch.setattr(Loader, "read_once", read)
    shown = write(tmp_path / "out")
    assert sorted(Path(path).name for path in asked) == ["0.jpg", "2.jpg", "4.jpg"]
    assert shown.count("data:image/webp;base64,") == 6


@pytest.mark.parametrize("missing", ["pca", "model", "files", "_run"])
def test_an_output_that_is_not_whole_still_has_a_page(output: Path, missing: str) -> None:
    shutil.rmtree(output / missing)
    assert "verger" in write(output)


def test_an_interrupted_output_says_so(output: Path) -> None:
    manifest = json.loads((output / "manifest.json").read_text()) | {"status": "interrupted"}
    (output / "manifest.json").write_text(json.dumps(manifest))
    assert re.search("interrupted", write(output), re.IGNORECASE)


def test_images_that_have_gone_leave_their_places(finished: Path, output: Path) -> None:
    manifest = json.loads((output / "manifest.json").read_text())
    (output / "manifest.json").write_text(json.dumps(manifest | {"input": "/nowhere/at/all"}))
    assert "data:image/webp" not in write(output)


def test_a_folder_that_is_no_output_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not an output"):
        write(tmp_path)


def test_the_command_says_where_the_page_is_and_refuses_other_languages(output: Path) -> None:
    done = verger("report", output, "--lang", "fr")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(output / "report.html")
    assert verger("report", output, "--lang", "de").returncode == 2


def test_a_run_in_french_ends_with_a_french_summary_and_page(
    spark, orchard: Path, tmp_path: Path, capsys
) -> None:
    manifest = go(orchard, tmp_path / "out", lang="fr", limit=6)
    assert manifest.timings["report"] > 0
    assert '<html lang="fr"' in (tmp_path / "out/report.html").read_text()
    show_summary(manifest, Output(Location(str(tmp_path / "out"))), manifest.settings["lang"])
    said = capsys.readouterr().out
    assert "6 listés\u00a0: 6 calculés, 0 rejetés" in said
    assert "6 lignes x 5 composantes" in said
    assert verger("run", orchard, tmp_path / "out", "--lang", "de").returncode == 2


def test_a_report_that_fails_does_not_fail_the_run(
    spark, orchard: Path, tmp_path: Path, monkeypatch
) -> None:
    def fail(*arguments: object) -> None:
        raise RuntimeError("no ink")

    class Notes(Progress):
        heard: ClassVar[list[str]] = []

        def note(self, text: str) -> None:
            self.heard.append(text)

    monkeypatch.setattr(ending, "write_report", fail)
    settings = RunSettings(input=str(orchard), output=str(tmp_path / "out"), limit=4)
    assert chain.run(settings, Notes()).status == "complete"
    assert any("no ink" in note for note in Notes.heard)
    assert not (tmp_path / "out/report.html").exists()


def test_a_run_with_too_many_rejected_files_names_them(spark, orchard: Path, tmp_path) -> None:
    shutil.copytree(orchard, tmp_path / "in")
    for number in range(9):
        (tmp_path / f"in/broken-{number}.jpg").write_bytes(b"\xff\xd8\xff no photograph")
    with pytest.raises(TooManyRejectedError):
        go(tmp_path / "in", tmp_path / "out")
    text = (tmp_path / "out/report.html").read_text()
    assert "Too many files were rejected" in text
    assert "broken-8.jpg" in text


def test_packed_images_have_pictures(spark, orchard: Path, tmp_path: Path, monkeypatch) -> None:
    packing.pack(Location(str(orchard)), Location(str(tmp_path / "packed")))
    go(tmp_path / "packed", tmp_path / "out", limit=5)
    text = (tmp_path / "out/report.html").read_text()
    assert "data:image/webp" in text
    assert "could not be shown" not in text
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    table = explorer.make_table(Output(Location(str(tmp_path / "out"))), Progress())
    assert all(row["picture"] for row in pq.read_table(table).to_pylist())
