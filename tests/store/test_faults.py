"""A store on a bad day: throttled, cut off, expired, and objects that vanish or change."""

import json
import os
import shutil
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from faults import EXPIRED, LOST_ANSWER, RESET, SLOW_DOWN, VANISHED, Fault, faulty
from helpers import assert_same_features, features_of, go, rejected_of, verger
from stores import aws_env, aws_settings, make_bucket, make_client, moto_server, upload
from verger.errors import SetupError
from verger.images.decoding import Rules
from verger.images.loading import Loader
from verger.images.views import to_views
from verger.output.layout import FILES_SCHEMA, DataFile, ListedImage
from verger.output.table import Table
from verger.spark.extraction import Extractor
from verger.store import client, storage
from verger.store.location import Location

FOLDER = Location("s3://plays/in")
PLACE = Location("s3://plays/a b/files")
PHOTO = ListedImage(path="Cherry/r_0_100.jpg", label="Cherry", size=5000, etag="x")


@pytest.fixture(scope="module")
def port(orchard: Path) -> Iterator[int]:
    """A store with the orchard in `in/`."""
    with moto_server() as port:
        upload(orchard, port, make_bucket(port, "plays"), "in")
        yield port


def loader() -> Loader:
    return Loader(FOLDER, to_views(224, 1), 10**8, Rules())


@pytest.mark.parametrize("fault", [SLOW_DOWN, RESET], ids=["SlowDown", "reset"])
def test_a_read_is_tried_again(port: int, orchard: Path, monkeypatch, fault: Fault) -> None:
    asked: Counter[str] = Counter()

    def bad_at_first(method: str, path: str) -> Fault | None:
        asked[path] += 1
        return fault if path.endswith(PHOTO.path) and asked[path] <= 4 else None

    with faulty(port, bad_at_first) as bad, aws_settings(bad, monkeypatch):
        assert loader().read(PHOTO) == (orchard / PHOTO.path).read_bytes()


def test_an_object_that_has_vanished_is_unreadable(port: int, monkeypatch) -> None:
    def gone(method: str, path: str) -> Fault | None:
        return VANISHED if path.endswith(PHOTO.path) else None

    with faulty(port, gone) as bad, aws_settings(bad, monkeypatch):
        outcome = loader()(PHOTO)
    assert outcome.reason == "unreadable"
    assert "FileNotFoundError" in outcome.detail


def test_credentials_that_expire_are_no_fault_of_an_image(port: int, monkeypatch) -> None:
    answers: list[Fault | None] = [None]
    with faulty(port, lambda *_: answers[0]) as bad, aws_settings(bad, monkeypatch):
        assert isinstance(loader().read(PHOTO), bytes)
        answers[0] = EXPIRED
        with pytest.raises(SetupError, match="have expired"):
            loader()(PHOTO)


def test_a_store_that_throttles_answers(port: int, monkeypatch) -> None:
    with faulty(port, lambda *_: SLOW_DOWN) as bad, aws_settings(bad, monkeypatch):
        storage.check_reachable(FOLDER.child(PHOTO.path))


def test_a_store_that_swallows_what_it_is_asked_is_no_fault_of_an_image(monkeypatch) -> None:
    monkeypatch.setattr(client, "SOON_SECONDS", 0.5)
    extractor = Extractor(loader(), None, 1, 1.0, None, None)
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        aws_settings(silent.getsockname()[1], monkeypatch),
        pytest.raises(SetupError, match="does not answer"),
    ):
        list(extractor._load_carefully([PHOTO]))


