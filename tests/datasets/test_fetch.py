"""Fruits-360 comes whole over connections that break, and damaged or unsafe zips are refused."""

import io
import json
import re
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import threading
import time
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from verger.cli import fetch as command
from verger.cli.main import app as commands
from verger.datasets import archives, download, fruits360
from verger.datasets.fruits360 import Fetched, fetch
from verger.errors import InputError, SetupError, UsageError, VergerError
from verger.progress import Progress

RANDOM = np.random.default_rng(0)
ENTRIES = {
    f"{split}/{kind}/{number}_100.jpg": RANDOM.bytes(4000)
    for split in ("Training", "Test")
    for kind in ("Apple 6", "Banana 1", "Corn")
    for number in range(3)
}
FOUND = Fetched(18, 3, "an unknown release with 18 images in 3 classes", ("Test", "Training"))


@dataclass
class Orchard:
    """A server of one file, and what it was asked; the lists are used up, an answer each."""

    data: bytes
    etag: str | None = '"one"'
    modified: str | None = None
    ranges: bool = True
    """Whether it answers Range; without, always the whole file."""
    if_range: bool = True
    """Whether it looks at If-Range."""
    shift: int = 0
    """Bytes by which its parts start too late."""
    drops: list[int] = field(default_factory=list)
    """Bytes of a body after which the connection is cut."""
    statuses: list[int] = field(default_factory=list)
    redirect: str = ""
    length: bool = True
    """Whether it says how long the file is."""
    stalled: threading.Event | None = None
    """Given when a connection hangs, until this is set, instead of being cut."""
    asked: list[dict[str, str]] = field(default_factory=list)
    url: str = ""

    @property
    def starts(self) -> list[str | None]:
        return [headers.get("range") for headers in self.asked]

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.asked.append({name.lower(): text for name, text in handler.headers.items()})
        if self.redirect and handler.path.startswith("/old"):
            handler.send_response(302)
            handler.send_header("Location", self.redirect)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        if self.statuses:
            handler.send_error(self.statuses.pop(0))
            return
        start = self._start()
        status = 200 if start is None else 206 if start < len(self.data) else 416
        body = self.data[start or 0 :]
        handler.send_response(status)
        if start is not None:
            inside = f"{start}-{len(self.data) - 1}" if body else "*"
            handler.send_header("Content-Range", f"bytes {inside}/{len(self.data)}")
        for name, text in (("ETag", self.etag), ("Last-Modified", self.modified)):
            if text:
                handler.send_header(name, text)
        if self.length:
            handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        dropped = bool(self.drops)
        handler.wfile.write(body[: self.drops.pop(0)] if dropped else body)
        if dropped and self.stalled:
            self.stalled.wait(10)

    def _start(self) -> int | None:
        headers = self.asked[-1]
        match = re.fullmatch(r"bytes=(\d+)-", headers.get("range", ""))
        same = headers.get("if-range") in {self.etag, self.modified}
        given = match and self.ranges and (same or not self.if_range)
        return int(match[1]) + self.shift if given else None


@pytest.fixture
def orchard(monkeypatch: pytest.MonkeyPatch) -> Iterator[Orchard]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download, "BACKOFF_SECONDS", 0.0)
    monkeypatch.setattr(download, "TIMEOUT_SECONDS", 5.0)
    served = Orchard(zip_of(ENTRIES))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.answer(self)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            pass  # a client that was killed

    with Server(("127.0.0.1", 0), Handler) as server:
        served.url = f"http://127.0.0.1:{server.server_port}/data/fruits.zip"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield served
        server.shutdown()
        thread.join()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "fruits"


class Heard(Progress):
    """What the work told."""

    def __init__(self) -> None:
        self.stages: dict[str, list[int | None]] = {}
        self.notes: list[str] = []

    def start(self, stage: str, total: int | None = None) -> None:
        self.stages[stage] = [total]

    def update(self, done: int, rejected: int = 0) -> None:
        list(self.stages.values())[-1].append(done)

    def note(self, text: str) -> None:
        self.notes.append(text)


