"""Files are written whole, read up to a limit, listed by name and deleted with what is below."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from verger.store import storage
from verger.store.location import Location


@pytest.fixture
def folder(tmp_path: Path) -> Location:
    return Location.parse(str(tmp_path))


def test_a_file_is_written_into_folders_that_are_made_and_replaced(folder: Location) -> None:
    file = folder.child("a/b/file")
    for data in (b"old", b"", b"new content"):
        storage.write_bytes(file, data)
        assert storage.read_bytes(file) == data
    assert storage.names(folder.child("a/b")) == ["file"]


def test_a_written_file_can_be_read_by_others(folder: Location) -> None:
    storage.write_bytes(folder.child("file"), b"x")
    assert Path(folder.path, "file").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("failing", ["os.fsync", "pathlib.Path.replace"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_write_keeps_the_old_file_and_leaves_no_rest(
    folder: Location, monkeypatch: pytest.MonkeyPatch, failing: str, error: BaseException
) -> None:
    file = folder.child("file")
    storage.write_bytes(file, b"old")

    def fail(*_: object) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(failing, fail)
        with pytest.raises(type(error)):
            storage.write_bytes(file, b"new")
    assert storage.read_bytes(file) == b"old"
    assert storage.names(folder) == ["file"]


def test_processes_that_write_one_file_at_once_all_succeed(folder: Location) -> None:
    file, contents = folder.child("file"), [bytes([65 + n]) * 200_000 for n in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda data: storage.write_bytes(file, data), contents * 8))
    assert storage.read_bytes(file) in contents
    assert storage.names(folder) == ["file"]


def test_what_a_killed_process_left_goes_in_time(folder: Location) -> None:
    old, new = (Path(folder.path, f".f[1].{name}.partial") for name in ("old", "new"))
    for part in (old, new):
        part.write_bytes(b"half")
    os.utime(old, (0, 0))
    storage.write_bytes(folder.child("f[1]"), b"whole")
    assert storage.names(folder) == [".f[1].new.partial", "f[1]"]


@pytest.mark.parametrize(
    ("limit", "data"), [(None, b"0123456789"), (0, b""), (4, b"0123"), (99, b"0123456789")]
)
def test_reading_stops_at_the_limit(folder: Location, limit: int | None, data: bytes) -> None:
    file = folder.child("file")
    storage.write_bytes(file, b"0123456789")
    assert storage.read_bytes(file, limit) == data


def test_a_missing_file_cannot_be_read(folder: Location) -> None:
    with pytest.raises(FileNotFoundError):
        storage.read_bytes(folder.child("missing"))


def test_names_are_sorted_and_of_the_folder_itself(folder: Location) -> None:
    for name in ("b", "a/below", "é %#,", ".hidden"):
        storage.write_bytes(folder.child(name), b"")
    assert storage.names(folder) == [".hidden", "a", "b", "é %#,"]
    assert storage.names(folder.child("missing")) == []


def test_files_and_folders_are_told_apart(folder: Location) -> None:
    storage.write_bytes(folder.child("a/file"), b"")
    found = [
        (storage.exists(folder.child(path)), storage.is_folder(folder.child(path)))
        for path in ("a", "a/file", "b")
    ]
    assert found == [(True, True), (True, False), (False, False)]


def test_a_folder_is_deleted_with_what_is_below_and_nothing_beside_it(folder: Location) -> None:
    for path in ("a/file", "a/b/file", "ab/file"):
        storage.write_bytes(folder.child(path), b"")
    storage.delete(folder.child("a"))
    assert storage.names(folder) == ["ab"]


def test_a_file_is_deleted_and_a_missing_one_ignored(folder: Location) -> None:
    storage.write_bytes(folder.child("file"), b"")
    storage.delete(folder.child("file"))
    storage.delete(folder.child("file"))
    assert storage.names(folder) == []


def test_deleting_a_folder_spares_what_its_links_point_to(folder: Location) -> None:
    storage.write_bytes(folder.child("kept/file"), b"")
    storage.write_bytes(folder.child("a/file"), b"")
    os.symlink(folder.child("kept").path, folder.child("a/link").path)  # noqa: PTH211
    storage.delete(folder.child("a"))
    assert storage.names(folder.child("kept")) == ["file"]