@pytest.mark.slow
def test_a_run_on_a_bad_day_loses_nothing_and_the_next_one_mends_it(
    port: int, orchard: Path, tmp_path: Path
) -> None:
    asked: Counter[str] = Counter()
    photos = sorted(orchard.glob("*/*.jpg"))
    keys = [f"in/{photo.parent.name}/{photo.name}" for photo in photos]
    gone, changed = keys[3], keys[12]

    def bad(method: str, path: str) -> Fault | None:
        key = path.removeprefix("/plays/")
        asked[key] += 1
        if key == gone:
            return VANISHED
        if key == changed and asked[key] == 1:
            # Between its listing and its reading, another picture was put there.
            make_client(port).upload_file(str(photos[0]), "plays", changed)
        return SLOW_DOWN if key in keys[::5] and asked[key] <= 3 else None

    arguments = ("run", FOLDER, tmp_path / "out", "--max-rejected", "10%", "--json")
    with faulty(port, bad) as proxy:
        counts = json.loads(verger(*arguments, env=environment(proxy)).stdout)["counts"]
    assert (counts["listed"], counts["featurized"], counts["rejected"]) == (24, 23, 1)
    assert list(rejected_of(tmp_path / "out").values()) == ["unreadable"]

    again = verger(*arguments, "--retry-rejected", env=environment(port))
    counts = json.loads(again.stdout)["counts"]
    assert (counts["featurized"], counts["reused"], counts["rejected"]) == (2, 22, 0)
    shutil.copytree(orchard, tmp_path / "images")
    shutil.copy(photos[0], tmp_path / "images" / photos[12].relative_to(orchard))
    go(tmp_path / "images", tmp_path / "local")
    assert_same_features(tmp_path / "out", tmp_path / "local")
    assert len(features_of(tmp_path / "out")) == 24


@pytest.fixture
def table(port: int, monkeypatch) -> Iterator[Table]:
    """A table on the store with one commit."""
    with aws_settings(port, monkeypatch):
        storage.delete(PLACE)
        made = open_table()
        made.create({"precision": "f32"})
        made.commit([file_of("first")], [])
        yield made


def open_table() -> Table:
    return Table(PLACE, FILES_SCHEMA, partition="outcome")


def file_of(name: str) -> DataFile:
    return DataFile(f"outcome=featurized/{name}.parquet", 1, 1, "featurized")


def names_of(port: int, monkeypatch) -> list[str]:
    with aws_settings(port, monkeypatch):
        return [Path(file.name).stem for file in open_table().files()]


@pytest.mark.parametrize("fault", [SLOW_DOWN, RESET, LOST_ANSWER], ids=["503", "cut", "lost"])
def test_a_commit_on_a_bad_day_is_there_once(
    table: Table, port: int, monkeypatch, fault: Fault
) -> None:
    puts: list[str] = []

    def bad_at_first(method: str, path: str) -> Fault | None:
        if method != "PUT" or "_delta_log" not in path:
            return None
        puts.append(path)
        return fault if len(puts) == 1 else None

    with faulty(port, bad_at_first) as bad, aws_settings(bad, monkeypatch):
        table.commit([file_of("second")], [])
        table.commit([file_of("third")], [])
    assert len(puts) >= 3
    assert names_of(port, monkeypatch) == ["first", "second", "third"]


def test_of_two_drivers_that_believe_to_hold_the_lease_one_commits(
    table: Table, port: int, monkeypatch
) -> None:
    with aws_settings(port, monkeypatch):
        other = open_table()
    holding = threading.Barrier(2)

    def wait_for_both(method: str, path: str) -> Fault | None:
        # Both have read the same version, and write the next one at the same moment.
        if method == "PUT" and path.endswith(f"{table.version + 1:020}.json"):
            with suppress(threading.BrokenBarrierError):
                holding.wait(10)
        return None

    def commit(name: str, of: Table) -> str:
        try:
            of.commit([file_of(name)], [])
        except SetupError as error:
            return error.message
        return "won"

    with (
        faulty(port, wait_for_both) as proxy,
        aws_settings(proxy, monkeypatch),
        ThreadPoolExecutor(2) as both,
    ):
        ends = both.map(commit, ("second", "third"), (table, other))
        told, won = sorted(ends)
    assert won == "won"
    assert told.startswith("Another process has changed the table")
    assert len(names_of(port, monkeypatch)) == 2


def test_credentials_that_expire_before_a_commit_end_the_run(
    table: Table, port: int, monkeypatch
) -> None:
    with faulty(port, lambda *_: EXPIRED) as bad, aws_settings(bad, monkeypatch):
        with pytest.raises(SetupError) as raised:
            table.commit([file_of("second")], [])
        assert "expired" in f"{raised.value.message} {raised.value.hint}".lower()
    assert names_of(port, monkeypatch) == ["first"]


def environment(port: int) -> dict[str, str]:
    return {**os.environ, **aws_env(port)}
