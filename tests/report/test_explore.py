"""The interactive map: what its viewer is given, how it starts and ends, and the real one."""

import io
import json
import shutil
import socket
import sys
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pyarrow.parquet as pq
import pytest
from PIL import Image

from helpers import verger
from outputs import colour, make_output
from verger.errors import InputError, SetupError
from verger.output.layout import Output
from verger.progress import Progress
from verger.report import explorer

SERVER = """#!{python}
import sys
from http.server import HTTPServer, SimpleHTTPRequestHandler
options = dict(zip(sys.argv[2::2], sys.argv[3::2]))
HTTPServer((options["--host"], int(options["--port"])), SimpleHTTPRequestHandler).serve_forever()
"""

DEAF = SERVER.replace(
    "import sys", "import signal, sys\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)"
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/verger"


@pytest.fixture
def output(tmp_path: Path) -> Output:
    return make_output(tmp_path, ["pear"] * 3 + ["plum"] * 3)


def script(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text.replace("{python}", sys.executable))
    file.chmod(0o755)
    return file


def test_the_viewer_gets_every_image_with_its_own_picture(output: Output) -> None:
    rows = pq.read_table(explorer.make_table(output, Progress())).to_pylist()
    assert [row["path"] for row in rows[:2]] == ["pear/0.png", "pear/1.png"]
    assert {row["label"] for row in rows} == {"pear", "plum"}
    assert all({"pc_1", "pc_2"} <= row.keys() for row in rows)
    for number, row in enumerate(rows):
        with Image.open(io.BytesIO(row["picture"]["bytes"])) as picture:
            assert picture.size == (40, 30), "shrunk if need be, never squeezed"
            seen = picture.convert("RGB").getpixel((20, 15))
        assert max(abs(a - b) for a, b in zip(seen, colour(number), strict=True)) < 25


def test_images_that_have_gone_have_no_picture(output: Output, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "in/plum")
    rows = pq.read_table(explorer.make_table(output, Progress())).to_pylist()
    assert [row["picture"] is None for row in rows] == [False] * 3 + [True] * 3


def test_many_images_are_looked_up_at_once(output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    look_up = explorer.find_images

    def find_images(where: Output, paths: set[str], **options: bool) -> object:
        asked.append(len(paths))
        return look_up(where, paths, **options)

    monkeypatch.setattr(explorer, "find_images", find_images)
    monkeypatch.setattr("verger.report.scores.BATCH_ROWS", 1)
    monkeypatch.setattr(explorer, "LOOKED_UP", 4)
    rows = pq.read_table(explorer.make_table(output, Progress())).to_pylist()
    assert asked == [4, 2]
    assert len({row["path"] for row in rows}) == 6
    assert all(row["picture"] for row in rows)


def test_a_single_component_lies_on_a_line(tmp_path: Path) -> None:
    output = make_output(tmp_path, ["a", "b"], components=1)
    assert pq.read_table(explorer.make_table(output, Progress()))["pc_2"].to_pylist() == [0, 0]


def test_the_table_is_made_once_for_an_output_and_again_after_another_run(output: Output) -> None:
    first = explorer.make_table(output, Progress())
    made = first.stat().st_mtime_ns
    assert explorer.make_table(output, Progress()).stat().st_mtime_ns == made
    manifest = Path(output.manifest.path)
    manifest.write_text(manifest.read_text().replace("2026-01-01", "2026-01-02"))
    again = explorer.make_table(output, Progress())
    assert [*again.parent.glob("*.parquet")] == [again], "nothing of the run before is left"
    assert again != first


def test_an_output_without_pca_is_refused(output: Output) -> None:
    shutil.rmtree(output.pca.path)
    with pytest.raises(InputError, match="no PCA"):
        explorer.make_table(output, Progress())


def test_what_is_no_output_is_refused_by_the_command(tmp_path: Path) -> None:
    done = verger("explore", tmp_path)
    assert done.returncode == 3
    assert "not an output" in done.stderr


def test_the_viewer_answers_on_loopback_and_ends_with_the_block(tmp_path: Path) -> None:
    viewer, table = script(tmp_path / "viewer", SERVER), tmp_path / "table.parquet"
    with explorer.serving(viewer, table, 0, Progress()) as (address, _):
        assert address.startswith("http://127.0.0.1:")
        with urlopen(address) as answer:
            assert answer.status == 200
    with pytest.raises(URLError):
        urlopen(address)


def test_the_viewer_is_not_mistaken_for_what_has_its_port(tmp_path: Path) -> None:
    viewer, table = script(tmp_path / "viewer", SERVER), tmp_path / "table.parquet"
    with (
        socket.create_server(("127.0.0.1", 0)) as other,
        pytest.raises(SetupError, match="cannot listen"),
        explorer.serving(viewer, table, other.getsockname()[1], Progress()),
    ):
        pytest.fail("it was taken to run")


def test_a_proxy_does_not_hide_the_viewer(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setattr(explorer, "START_SECONDS", 20.0)
    viewer, table = script(tmp_path / "viewer", SERVER), tmp_path / "table.parquet"
    with explorer.serving(viewer, table, 0, Progress()):
        pass


def test_a_viewer_that_does_not_want_to_end_is_killed(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(explorer, "END_SECONDS", 0.1)
    viewer, table = script(tmp_path / "viewer", DEAF), tmp_path / "table.parquet"
    with explorer.serving(viewer, table, 0, Progress()) as (address, _), urlopen(address):
        pass
    with pytest.raises(URLError):
        urlopen(address)


def test_a_viewer_is_gone_though_ctrl_c_is_pressed_again(tmp_path: Path, monkeypatch) -> None:
    def press(*_: object) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    viewer, table = script(tmp_path / "viewer", DEAF), tmp_path / "table.parquet"
    with (
        pytest.raises(KeyboardInterrupt),
        explorer.serving(viewer, table, 0, Progress()) as (address, _),
        urlopen(address),
    ):
        monkeypatch.setattr(explorer.subprocess.Popen, "wait", press)
    with pytest.raises(URLError):
        urlopen(address)


def test_a_viewer_that_ends_is_said_with_its_last_words(tmp_path: Path) -> None:
    viewer = script(tmp_path / "viewer", "#!/bin/sh\necho no such column >&2\nexit 1\n")
    with (
        pytest.raises(SetupError, match="no such column"),
        explorer.serving(viewer, tmp_path / "table.parquet", 0, Progress()),
    ):
        pytest.fail("it was taken to run")


def test_a_viewer_that_ends_later_is_said_too(tmp_path: Path) -> None:
    once = SERVER.replace("serve_forever", "handle_request")
    assert once != SERVER
    viewer, table = script(tmp_path / "viewer", once), tmp_path / "table.parquet"
    with (
        pytest.raises(SetupError, match="The viewer ended"),
        explorer.serving(viewer, table, 0, Progress()) as (_, wait),
    ):
        wait()


def test_an_installation_that_fails_is_made_anew_the_next_time(cache: Path, monkeypatch) -> None:
    def create(home: Path, **options: object) -> None:
        words = "#!/bin/sh\necho 'Collecting a'\necho 'no matching distribution'\nexit 1\n"
        script(home / "bin/python", words)

    monkeypatch.setattr(explorer.venv, "create", create)
    for _ in range(2):
        with pytest.raises(SetupError, match="no matching distribution"):
            explorer.install(Progress())
    assert not list(cache.glob("explorer-*/ready"))


def test_every_package_of_the_viewer_is_pinned_with_its_hash() -> None:
    pins = (Path(explorer.__file__).parent / explorer.REQUIREMENTS).read_text()
    packages = pins.replace("\\\n", " ").splitlines()
    lines = [line for line in packages if line.strip() and not line.startswith("#")]
    assert any(line.startswith("embedding-atlas==") for line in lines)
    assert all("==" in line and "--hash=sha256:" in line for line in lines)


@pytest.mark.slow
def test_the_real_viewer_has_every_row(output: Output) -> None:
    table = explorer.make_table(output, Progress())
    viewer = explorer.install(Progress())
    installed = (viewer.parents[1] / "pip.log").stat().st_mtime_ns
    assert explorer.install(Progress()) == viewer
    assert (viewer.parents[1] / "pip.log").stat().st_mtime_ns == installed, "not twice"
    with explorer.serving(viewer, table, 0, Progress()) as (address, _):
        with urlopen(f"{address}data/metadata.json") as answer:
            props = json.loads(answer.read())["props"]
        with urlopen(f"{address}data/dataset.parquet") as answer:
            rows = pq.read_table(io.BytesIO(answer.read()))
    assert "pc_1" in json.dumps(props)
    assert rows.num_rows == 6