def zip_of(
    entries: dict[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED
) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", method) as zipped:
        for name, content in entries.items():
            zipped.writestr(name, content, method)
    return data.getvalue()


def files_of(folder: Path) -> dict[str, bytes]:
    """All files below a folder but the record."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".fetched.json"
    }


def local(tmp_path: Path, data: bytes) -> str:
    file = tmp_path / "archive.zip"
    file.write_bytes(data)
    return str(file)


def failing(folder: Path, source: str, kind: type[VergerError]) -> VergerError:
    with pytest.raises(kind) as caught:
        fetch(str(folder), source)
    assert "\n" not in caught.value.message
    assert caught.value.hint
    return caught.value


def test_a_download_is_unpacked_told_and_recorded(orchard: Orchard, folder: Path) -> None:
    heard = Heard()
    assert fetch(str(folder), orchard.url, progress=heard) == FOUND
    assert files_of(folder) == ENTRIES
    assert orchard.starts == [None]
    size = len(orchard.data)
    total, first, *between, last = heard.stages["download"]
    assert (total, first, last) == (size, 0, size)
    assert between == sorted(between)
    assert heard.stages["unpack"] == [18, *range(1, 19)]
    record = json.loads((folder / ".fetched.json").read_bytes())
    assert record["source"] == orchard.url
    assert (record["etag"], record["size"]) == ('"one"', size)
    assert (record["images"], record["classes"]) == (18, 3)
    assert record["finished"].endswith("+00:00")


def test_a_zip_of_this_machine_is_unpacked_and_left_alone(tmp_path: Path, folder: Path) -> None:
    zipped = zip_of(ENTRIES)
    source = local(tmp_path, zipped)
    assert fetch(str(folder), source) == FOUND
    assert files_of(folder) == ENTRIES
    assert Path(source).read_bytes() == zipped


def test_a_complete_folder_asks_for_nothing(orchard: Orchard, folder: Path) -> None:
    fetch(str(folder), orchard.url)
    (folder / "my own notes.txt").write_text("kept")
    heard = Heard()
    assert fetch(str(folder), orchard.url, progress=heard) == FOUND
    assert len(orchard.asked) == 1
    assert not heard.stages
    assert "is complete" in heard.notes[0]
    assert orchard.url in heard.notes[0]


def test_a_missing_or_cut_file_is_unpacked_again_and_no_other(
    orchard: Orchard, folder: Path
) -> None:
    fetch(str(folder), orchard.url)
    gone, cut, kept = (folder / name for name in list(ENTRIES)[:3])
    gone.unlink()
    cut.write_bytes(b"short")
    before = kept.stat().st_ino
    heard = Heard()
    fetch(str(folder), orchard.url, progress=heard)
    assert files_of(folder) == ENTRIES
    assert heard.stages["unpack"] == [18, 17, 18]
    assert kept.stat().st_ino == before


def test_a_damaged_record_counts_as_none(orchard: Orchard, folder: Path) -> None:
    fetch(str(folder), orchard.url)
    (folder / ".fetched.json").write_text("{")
    assert fetch(str(folder), orchard.url) == FOUND
    assert len(orchard.asked) == 2


def test_fresh_replaces_another_release_and_keeps_what_is_not_of_it(
    orchard: Orchard, folder: Path
) -> None:
    fetch(str(folder), orchard.url)
    (folder / "my own notes.txt").write_text("kept")
    first = next(iter(ENTRIES))
    (folder / first).write_bytes(b"x" * 4000)
    newer = dict(list(ENTRIES.items())[:2])
    orchard.data, orchard.etag = zip_of(newer), '"two"'
    assert fetch(str(folder), orchard.url, fresh=True).images == 2
    assert files_of(folder) == newer | {"my own notes.txt": b"kept"}


def test_fresh_takes_up_no_rest_of_an_earlier_call(orchard: Orchard, folder: Path) -> None:
    orchard.drops = [30_000, 0, 0, 0, 0]
    failing(folder, orchard.url, SetupError)
    name, content = next(iter(ENTRIES.items()))
    (folder / name).parent.mkdir(parents=True)
    (folder / name).write_bytes(content[::-1])
    fetch(str(folder), orchard.url, fresh=True)
    assert orchard.starts[-1] is None
    assert files_of(folder) == ENTRIES


def test_fresh_loses_nothing_when_the_source_has_gone(orchard: Orchard, folder: Path) -> None:
    fetch(str(folder), orchard.url)
    orchard.statuses = [404]
    with pytest.raises(InputError):
        fetch(str(folder), orchard.url, fresh=True)
    assert files_of(folder) == ENTRIES
    assert fetch(str(folder), orchard.url) == FOUND
    assert len(orchard.asked) == 2


def test_a_dropped_download_goes_on_where_it_stopped(orchard: Orchard, folder: Path) -> None:
    orchard.drops = [10_000, 20_000]
    heard = Heard()
    assert fetch(str(folder), orchard.url, progress=heard) == FOUND
    assert orchard.starts == [None, "bytes=10000-", "bytes=30000-"]
    assert orchard.asked[1]["if-range"] == '"one"'
    assert files_of(folder) == ENTRIES
    assert len(heard.notes) == 2
    assert "10,000" in heard.notes[0]


def test_progress_resets_the_count_of_retries(orchard: Orchard, folder: Path) -> None:
    orchard.drops = [3000] * 20
    assert fetch(str(folder), orchard.url) == FOUND
    assert len(orchard.asked) == 21


def test_retries_wait_twice_as_long_each_time(
    orchard: Orchard, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(download, "BACKOFF_SECONDS", 1.5)
    mine, sleep = threading.get_ident(), time.sleep

    def wait(seconds: float) -> None:
        # Spark and servers of other tests sleep in threads of their own.
        if threading.get_ident() == mine:
            waits.append(seconds)
        else:
            sleep(seconds)

    monkeypatch.setattr("time.sleep", wait)
    orchard.drops = [5000, 0, 0, 0, 0, 0]
    error = failing(folder, orchard.url, SetupError)
    assert waits == [1.5, 3.0, 6.0, 12.0]
    assert "5 times" in error.message
    assert "goes on from there" in error.hint


def test_a_server_that_starts_over_each_time_is_given_up(orchard: Orchard, folder: Path) -> None:
    orchard.ranges = False
    orchard.drops = [9000] * 99
    failing(folder, orchard.url, SetupError)
    assert len(orchard.asked) == 1 + download.ATTEMPTS - 1


def test_a_later_call_goes_on_with_the_download(orchard: Orchard, folder: Path) -> None:
    orchard.drops = [30_000, 0, 0, 0, 0]
    failing(folder, orchard.url, SetupError)
    assert (folder / ".download/fruits.zip.partial").stat().st_size == 30_000
    assert not files_of(folder).keys() & ENTRIES.keys()
    del orchard.asked[:]
    heard = Heard()
    assert fetch(str(folder), orchard.url, progress=heard) == FOUND
    assert orchard.starts == ["bytes=30000-"]
    assert heard.stages["download"][:2] == [len(orchard.data), 30_000]
    assert not (folder / ".download").exists()


def test_a_killed_process_is_taken_up_by_the_next(orchard: Orchard, folder: Path) -> None:
    orchard.drops, orchard.stalled = [30_000], threading.Event()
    code = f"from verger.datasets.fruits360 import fetch; fetch({str(folder)!r}, {orchard.url!r})"
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        partial = folder / ".download/fruits.zip.partial"
        while process.poll() is None and not (partial.exists() and partial.stat().st_size):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    orchard.stalled.set()
    have = partial.stat().st_size
    assert 0 < have <= 30_000
    assert fetch(str(folder), orchard.url) == FOUND
    assert orchard.starts == [None, f"bytes={have}-"]
    assert files_of(folder) == ENTRIES


def test_a_connection_that_hangs_is_made_anew(
    orchard: Orchard, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "TIMEOUT_SECONDS", 0.2)
    orchard.drops, orchard.stalled = [10_000], threading.Event()
    heard = Heard()
    assert fetch(str(folder), orchard.url, progress=heard) == FOUND
    orchard.stalled.set()
    assert orchard.starts == [None, "bytes=10000-"]
    assert "timed out" in heard.notes[0]


def test_a_file_without_etag_is_resumed_by_its_date(orchard: Orchard, folder: Path) -> None:
    orchard.etag, orchard.modified = None, "Mon, 18 May 2020 10:00:00 GMT"
    orchard.drops = [10_000]
    assert fetch(str(folder), orchard.url) == FOUND
    assert orchard.starts == [None, "bytes=10000-"]
    assert orchard.asked[1]["if-range"] == orchard.modified


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_a_file_that_cannot_be_told_from_another_is_not_resumed(
    orchard: Orchard, folder: Path, etag: str | None
) -> None:
    orchard.etag, orchard.drops = etag, [10_000]
    assert fetch(str(folder), orchard.url) == FOUND
    assert orchard.starts == [None, None]
    assert files_of(folder) == ENTRIES


@pytest.mark.parametrize("if_range", [True, False])
@pytest.mark.parametrize("field", ["etag", "modified"])
def test_a_file_that_changed_starts_over(
    orchard: Orchard, folder: Path, if_range: bool, field: str
) -> None:
    orchard.etag, orchard.if_range = None, if_range
    setattr(orchard, field, '"one"')
    orchard.drops = [10_000, 0, 0, 0, 0]
    failing(folder, orchard.url, SetupError)
    newer = {name: content[::-1] for name, content in ENTRIES.items()}
    orchard.data = zip_of(newer)
    setattr(orchard, field, '"two"')
    assert fetch(str(folder), orchard.url) == FOUND
    assert files_of(folder) == newer


def test_a_server_that_ignores_ranges_starts_over(orchard: Orchard, folder: Path) -> None:
    orchard.ranges, orchard.drops = False, [10_000]
    assert fetch(str(folder), orchard.url) == FOUND
    assert orchard.starts == [None, "bytes=10000-"]
    assert files_of(folder) == ENTRIES


@pytest.mark.parametrize("shift", [-500, 500])
def test_another_part_than_asked_for_starts_over(
    orchard: Orchard, folder: Path, shift: int
) -> None:
    orchard.shift, orchard.drops = shift, [10_000]
    assert fetch(str(folder), orchard.url) == FOUND
    assert orchard.starts == [None, "bytes=10000-", None]
    assert files_of(folder) == ENTRIES


@pytest.fixture
def downloaded(orchard: Orchard, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fetch that was interrupted between the download and the first file."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(fruits360, "_unpack", interrupt)
        with pytest.raises(KeyboardInterrupt):
            fetch(str(folder), orchard.url)


@pytest.mark.usefixtures("downloaded")
def test_a_whole_download_is_not_made_again(orchard: Orchard, folder: Path) -> None:
    assert fetch(str(folder), orchard.url) == FOUND
    assert orchard.starts == [None, f"bytes={len(orchard.data)}-"]


@pytest.mark.usefixtures("downloaded")
def test_a_whole_download_of_what_is_shorter_now_starts_over(
    orchard: Orchard, folder: Path
) -> None:
    newer = dict(list(ENTRIES.items())[:2])
    orchard.data, orchard.etag, orchard.if_range = zip_of(newer), '"two"', False
    assert fetch(str(folder), orchard.url).images == 2
    assert files_of(folder) == newer


def test_a_part_that_the_server_cannot_continue_starts_over(orchard: Orchard, folder: Path) -> None:
    orchard.drops = [30_000, 0, 0, 0, 0]
    failing(folder, orchard.url, SetupError)
    orchard.statuses = [416]
    assert fetch(str(folder), orchard.url) == FOUND
    assert orchard.starts[-2:] == ["bytes=30000-", None]


def test_a_part_that_is_longer_than_the_file_starts_over(orchard: Orchard, folder: Path) -> None:
    orchard.drops = [30_000, 0, 0, 0, 0]
    failing(folder, orchard.url, SetupError)
    with (folder / ".download/fruits.zip.partial").open("ab") as out:
        out.write(bytes(len(orchard.data)))
    assert fetch(str(folder), orchard.url) == FOUND
    assert orchard.starts[-1] is None


def test_the_part_of_another_source_is_not_continued(orchard: Orchard, folder: Path) -> None:
    orchard.drops = [30_000, 0, 0, 0, 0]
    failing(folder, orchard.url, SetupError)
    assert fetch(str(folder), orchard.url.replace("/data/", "/mirror/")) == FOUND
    assert orchard.starts[-1] is None


def test_a_server_that_says_no_length_is_read_to_the_end(orchard: Orchard, folder: Path) -> None:
    orchard.length = False
    heard = Heard()
    assert fetch(str(folder), orchard.url, progress=heard) == FOUND
    assert heard.stages["download"][0] is None


def test_a_redirect_is_followed_with_the_range(orchard: Orchard, folder: Path) -> None:
    orchard.redirect, orchard.drops = orchard.url, [10_000]
    assert fetch(str(folder), orchard.url.replace("/data/", "/old/")) == FOUND
    assert orchard.starts == [None, None, "bytes=10000-", "bytes=10000-"]


@pytest.mark.parametrize("target", ["ftp://127.0.0.1/a.zip?token=hush", "file:///etc/passwd"])
def test_a_redirect_leads_to_no_other_scheme(orchard: Orchard, folder: Path, target: str) -> None:
    orchard.redirect = target
    with pytest.raises(VergerError) as caught:
        fetch(str(folder), orchard.url.replace("/data/", "/old/"))
    assert "hush" not in str(caught.value)
    assert re.search("unknown url type: ftp|302 Found", caught.value.message)
    assert len(orchard.asked) == 1


@pytest.mark.parametrize(("code", "words"), [(404, "404 Not Found"), (403, "403 Forbidden")])
def test_a_refusal_is_told_at_once(orchard: Orchard, folder: Path, code: int, words: str) -> None:
    orchard.statuses = [code] * 9
    error = failing(folder, orchard.url, InputError)
    assert words in error.message
    assert orchard.url in error.message
    assert "--from" in error.hint
    assert len(orchard.asked) == 1


def test_an_overloaded_server_is_asked_again(orchard: Orchard, folder: Path) -> None:
    orchard.statuses = [503, 503]
    assert fetch(str(folder), orchard.url) == FOUND
    assert len(orchard.asked) == 3


def test_a_server_that_stays_overloaded_is_given_up(orchard: Orchard, folder: Path) -> None:
    orchard.statuses = [503] * 99
    error = failing(folder, orchard.url, SetupError)
    assert "503 Service Unavailable" in error.message
    assert len(orchard.asked) == download.ATTEMPTS


def test_a_refused_connection_is_told_at_once(orchard: Orchard, folder: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/a.zip"
        error = failing(folder, url, SetupError)
    assert "cannot be reached: Connection refused" in error.message


def test_an_unknown_host_of_the_published_zip_names_kaggle(
    orchard: Orchard, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr("socket.create_connection", unknown)
    monkeypatch.setenv("no_proxy", "*")
    error = failing(folder, download.PUBLISHED, SetupError)
    assert "cannot be reached: Name or service not known" in error.message
    assert "kaggle.com" in error.hint
    assert "--from" in error.hint


def test_secrets_in_urls_are_sent_and_never_shown(orchard: Orchard, folder: Path) -> None:
    secret = orchard.url.replace("http://", "http://me:pass%40word@") + "?token=hush"
    orchard.statuses = [403]
    error = failing(folder, secret, InputError)
    assert orchard.url in error.message
    orchard.drops = [10_000]
    heard = Heard()
    fetch(str(folder), secret, progress=heard)
    fetch(str(folder), secret, progress=heard)
    assert orchard.asked[-1]["authorization"] == "Basic bWU6cGFzc0B3b3Jk"
    shown = str(error) + "".join(heard.notes) + (folder / ".fetched.json").read_text()
    assert not any(word in shown for word in ("hush", "token", "me:", "pass", "bWU6"))


def test_a_password_is_not_sent_on_to_another_place(orchard: Orchard, folder: Path) -> None:
    orchard.redirect = orchard.url
    fetch(str(folder), orchard.url.replace("http://", "http://me:word@").replace("data", "old"))
    assert ["authorization" in headers for headers in orchard.asked] == [True, False]


def test_a_query_is_sent(orchard: Orchard, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths: list[str] = []
    answer = Orchard.answer
    monkeypatch.setattr(
        Orchard, "answer", lambda self, handler: (paths.append(handler.path), answer(self, handler))
    )
    fetch(str(folder), orchard.url.replace("fruits.zip", "é 1.zip?a=1&b=%20"))
    assert paths == ["/data/%C3%A9%201.zip?a=1&b=%20"]


@pytest.mark.parametrize(
    "source",
    ["ftp://host/a.zip", "s3://bucket/a.zip", "file:///a.zip", "data:,a", "http:///a.zip",
     "http://host:port/a.zip", "http://[::1/a.zip", "https:a.zip"],
)  # fmt: skip
def test_only_http_and_files_are_sources(folder: Path, source: str) -> None:
    error = failing(folder, source, UsageError)
    assert source not in error.message
    assert not folder.exists()


def test_a_source_that_is_missing_is_told(tmp_path: Path, folder: Path) -> None:
    assert "is not a file" in failing(folder, str(tmp_path / "none.zip"), InputError).message


def test_images_do_not_go_to_s3(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not on this machine"):
        fetch("s3://bucket/fruits", local(tmp_path, zip_of(ENTRIES)))


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    source = local(tmp_path, zip_of(ENTRIES))
    assert "archive.zip" in failing(Path(source) / "below", source, SetupError).message


def test_two_processes_do_not_fetch_into_one_folder(tmp_path: Path, folder: Path) -> None:
    folder.mkdir()
    with fruits360._held(folder):
        error = failing(folder, local(tmp_path, zip_of(ENTRIES)), SetupError)
    assert "Another process" in error.message


def free(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=size))


def test_a_download_that_does_not_fit_is_not_begun(
    orchard: Orchard, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    orchard.data = bytes(1_500_000)
    free(monkeypatch, 1_200_000)
    error = failing(folder, orchard.url, SetupError)
    assert error.exit_code == 5
    assert "The download needs 1.5 MB" in error.message
    assert "1.2 MB free" in error.message
    assert not files_of(folder)


def test_what_is_already_downloaded_needs_no_space(
    orchard: Orchard, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    orchard.drops = [30_000, 0, 0, 0, 0]
    failing(folder, orchard.url, SetupError)
    free(monkeypatch, len(orchard.data) - 30_001)
    assert "The download needs" in failing(folder, orchard.url, SetupError).message
    assert (folder / ".download/fruits.zip.partial").stat().st_size == 30_000
    free(monkeypatch, len(orchard.data) - 30_000)
    assert "Unpacking needs" in failing(folder, orchard.url, SetupError).message


def test_images_that_do_not_fit_are_not_unpacked(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = local(tmp_path, zip_of(ENTRIES | {"Test/Corn/9.jpg": bytes(2_000_000)}))
    free(monkeypatch, 1_999_999)
    assert "Unpacking needs 2.1 MB" in failing(folder, source, SetupError).message
    assert not files_of(folder)


def test_a_disk_that_fills_up_is_told_and_the_same_call_goes_on(
    orchard: Orchard, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copyfileobj", full)
        assert "No space left" in failing(folder, orchard.url, SetupError).message
    assert fetch(str(folder), orchard.url) == FOUND
    assert orchard.starts == [None, f"bytes={len(orchard.data)}-"]


def test_unpacking_goes_on_where_it_was_interrupted(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = local(tmp_path, zip_of(ENTRIES))
    copied = []
    copy = shutil.copyfileobj

    def interrupted(packed: io.BufferedReader, out: io.BufferedWriter, size: int) -> None:
        if len(copied) == 5:
            out.write(packed.read(100))
            raise KeyboardInterrupt
        copied.append(copy(packed, out, size))

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copyfileobj", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fetch(str(folder), source)
    rest = {name: data for name, data in files_of(folder).items() if name[0] != "."}
    assert rest == dict(list(ENTRIES.items())[:5])
    heard = Heard()
    assert fetch(str(folder), source, progress=heard) == FOUND
    assert heard.stages["unpack"] == [18, *range(6, 19)]
    assert files_of(folder) == ENTRIES


def damaged(place: bytes) -> bytes:
    """A zip in which a byte of the content of an entry is another."""
    data = bytearray(zip_of(ENTRIES, zipfile.ZIP_STORED))
    data[data.index(place) + 10] ^= 1
    return bytes(data)


def test_a_damaged_download_is_removed_and_made_again(orchard: Orchard, folder: Path) -> None:
    name, content = list(ENTRIES.items())[3]
    orchard.data = damaged(content)
    error = failing(folder, orchard.url, InputError)
    assert repr(name) in error.message
    assert "give the command again" in error.hint
    assert not (folder / ".download").exists()
    assert not (folder / name).exists()
    orchard.data = zip_of(ENTRIES)
    assert fetch(str(folder), orchard.url) == FOUND
    assert orchard.starts == [None, None]
    assert files_of(folder) == ENTRIES


def test_a_damaged_zip_of_this_machine_is_told_and_kept(tmp_path: Path, folder: Path) -> None:
    source = local(tmp_path, damaged(next(iter(ENTRIES.values()))))
    assert "is damaged" in failing(folder, source, InputError).message
    assert Path(source).exists()


def headers_with(data: bytes, offset: int, value: bytes) -> bytes:
    """A zip whose last central header has other bytes at an offset."""
    at = data.rindex(b"PK\x01\x02") + offset
    return data[:at] + value + data[at + len(value) :]


whole = zip_of({"Test/Corn/1.jpg": bytes(range(200))}, zipfile.ZIP_STORED)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<html>log in first</html>",
        whole[:-30],
        whole[len(whole) // 2 :],
        headers_with(whole, 42, struct.pack("<I", 999)),
        headers_with(whole, 24, struct.pack("<I", 300)),
        headers_with(headers_with(whole, 24, b"\x64"), 16, struct.pack("<I", zlib.crc32(b""))),
    ],
    ids=["empty", "a page", "cut", "tail", "offset", "size", "crc"],
)
def test_what_is_no_whole_zip_is_told(tmp_path: Path, folder: Path, data: bytes) -> None:
    assert "is damaged, or no zip" in failing(folder, local(tmp_path, data), InputError).message
    assert not (folder / ".fetched.json").exists()
    assert not (folder / "Test/Corn/1.jpg").exists()


def entry(name: str, mode: int = 0) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("placeholder")
    info.filename = name
    info.external_attr = mode << 16
    return info


@pytest.mark.parametrize(
    ("name", "mode", "words"),
    [
        ("/etc/passwd", 0, "leaves the folder"),
        ("../a.jpg", 0, "leaves the folder"),
        ("Test/../../a.jpg", 0, "leaves the folder"),
        ("Test/..", 0, "leaves the folder"),
        ("..\\a.jpg", 0, "leaves the folder"),
        ("\\\\server\\share\\a.jpg", 0, "leaves the folder"),
        ("Test\\..\\..\\a.jpg", 0, "leaves the folder"),
        (".download\\a", 0, "keeps for itself"),
        ("C:/a.jpg", 0, "leaves the folder"),
        ("c:a.jpg", 0, "leaves the folder"),
        ("a.jpg\0.txt", 0, "leaves the folder"),
        ("Test/a.jpg", stat.S_IFLNK | 0o777, "symlink"),
        ("Test/pipe.jpg", stat.S_IFIFO | 0o666, "device"),
        (".fetched.json", 0, "keeps for itself"),
        ("./.download/a", 0, "keeps for itself"),
    ],
)
def test_an_unsafe_entry_refuses_the_whole_archive(
    tmp_path: Path, folder: Path, name: str, mode: int, words: str
) -> None:
    data = zip_of({**ENTRIES, entry(name, mode): b"/etc"})
    error = failing(folder, local(tmp_path, data), InputError)
    assert words in error.message
    assert repr(name) in error.message
    assert not files_of(folder)
    assert not (tmp_path / "a.jpg").exists()


def test_an_encrypted_entry_refuses_the_whole_archive(tmp_path: Path, folder: Path) -> None:
    data = headers_with(zip_of(ENTRIES), 8, b"\x01\x00")
    error = failing(folder, local(tmp_path, data), InputError)
    assert f"{list(ENTRIES)[-1]!r} is encrypted" in error.message
    assert not files_of(folder)


def test_an_entry_packed_by_an_unusual_method_refuses_the_whole_archive(
    tmp_path: Path, folder: Path
) -> None:
    source = local(tmp_path, headers_with(zip_of(ENTRIES), 10, b"\x09\x00"))  # Deflate64
    assert "unusual method" in failing(folder, source, InputError).message


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_bzip2_and_lzma_are_unpacked_and_their_damage_is_told(
    tmp_path: Path, folder: Path, method: int
) -> None:
    data = zip_of(ENTRIES, method)
    first = data.index(next(iter(ENTRIES)).encode()) + 200
    damaged = data[:first] + bytes(400) + data[first + 400 :]
    assert "is damaged" in failing(folder, local(tmp_path, damaged), InputError).message
    assert fetch(str(folder), local(tmp_path, data)) == FOUND
    assert files_of(folder) == ENTRIES


def test_backslashes_separate_folders(tmp_path: Path, folder: Path) -> None:
    data = zip_of({entry(name.replace("/", "\\")): body for name, body in ENTRIES.items()})
    data_with_folder = zip_of({entry("Test\\Empty\\"): b""})
    assert fetch(str(folder), local(tmp_path, data)) == FOUND
    assert files_of(folder) == ENTRIES
    failing(tmp_path / "other", local(tmp_path, data_with_folder), InputError)


KINDS = [
    "P\u00eache",
    "Ananas \u00c9t\u00e9",
    "\u00c7\u00e0",
    "M\u00fbre",
    "No\u00ebl d'A\u00fdr\u00f5",
    "Corn",
]
WRITTEN = {
    "UTF-8 with its flag": lambda name: name,
    "UTF-8 without": lambda name: name.encode().decode("cp437"),
    "UTF-8 of macOS": lambda name: unicodedata.normalize("NFD", name).encode().decode("cp437"),
    "code page 437": lambda name: name.replace("A\u00fdr\u00f5", "agr\u00fc"),
    "code page 850": lambda name: name.encode("cp850").decode("cp437"),
    "code page 1252": lambda name: name.encode("cp1252").decode("cp437"),
}


class Plain(zipfile.ZipInfo):
    """An entry whose name is written as it is, without the flag of UTF-8."""

    def _encodeFilenameFlags(self) -> tuple[bytes, int]:  # noqa: N802 - zipfile's name
        return self.filename.encode("cp437"), self.flag_bits


@pytest.mark.parametrize("page", WRITTEN)
def test_names_come_out_as_they_were_written(tmp_path: Path, folder: Path, page: str) -> None:
    flagged = page == "UTF-8 with its flag"
    kinds = [WRITTEN[page](kind) for kind in KINDS]
    wanted = {
        kind if page == "code page 437" else name for kind, name in zip(kinds, KINDS, strict=True)
    }
    names = [f"Test/{kind}/1.jpg" for kind in kinds]
    entries = {(zipfile.ZipInfo if flagged else Plain)(name): b"x" * 50 for name in names}
    fetch(str(folder), local(tmp_path, zip_of(entries, zipfile.ZIP_STORED)))
    assert {path.parent.name for path in folder.rglob("*.jpg")} == wanted


def test_the_name_that_info_zip_adds_in_utf_8_counts(tmp_path: Path, folder: Path) -> None:
    named = {}
    for raw, truth in ((b"P\x88che", "P\u00eache"), (b"?", "\u6843")):
        info = Plain(f"Test/{raw.decode('cp437')}/1.jpg")
        body = b"\1" + struct.pack("<I", zlib.crc32(b"Test/" + raw + b"/1.jpg"))
        body += f"Test/{truth}/1.jpg".encode()
        info.extra = struct.pack("<HH", 0x7075, len(body)) + body
        named[info] = b"x" * 50
    fetch(str(folder), local(tmp_path, zip_of(named, zipfile.ZIP_STORED)))
    assert {path.parent.name for path in folder.rglob("*.jpg")} == {"P\u00eache", "\u6843"}


def test_another_archive_over_an_old_one_is_refused_and_the_same_elsewhere_is_not(
    tmp_path: Path, folder: Path
) -> None:
    source = local(tmp_path, zip_of(ENTRIES))
    fetch(str(folder), source)
    moved = Path(source).rename(tmp_path / "moved.zip")
    assert fetch(str(folder), str(moved)) == FOUND
    other = local(tmp_path, zip_of(dict(list(ENTRIES.items())[:2])))
    error = failing(folder, other, UsageError)
    assert "nothing of it was unpacked" in error.message
    assert "--fresh" in error.hint
    assert fetch(str(folder), other, fresh=True).images == 2


def test_a_zip_bomb_is_refused(orchard: Orchard, folder: Path) -> None:
    orchard.data = zip_of({"Test/Corn/1.jpg": b"x", "Test/Corn/2.jpg": bytes(10**6)})
    error = failing(folder, orchard.url, InputError)
    assert "'Test/Corn/2.jpg'" in error.message
    assert "zip bomb" in error.message
    assert not files_of(folder)


def test_more_than_the_limit_is_refused_at_any_ratio(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = local(tmp_path, zip_of(ENTRIES))
    monkeypatch.setattr(archives, "MAX_BYTES", 18 * 4000 - 1)
    assert "zip bomb" in failing(folder, source, InputError).message
    monkeypatch.setattr(archives, "MAX_BYTES", 18 * 4000)
    assert fetch(str(folder), source) == FOUND


def test_entries_that_share_their_bytes_are_seen_as_a_bomb(tmp_path: Path, folder: Path) -> None:
    data = zip_of({"Test/a/1.jpg": bytes(150_000) + RANDOM.bytes(1000)})
    at = data.index(b"PK\x01\x02")
    end = data.rindex(b"PK\x05\x06")
    central = data[at:end] * 50
    counts = struct.pack("<HHII", 50, 50, len(central), at)
    source = local(tmp_path, data[:at] + central + data[end : end + 8] + counts + b"\0\0")
    assert len(zipfile.ZipFile(source).infolist()) == 50
    assert "zip bomb" in failing(folder, source, InputError).message


def test_an_archive_without_images_is_refused(tmp_path: Path, folder: Path) -> None:
    source = local(tmp_path, zip_of({"Test/readme.md": b"none"}))
    assert "no image" in failing(folder, source, InputError).message


def test_what_macos_adds_is_left_out(tmp_path: Path, folder: Path) -> None:
    rest = {"__MACOSX/Test/._1.jpg": b"x", "Test/.DS_Store": b"x", "Test/Corn/": b""}
    assert fetch(str(folder), local(tmp_path, zip_of(ENTRIES | rest))) == FOUND
    assert files_of(folder) == ENTRIES


def test_an_archive_in_the_archive_is_named_and_stays_packed(tmp_path: Path, folder: Path) -> None:
    inner = {"fruits-360_dataset.zip": zip_of(ENTRIES)}
    heard = Heard()
    found = fetch(str(folder), local(tmp_path, zip_of(ENTRIES | inner)), progress=heard)
    assert found == FOUND
    assert any("'fruits-360_dataset.zip'" in note for note in heard.notes)
    assert files_of(folder) == ENTRIES | inner
    only = fetch(str(folder / "only"), local(tmp_path, zip_of(inner)))
    assert only.release == "an unknown release with 0 images in 0 classes"


@pytest.mark.parametrize(("counts", "name"), fruits360.RELEASES.items())
def test_a_release_is_known_by_its_counts(counts: tuple[int, int], name: str) -> None:
    images, classes = counts
    names = (f"Training/{number % classes}/{number}.jpg" for number in range(images))
    found = fruits360._describe(names)
    words = f"{name} with {images:,} images in {classes:,} classes"
    assert found == Fetched(images, classes, words, ("Training",))


def test_each_data_set_of_an_archive_is_named(tmp_path: Path, folder: Path) -> None:
    small, large = "all/fruits-360_dataset/fruits-360", "all/fruits-360-original-size"
    names = [
        *(f"{small}/{name}" for name in ENTRIES),
        f"{small}/test-multiple_fruits/apples.jpg",
        f"{small}/readme.md",
        *(f"{large}/{split}/apple_6/{n}.JPG" for split in ("Test", "Validation") for n in (1, 2)),
    ]
    found = fetch(str(folder), local(tmp_path, zip_of(dict.fromkeys(names, b"x"))))
    assert found == Fetched(
        23,
        4,
        f"an unknown release with 19 images in 3 classes in {small}; "
        f"an unknown release with 4 images in 1 classes in {large}",
        tuple(sorted([f"{small}/Test", f"{small}/Training", f"{small}/test-multiple_fruits",
                      f"{large}/Test", f"{large}/Validation"])),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("names", "classes", "folders"),
    [
        (["Apple/1.jpg", "Corn/2.png", "Corn/3.txt"], 2, (".",)),
        (["fruits/Apple/1.jpg", "fruits/Corn/1.jpeg"], 2, ("fruits",)),
        (["1.jpg", "Corn/1.jpg"], 1, (".",)),
        (
            ["Training/Apple/Apple Red 1/1.jpg", "Training/Apple/Apple Red 2/2.jpg"],
            2,
            ("Training",),
        ),
    ],
)
def test_classes_are_the_folders_that_hold_images(
    names: list[str], classes: int, folders: tuple[str, ...]
) -> None:
    found = fruits360._describe(names)
    assert (found.images, found.classes, found.folders) == (2, classes, folders)


def test_the_command_says_what_it_got_and_whose_it_is(orchard: Orchard, folder: Path) -> None:
    app = typer.Typer()
    app.command()(command.fetch)
    done = CliRunner().invoke(app, ["fruits-360", str(folder), "--from", orchard.url])
    assert done.exit_code == 0, done.output
    assert "an unknown release with 18 images in 3 classes" in done.stdout
    assert "Test, Training" in done.stdout
    assert "Fruits-360, Mihai Oltean, CC BY-SA 4.0" in done.stdout
    again = ["fruits-360", str(folder), "--from", orchard.url, "--fresh"]
    assert CliRunner().invoke(app, again).exit_code == 0
    assert len(orchard.asked) == 2


def test_the_command_takes_the_published_zip_if_none_is_given(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = []
    monkeypatch.setattr(fruits360, "fetch", lambda *given, **_: taken.append(given) or FOUND)
    command.fetch("fruits-360", str(folder))
    assert taken == [(str(folder), download.PUBLISHED)]


def test_another_data_set_is_a_wrong_option(folder: Path) -> None:
    done = CliRunner().invoke(commands, ["fetch", "fruits-262", str(folder)])
    assert done.exit_code == 2
    assert "no data set 'fruits-262'" in done.stderr
