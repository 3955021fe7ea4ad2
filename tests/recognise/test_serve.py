"""The server and its page: answers, refusals, patience, and what a phone shows."""

import io
import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, Page, Route, expect

from helpers import go, verger
from servers import ask, serving
from verger.errors import SetupError
from verger.recognise.names import find_name

HOSTILE = "<img src=x onerror=alert(1)> Pear"


@pytest.fixture(scope="module")
def output(spark: object, orchard: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the orchard, one of whose classes has a name that would be markup."""
    folder = tmp_path_factory.mktemp("served")
    shutil.copytree(orchard, folder / "in")
    kinds = sorted((folder / "in").iterdir())
    kinds[0].rename(kinds[0].with_name(HOSTILE))
    go(folder / "in", folder / "out")
    return folder / "out"


@pytest.fixture(scope="module")
def port(output: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with serving(output, "--corrections", tmp_path_factory.mktemp("kept") / "new") as port:
        yield port


def picture(width: int, height: int, kind: str = "PNG") -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (width, height), "green").save(data, kind)
    return data.getvalue()


@pytest.fixture(scope="module")
def photo(orchard: Path) -> Path:
    return sorted(orchard.rglob("*.jpg"))[8]


def test_it_gives_the_answer_of_classify(port: int, output: Path, photo: Path) -> None:
    status, answer, headers = ask(port, "/api/classify", photo.read_bytes())
    assert status == 200
    said = json.loads(verger("classify", photo, "--in", output, "--json").stdout)
    assert [guess["label"] for guess in answer["guesses"]] == [
        guess["label"] for guess in said["guesses"]
    ]
    assert answer["guesses"][0]["confidence"] == pytest.approx(
        said["guesses"][0]["confidence"], abs=1e-3
    )
    assert answer["guesses"][0]["name"] == find_name(photo.parent.name).model_dump()
    status, webp, picture_headers = ask(port, answer["similar"][0]["picture"])
    assert (status, webp[8:12]) == (200, b"WEBP")
    assert headers["cache-control"] == "no-store"
    for answered in (headers, picture_headers):
        assert "unsafe" not in answered["content-security-policy"]
        assert answered["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"", "image/jpeg", 400),
        (b"no image at all", "image/jpeg", 415),
        (picture(9, 9), "text/html", 415),
        (b"x" * (10 * 2**20 + 1), "image/jpeg", 413),
        (picture(10_000, 5_001), "image/png", 413),  # a bomb of 150 kB: 50 million pixels
        (picture(50, 50)[:90], "image/png", 422),
    ],
    ids=["empty", "text", "type", "bytes", "pixels", "cut"],
)
def test_what_is_no_photograph_is_refused_with_a_reason(
    port: int, body: bytes, kind: str, status: int
) -> None:
    found, problem, headers = ask(port, "/api/classify", body, kind)
    assert (found, problem["status"]) == (status, status)
    assert problem["detail"]
    assert headers["content-type"] == "application/problem+json"
    assert "content-security-policy" in headers


def test_other_addresses_and_methods_are_problems_too(port: int) -> None:
    assert ask(port, "/nothing")[0] == 404
    assert ask(port, "/pictures/99999")[0] == 404
    status, problem, _ = ask(port, "/api/classify")
    assert (status, problem["status"]) == (405, 405)


def test_pictures_that_had_gone_are_shown_when_they_are_back(port: int, output: Path) -> None:
    images = output.with_name("in")
    images.rename(output.with_name("away"))
    statuses = [ask(port, f"/pictures/{number}")[0] for number in range(24)]
    output.with_name("away").rename(images)
    assert 404 in statuses
    assert {ask(port, f"/pictures/{number}")[0] for number in range(24)} == {200}


def test_a_correction_that_cannot_be_written_says_why(
    output: Path, photo: Path, tmp_path: Path
) -> None:
    kept = tmp_path / "new"
    with serving(output, "--corrections", kept) as port:
        kept.write_text("no folder")
        query = f"label={photo.parent.name.replace(' ', '%20')}&consent=yes"
        status, problem, _ = ask(port, f"/api/corrections?{query}", photo.read_bytes())
    assert status == 507
    assert problem["detail"] == "The photograph cannot be kept: Not a directory."


def test_openapi_names_every_status(port: int) -> None:
    _, document, _ = ask(port, "/openapi.json")
    responses = document["paths"]["/api/classify"]["post"]["responses"]
    assert {"200", "400", "413", "415", "422", "429", "503"} <= set(responses)


def test_a_correction_is_kept_only_with_consent_and_without_metadata(
    output: Path, photo: Path, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x010F] = "a phone"
    with_exif = io.BytesIO()
    Image.open(photo).save(with_exif, "JPEG", exif=exif)
    label = photo.parent.name.replace(" ", "%20")
    with serving(output, "--corrections", tmp_path / "new") as port:
        for query in ("label=Brick&consent=yes", f"label={label}", "label=../x&consent=yes"):
            status, problem, _ = ask(port, f"/api/corrections?{query}", with_exif.getvalue())
            assert status == 422, problem
        assert not (tmp_path / "new").exists()
        query = f"label={label}&consent=yes"
        status, kept, _ = ask(port, f"/api/corrections?{query}", with_exif.getvalue())
        assert (status, kept) == (201, {"kept": photo.parent.name})
        assert ask(port, f"/api/corrections?{query}", b"text")[0] == 415
    (file,) = (tmp_path / "new").rglob("*.*")
    assert file.parent.name == photo.parent.name
    with Image.open(file) as image:
        assert image.size == Image.open(photo).size
        assert not image.getexif()
    with serving(output) as port:
        assert ask(port, f"/api/corrections?{query}", photo.read_bytes())[0] == 403


def test_more_than_it_can_do_is_answered_with_429(output: Path, photo: Path) -> None:
    with serving(output, "--queue", 1) as port, ThreadPoolExecutor(24) as pool:
        found = list(pool.map(lambda _: ask(port, "/api/classify", photo.read_bytes()), range(48)))
        assert {status for status, _, _ in found} == {200, 429}
        assert all(headers["retry-after"] for status, _, headers in found if status == 429)
        assert ask(port, "/api/classify", photo.read_bytes())[0] == 200
        assert ask(port, "/health")[1] == {"status": "ok", "waiting": 0}


def test_slow_senders_and_half_open_connections_stop_nobody(output: Path, photo: Path) -> None:
    with serving(output, "--seconds", 2) as port:
        silent = [socket.create_connection(("127.0.0.1", port), timeout=60) for _ in range(20)]
        slow = socket.create_connection(("127.0.0.1", port), timeout=60)
        head = "POST /api/classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\n"
        slow.sendall(f"{head}Content-Length: 1000\r\n\r\nab".encode())
        # One request, and of the next a part.
        again = socket.create_connection(("127.0.0.1", port), timeout=60)
        again.sendall(b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\nGET /he")
        assert ask(port, "/api/classify", photo.read_bytes())[0] == 200
        assert slow.recv(1000).startswith(b"HTTP/1.1 408 ")
        assert [connection.recv(10) for connection in silent] == [b""] * 20
        with again.makefile("rb") as answer:
            assert answer.read().startswith(b"HTTP/1.1 404 ")
        for connection in (*silent, slow, again):
            connection.close()


def test_it_ends_in_good_order_and_says_what_is_wrong(output: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        refused = verger("serve", output, "--port", taken.getsockname()[1])
    assert refused.returncode == 5
    assert "cannot listen" in refused.stderr
    one_sided = verger("serve", output, "--key", tmp_path / "key.pem")
    assert one_sided.returncode == 2
    (tmp_path / "key.pem").write_text("no key")
    pair = ("--key", tmp_path / "key.pem", "--certificate", tmp_path / "key.pem")
    assert verger("serve", output, *pair).returncode == 2


UNABLE = """
from verger.cli.main import main
from verger.errors import SetupError
from verger.recognise.photo import Photographer

def fail(*_):
    raise SetupError("This processor lacks bfloat16.")

Photographer.reduce = fail
main()
"""
"""The command, on a processor that its network does not run on."""


def test_workers_that_cannot_start_are_said_as_they_are(output: Path) -> None:
    command = [sys.executable, "-c", UNABLE, "serve", output, "--port", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == SetupError.exit_code
    assert "lacks bfloat16" in done.stderr


@pytest.fixture(params=["light-en", "dark-fr"])
def page(request: pytest.FixtureRequest, browser: Browser, port: int) -> Iterator[Page]:
    """The page as a phone shows it; nothing in it may complain."""
    scheme, language = request.param.split("-")
    context = browser.new_context(
        viewport={"width": 360, "height": 740},
        color_scheme=scheme,
        locale=language,
        has_touch=True,
        is_mobile=True,
    )
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda said: complaints.append(said.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append(f"dialog {dialog.message}"))
    page.goto(f"http://127.0.0.1:{port}/")
    yield page
    assert complaints == []
    context.close()


def test_a_phone_photographs_and_learns(page: Page, orchard: Path) -> None:
    assert page.locator("#camera").get_attribute("capture") == "environment"
    pear = next(min(orchard.iterdir()).iterdir())
    page.set_input_files("#camera", pear)
    page.wait_for_selector("#answer:not([hidden])")
    assert page.locator("#guesses li").first.inner_text().startswith(HOSTILE)
    names = find_name(HOSTILE)
    language = page.locator("html").get_attribute("lang")
    assert getattr(names, language) in page.locator("#guesses li").first.inner_text()
    expect(page.locator("#similar img")).to_have_count(5)
    for picture in page.locator("#similar img").all():
        expect(picture).to_have_js_property("naturalWidth", 100)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert Axe().run(page).violations_count == 0
    page.locator("#correction summary").click()
    page.select_option("#label", HOSTILE)
    page.check("#consent")
    assert Axe().run(page).violations_count == 0
    page.locator("#correct button").click()
    expect(page.locator("#status")).to_contain_text({"en": "Thank you", "fr": "Merci"}[language])


def test_what_is_no_picture_is_said_in_words(browser: Browser, port: int, tmp_path: Path) -> None:
    (tmp_path / "notes.jpg").write_text("no picture")
    page = browser.new_page(locale="fr")
    page.goto(f"http://127.0.0.1:{port}/")
    page.set_input_files("#file", tmp_path / "notes.jpg")
    expect(page.locator("#status")).to_contain_text("lisible")
    page.close()


def test_an_answer_that_comes_late_is_not_shown_beside_another_photograph(
    browser: Browser, port: int, orchard: Path
) -> None:
    first, last = min(orchard.rglob("*.jpg")), max(orchard.rglob("*.jpg"))
    page = browser.new_context(service_workers="block").new_page()
    held: list[Route] = []
    page.route("**/api/classify", lambda route: route.continue_() if held else held.append(route))
    page.goto(f"http://127.0.0.1:{port}/")
    with page.expect_request("**/api/classify"):
        page.set_input_files("#file", first)
    page.set_input_files("#file", last)
    guess = page.locator("#guesses li").first
    expect(guess).to_contain_text(last.parent.name)
    with page.expect_response("**/api/classify"):
        held[0].continue_()
    page.wait_for_timeout(500)
    expect(guess).to_contain_text(last.parent.name)
    page.context.close()


def test_the_page_opens_without_a_network(browser: Browser, output: Path, photo: Path) -> None:
    context = browser.new_context(locale="en")
    page = context.new_page()
    with serving(output) as port:
        page.goto(f"http://127.0.0.1:{port}/")
        page.evaluate("navigator.serviceWorker.ready.then(() => true)")
        page.reload()
    page.goto(f"http://127.0.0.1:{port}/")
    assert page.locator("h1").inner_text() == "What fruit is it?"
    page.set_input_files("#file", photo)
    expect(page.locator("#status")).to_contain_text("no connection")
    context.close()
