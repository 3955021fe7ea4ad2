"""The page answers by itself, as the server would, and photographs with the camera."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from browsers import chromium
from certificates import NAMED, make_certificates
from helpers import go
from servers import ask, serving
from verger.recognise.names import find_name

READY = {"en": "can answer by itself", "fr": "répondre seul"}


@pytest.fixture(scope="module")
def output(spark: object, orchard: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the orchard, with all views: squares in the middle are cut in the file, too."""
    folder = tmp_path_factory.mktemp("on-phone") / "out"
    go(orchard, folder, views=6)
    file = folder / "recogniser/recogniser.json"
    # So warm, no answer is near 0 or 1, where all computations look alike.
    file.write_text(json.dumps(json.loads(file.read_text()) | {"temperature": 1.0}))
    return folder


@pytest.fixture(scope="module")
def port(output: Path) -> Iterator[int]:
    with serving(output, "--on-phone") as port:
        yield port


@pytest.fixture(scope="module")
def seen(orchard: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photograph that a camera sees, as a film of one picture."""
    film = tmp_path_factory.mktemp("film") / "film.mjpeg"
    photo = max(orchard.rglob("*.jpg"))
    frame = io.BytesIO()
    Image.open(photo).resize((640, 640)).save(frame, "JPEG", quality=95)
    film.write_bytes(frame.getvalue() * 30)
    return film


@pytest.fixture(scope="module")
def browser(seen: Path) -> Iterator[Browser]:
    """With a camera that shows the film, and that need not be asked for."""
    with chromium(
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-video-capture={seen}",
        f"--host-resolver-rules=MAP {NAMED} 127.0.0.1",
        # The authority of the tests is in no list of the browser's.
        "--ignore-certificate-errors",
    ) as opened:
        yield opened


def open_phone(
    browser: Browser,
    port: int,
    language: str = "en",
    origin: str = "http://127.0.0.1",
    **options: Any,
) -> tuple[Page, list[str], list[tuple[str, str]]]:
    """The page on a phone, what it complains of, and what it asks for."""
    context = browser.new_context(
        viewport={"width": 360, "height": 740},
        locale=language,
        has_touch=True,
        is_mobile=True,
        **options,
    )
    page = context.new_page()
    complaints: list[str] = []
    asked: list[tuple[str, str]] = []
    page.on("console", lambda said: complaints.append(said.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    context.on("request", lambda request: asked.append((request.method, request.url)))
    page.goto(f"{origin}:{port}/")
    return page, complaints, asked


def shown(page: Page) -> dict[str, float]:
    """The guesses that the page shows, and how likely it says that they are."""
    page.wait_for_selector("#answer:not([hidden])")
    return page.evaluate(
        """() => Object.fromEntries([...document.querySelectorAll("#guesses li")].map(
            (item) => [item.querySelector("span").textContent, item.querySelector("meter").value]
        ))"""
    )


def look_at(page: Page, photo: Path) -> dict[str, float]:
    page.set_input_files("#file", photo)
    expect(page.locator("#status")).to_have_text("")
    return shown(page)


@pytest.fixture(params=["light-en", "dark-fr"])
def style(request: pytest.FixtureRequest) -> tuple[str, str]:
    scheme, language = request.param.split("-")
    return scheme, language


def test_it_answers_as_the_server_does_and_sends_no_photograph(
    browser: Browser, port: int, orchard: Path, style: tuple[str, str]
) -> None:
    scheme, language = style
    page, complaints, asked = open_phone(browser, port, language, color_scheme=scheme)
    page.check("#on-phone")
    expect(page.locator("#status")).to_contain_text(READY[language])
    for photo in sorted(orchard.rglob("*.jpg"))[::5]:
        status, answer, _ = ask(port, "/api/classify", photo.read_bytes())
        assert status == 200
        found = look_at(page, photo)
        assert next(iter(found)) == answer["guesses"][0]["label"] == photo.parent.name
        said = {guess["label"]: guess["confidence"] for guess in answer["guesses"]}
        assert found == pytest.approx({label: said[label] for label in found}, abs=0.02)
        name = getattr(find_name(photo.parent.name), language)
        assert name in page.locator("#guesses li").first.inner_text()
        assert page.locator("#likeness").is_hidden()
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert Axe().run(page).violations_count == 0
    assert {method for method, _ in asked} == {"GET"}
    assert all(url.startswith((f"http://127.0.0.1:{port}/", "blob:")) for _, url in asked)
    assert complaints == []
    page.context.close()


def test_it_answers_without_a_server(browser: Browser, output: Path, orchard: Path) -> None:
    photo = min(orchard.rglob("*.jpg"))
    with serving(output, "--on-phone") as port:
        page, _, _ = open_phone(browser, port)
        page.evaluate("navigator.serviceWorker.ready.then(() => true)")
        page.check("#on-phone")
        expect(page.locator("#status")).to_contain_text(READY["en"])
    page.goto(f"http://127.0.0.1:{port}/")
    expect(page.locator("#on-phone")).to_be_checked()
    expect(page.locator("#status")).to_contain_text(READY["en"])
    assert next(iter(look_at(page, photo))) == photo.parent.name
    page.uncheck("#on-phone")
    page.set_input_files("#file", photo)
    expect(page.locator("#status")).to_contain_text("no connection")
    page.context.close()


@pytest.mark.slow
def test_on_a_network_it_computes_with_tls_and_without(
    browser: Browser, output: Path, orchard: Path, tmp_path: Path
) -> None:
    tls = make_certificates(tmp_path)
    photo = min(orchard.rglob("*.jpg"))
    for scheme, options in (("https", tls), ("http", ())):
        authority = tmp_path / "ca.pem" if options else None
        with serving(output, "--on-phone", *options, authority=authority) as port:
            page, complaints, asked = open_phone(browser, port, origin=f"{scheme}://{NAMED}")
            # Without TLS there is neither camera nor service worker, but on a loopback address.
            assert page.evaluate("isSecureContext") == (scheme == "https")
            page.check("#on-phone")
            expect(page.locator("#status")).to_contain_text(READY["en"])
            assert next(iter(look_at(page, photo))) == photo.parent.name
            assert {method for method, _ in asked} == {"GET"}
            # A header that means nothing without TLS.
            assert [said for said in complaints if "Cross-Origin-Opener-Policy" not in said] == []
            page.context.close()


def test_a_photograph_is_upright_and_laid_on_white_as_on_the_server(
    browser: Browser, port: int, orchard: Path, tmp_path: Path
) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    photo = max(orchard.rglob("*.jpg"))
    upright = Image.open(photo).resize((300, 200)).rotate(90, expand=True)
    upright.save(tmp_path / "turned.jpg", exif=turned, quality=95)
    status, answer, _ = ask(port, "/api/classify", (tmp_path / "turned.jpg").read_bytes())
    assert status == 200
    page, _, _ = open_phone(browser, port)
    page.check("#on-phone")
    found = look_at(page, tmp_path / "turned.jpg")
    said = {guess["label"]: guess["confidence"] for guess in answer["guesses"]}
    assert found == pytest.approx({label: said[label] for label in found}, abs=0.02)
    (tmp_path / "notes.jpg").write_text("no picture")
    page.set_input_files("#file", tmp_path / "notes.jpg")
    expect(page.locator("#status")).to_contain_text("no picture")
    page.context.close()


def test_only_the_thread_that_computes_may_compile(port: int, output: Path) -> None:
    _, page, headers = ask(port, "/")
    assert "unsafe" not in headers["content-security-policy"]
    policy = ask(port, "/phone.js")[2]["content-security-policy"]
    assert "script-src 'wasm-unsafe-eval' 'self';" in policy
    assert "unsafe-inline" not in policy
    assert "camera=(self)" in headers["permissions-policy"]
    for address in set(page.decode().split('"')):
        if address.startswith("/on-phone/"):
            status, _, kept = ask(port, address)
            assert (status, "immutable" in kept["cache-control"]) == (200, True)
    assert ask(port, "/on-phone/other.onnx")[0] == 404
    with serving(output) as without:
        assert b"on-phone" not in ask(without, "/")[1]


def test_the_camera_in_the_page_takes_a_frame(
    browser: Browser, port: int, orchard: Path, style: tuple[str, str]
) -> None:
    scheme, language = style
    page, complaints, asked = open_phone(browser, port, language, color_scheme=scheme)
    assert page.locator("#take").is_hidden()
    page.check("#on-phone")
    page.locator("#open").click()
    expect(page.locator("#video")).to_have_js_property("videoWidth", 640)
    assert page.locator("#shoot").evaluate("button => button === document.activeElement")
    assert page.locator("#choices").is_hidden()
    assert Axe().run(page).violations_count == 0
    page.locator("#shoot").click()
    assert next(iter(shown(page))) == max(orchard.rglob("*.jpg")).parent.name
    assert page.locator("#live").is_hidden()
    assert page.evaluate("document.getElementById('video').srcObject") is None
    page.locator("#open").click()
    page.locator("#close").click()
    assert page.locator("#open").is_visible()
    assert {method for method, _ in asked} == {"GET"}
    assert complaints == []
    page.context.close()


def test_without_a_camera_the_one_of_the_phone_is_offered(browser: Browser, port: int) -> None:
    page, _, _ = open_phone(browser, port)
    refuse = "() => { navigator.mediaDevices.getUserMedia = () => Promise.reject(new Error()); }"
    page.evaluate(refuse)
    page.locator("#open").click()
    expect(page.locator("#status")).to_contain_text("may not use the camera")
    assert page.locator("#take").is_visible()
    assert page.locator("#open").is_hidden()
    page.context.close()
