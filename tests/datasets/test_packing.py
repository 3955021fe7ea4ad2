"""Images into shards: every file once, in order, with bounded memory, whatever interrupts it."""

import errno
import fcntl
import hashlib
import io
import json
import os
import shutil
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from pictures import encoded
from stores import aws_settings, make_bucket, moto_server
from verger.cli.pack import pack as command
from verger.datasets import archives, fruits360, packing
from verger.datasets.fruits360 import find_credit
from verger.datasets.packing import pack, requests_saved
from verger.errors import InputError, SetupError, UsageError
from verger.images import loading
from verger.images.decoding import at_full_size, decode
from verger.images.listing import list_input
from verger.output.layout import ListedImage, Rejection
from verger.packs import format as packed_format
from verger.packs import reading
from verger.packs.format import SCHEMA, Pack, Shard, read_pack, read_tag
from verger.packs.reading import PackedAt, in_order, read_packed, sort_key
from verger.store import objects
from verger.store.location import Location
from verger.store.lock import Lease

SERIAL = "SERIAL-12345"


def photo(seed: int, side: int = 40) -> bytes:
    """A JPEG with a serial number, turned by EXIF."""
    exif = Image.Exif()
    exif[274] = 1 + seed % 8
    exif[271] = SERIAL
    noise = np.random.default_rng(seed).integers(0, 256, (side, side + 7, 3), np.uint8)
    return encoded(Image.fromarray(noise), "JPEG", exif=exif)


def put(folder: Path, name: str, data: bytes) -> None:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """20 photographs of two kinds."""
    folder = tmp_path / "in"
    for number in range(20):
        put(folder, f"kind {number % 2}/{number:02}.jpg", photo(number))
    return folder


def seen(data: bytes) -> np.ndarray | Rejection:
    result = decode(data, at_full_size)
    return result if isinstance(result, Rejection) else result.pixels


def go(source: Path, target: Path, **options: Any) -> Pack:
    return pack(Location.parse(str(source)), Location.parse(str(target)), **options)


def rows_of(target: Path) -> list[dict[str, Any]]:
    """All rows, in the order of the shards."""
    packed = read_pack(Location.parse(str(target)))
    assert packed is not None
    assert sorted(path.name for path in target.glob("*.parquet")) == [
        shard.name for shard in packed.shards
    ]
    return [
        row for shard in packed.shards for row in pq.read_table(target / shard.name).to_pylist()
    ]


def assert_whole(source: Path, target: Path) -> None:
    """Every file of the source is there once, as it is now."""
    rows = rows_of(target)
    files = [path for path in source.rglob("*") if path.is_file()]
    assert sorted(row["path"] for row in rows) == sorted(
        path.relative_to(source).as_posix() for path in files
    )
    for row in rows:
        size = (source / row["path"]).stat().st_size
        assert row["source_size"] == size
        if row["reason"] != "unreadable":
            assert row["source_tag"] == read_tag(source / row["path"], size)
    packed = read_pack(Location.parse(str(target)))
    assert packed is not None
    assert packed.status == "complete"
    assert packed.images == len(rows) == sum(shard.images for shard in packed.shards)
    assert packed.bytes_after == sum(row["size"] for row in rows)
    assert packed.bytes_after == sum(shard.bytes for shard in packed.shards)


def test_images_come_back_with_their_pixels_and_without_their_metadata(
    source: Path, tmp_path: Path
) -> None:
    packed = go(source, tmp_path / "out", shard_bytes=10_000)
    assert_whole(source, tmp_path / "out")
    assert (packed.images, packed.refused, packed.label_from) == (20, {}, "parent")
    assert packed.bytes_before == sum(path.stat().st_size for path in source.rglob("*.jpg"))
    assert len(packed.shards) > 1
    for row in rows_of(tmp_path / "out"):
        original = (source / row["path"]).read_bytes()
        np.testing.assert_array_equal(seen(row["bytes"]), seen(original))
        assert SERIAL.encode() in original
        assert SERIAL.encode() not in row["bytes"]
        assert row["size"] == len(row["bytes"])
        assert row["sha256"] == hashlib.sha256(row["bytes"]).hexdigest()
        assert row["label"] == Path(row["path"]).parent.name
        assert row["reason"] is row["detail"] is None
    for shard in packed.shards:
        file = pq.ParquetFile(tmp_path / "out" / shard.name)
        assert file.schema_arrow.equals(SCHEMA)
        assert {file.metadata.row_group(0).column(2).compression} == {"UNCOMPRESSED"}
        assert SERIAL.encode() not in (tmp_path / "out" / shard.name).read_bytes()


@pytest.mark.parametrize("name", ["Fruits-360", "photographs"])
def test_whose_images_they_are_is_recorded_and_found_again(
    source: Path, tmp_path: Path, name: str
) -> None:
    folder = tmp_path / name
    source.rename(folder)
    assert bool(find_credit(Location(str(folder)))) is (name == "Fruits-360")
    (folder.parent / archives.RECORD).write_text("{}")
    packed = go(folder, tmp_path / "out/packs")
    assert packed.credit == fruits360.CREDIT
    assert find_credit(Location(str(tmp_path / "out/packs"))) == fruits360.CREDIT


def short_strip() -> bytes:
    """A TIFF that is decoded, though the size of its strip is wrong."""
    data = encoded(Image.new("L", (30, 20), 7), "TIFF", strip_size=10_000)
    size, less = ((600).to_bytes(4, "little"), (5).to_bytes(4, "little"))
    assert data.count(size) == 1
    return data.replace(size, less)


def test_refused_files_have_the_reason_that_decoding_gives(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "RETRY_SECONDS", ())
    bad = {
        "empty.jpg": b"",
        "new.jxl": b"\xff\x0a" + bytes(100),
        "notes.txt": b"no image",
        "short.jpg": photo(1)[:-300],
        "strip.tif": short_strip(),
        "video.mp4": b"\0\0\0\x18ftypmp42" + bytes(1000),
    }
    for name, data in bad.items():
        put(source, name, data)
    (Path(os.fsdecode(os.fsencode(source) + b"/\xff.jpg"))).write_bytes(photo(2))
    packed = go(source, tmp_path / "out")
    rows = {row["path"]: row for row in rows_of(tmp_path / "out")}
    assert len(rows) == 27
    assert packed.refused == {
        "empty": 1, "not_an_image": 2, "truncated": 1, "unreadable": 1, "unsupported": 1,
    }  # fmt: skip
    for name, data in bad.items():
        row, expected = rows[name], seen(data)
        assert row["source_size"] == len(data)
        if isinstance(expected, Rejection):
            assert (row["bytes"], row["sha256"], row["size"]) == (None, None, 0)
            assert (row["reason"], row["detail"]) == (expected.reason, expected.detail)
    # Its structure is wrong, and its picture is there: so it is written anew.
    np.testing.assert_array_equal(seen(rows["strip.tif"]["bytes"]), seen(bad["strip.tif"]))
    assert rows[r"\xff.jpg"]["reason"] == "unreadable"
    assert packed.bytes_before == sum(
        row["source_size"] for row in rows.values() if row["bytes"] is not None
    )
    # Nothing is new: bytes that are not UTF-8 are where the listing has them.
    assert go(source, tmp_path / "out") == packed


def test_a_file_that_is_too_large_is_refused_unread(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "make_settings", partial(packing.make_settings, max_bytes=5000))
    put(source, "large.jpg", photo(1, side=100))
    put(source, "large.txt", b"text" * 2000)
    packed = go(source, tmp_path / "out")
    assert packed.refused == {"not_an_image": 1, "too_large": 1}


class BrokenError(Exception):
    pass


def break_after(monkeypatch: pytest.MonkeyPatch, calls: int, error: BaseException) -> None:
    """Let the n-th image raise something that no image should."""
    clean, left = packing._clean, iter(range(calls))

    def clean_or_raise(*arguments: Any) -> bytes | Rejection:
        if next(left, None) is None:
            raise error
        return clean(*arguments)

    monkeypatch.setattr(packing, "_clean", clean_or_raise)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), BrokenError()], ids=["Ctrl-C", "defect"])
@pytest.mark.parametrize("calls", [0, 3, 13, 19])
def test_an_interrupted_pack_goes_on(
    source: Path,
    tmp_path: Path,
    calls: int,
    error: BaseException,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    target = tmp_path / "out"
    with monkeypatch.context() as patch:
        break_after(patch, calls, error)
        with pytest.raises(type(error)):
            go(source, target, shard_bytes=5000)
    before = read_pack(Location.parse(str(target)))
    assert before is not None
    assert before.status == "incomplete"
    assert before.images == sum(shard.images for shard in before.shards) <= calls
    assert len(before.shards) == calls // 3
    finished = {shard.name: (target / shard.name).read_bytes() for shard in before.shards}
    put(target, "shard-000077.parquet", b"of an interrupted run")
    after = go(source, target, shard_bytes=5000)
    assert_whole(source, target)
    assert after.shards[: len(before.shards)] == before.shards
    for name, data in finished.items():
        assert (target / name).read_bytes() == data
    uninterrupted = go(source, tmp_path / "other", shard_bytes=5000)
    assert after == uninterrupted


def test_images_that_are_new_are_added_and_others_not_touched(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    before = go(source, target, shard_bytes=10_000)
    kept = {path.name: path.stat().st_mtime_ns for path in target.iterdir()}
    assert go(source, target) == before
    assert {path.name: path.stat().st_mtime_ns for path in target.iterdir()} == kept
    for number in range(20, 26):
        put(source, f"kind {number % 3}/{number - 17:02}-new.jpg", photo(number))
    put(source, "first.jpg", photo(30))
    after = go(source, target, shard_bytes=10_000)
    assert_whole(source, target)
    assert after.shards[: len(before.shards)] == before.shards
    assert all(
        (target / shard.name).stat().st_mtime_ns == kept[shard.name] for shard in before.shards
    )
    put(source, "0.jpg", photo(31))
    go(source, target)
    assert_whole(source, target)


def test_changed_and_vanished_images_are_refused(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    before = go(source, target)
    put(source, "kind 0/00.jpg", photo(50))
    data = bytearray((source / "kind 0/02.jpg").read_bytes())
    data[-9] ^= 1
    put(source, "kind 0/02.jpg", bytes(data))
    os.utime(source / "kind 0/04.jpg", ns=(1, 1))  # which changes nothing in it
    (source / "kind 1/19.jpg").unlink()
    put(source, "new.jpg", photo(51))
    with pytest.raises(UsageError, match=r"2 have changed in .*/in and 1 have gone") as refused:
        go(source, target)
    assert "--fresh" in refused.value.hint
    assert read_pack(Location.parse(str(target))) == before
    go(source, target, fresh=True)
    assert_whole(source, target)


def test_a_pack_of_something_else_is_refused(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    go(source, target)
    other = tmp_path / "other"
    source.rename(other)
    # A pack does not say where its images were; they are known by what they are.
    assert go(other, target).images == 20
    shutil.copytree(other / "kind 0", tmp_path / "third")
    with pytest.raises(UsageError, match=r"20 have gone from"):
        go(tmp_path / "third", target)
    other.rename(source)
    with pytest.raises(UsageError, match="packed with --label-from 'parent' instead of 'none'"):
        go(source, target, label_from="none")
    assert go(source, target, label_from="none", fresh=True).label_from == "none"
    assert {row["label"] for row in rows_of(target)} == {""}


NAMES = [
    "3-a/y.jpg", "3.jpg", "3/x.jpg", "30/x.jpg", "3é.jpg", "3\uffee/a.jpg", "3\U0001f34e/b.jpg",
    "A/b/c.jpg", "A/b.jpg", "a.jpg", "a b/c.jpg",
]  # fmt: skip


def test_paths_are_sorted_as_whole_strings(tmp_path: Path) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    for number, name in enumerate(NAMES):
        put(source, name, photo(number))
    go(source, target, shard_bytes=6000)
    assert [row["path"] for row in rows_of(target)] == sorted(NAMES)
    assert_whole(source, target)
    # Each of these falls between two of the first ones.
    for name in ("3-a.jpg", "3/x", "3/x.jpg.png", "3.jpg2", "A/b.jpgs", "A/b-/c.jpg", "0/0.jpg"):
        put(source, name, photo(len(name)))
        added = go(source, target, shard_bytes=6000).shards[-1]
        assert (added.first, added.last, added.images) == (name, name, 1)
    assert_whole(source, target)


def test_names_that_are_not_utf_8_sort_as_listed() -> None:
    raw = [b"a\xe9.jpg", b"a\xe9/x.jpg", b"az.jpg", b"a\xf0\x9f\x8d\x8e.jpg", "a\uffee".encode()]
    listed = sorted(os.fsdecode(name) for name in raw)
    shown = [os.fsencode(name).decode(errors="backslashreplace") for name in listed]
    assert [sort_key(name) for name in shown] == listed
    images = [ListedImage(name, "", 1) for name in shown]
    assert list(in_order(images)) == images
    with pytest.raises(InputError, match="order"):
        list(in_order(reversed(images)))
    with pytest.raises(InputError, match="order"):
        list(in_order([images[0], images[0]]))


def test_shards_and_row_groups_are_as_large_as_they_should_be(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed_format, "ROW_GROUP_BYTES", 3000)
    monkeypatch.setattr(packed_format, "ROW_GROUP_ROWS", 5)
    for number in range(12):
        put(source, f"text/{number:02}.txt", b"no image")
    packed = go(source, tmp_path / "out", shard_bytes=12_000)
    largest = max(row["size"] for row in rows_of(tmp_path / "out"))
    *full, last = packed.shards
    assert len(full) == 2
    assert all(12_000 <= shard.bytes < 12_000 + largest for shard in full)
    assert 0 < last.bytes < 12_000
    for shard in packed.shards:
        file = pq.ParquetFile(tmp_path / "out" / shard.name)
        groups = [file.read_row_group(number) for number in range(file.num_row_groups)]
        sizes = [sum(group["size"].to_pylist()) for group in groups]
        assert max(sizes) < 3000 + largest
        assert max(group.num_rows for group in groups) <= 5
        assert all(
            size >= 3000 or group.num_rows == 5
            for size, group in zip(sizes[:-1], groups[:-1], strict=True)
        )
        assert sum(sizes) == shard.bytes


def test_packed_rows_are_read_from_few_shards_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a thousand shards that follow each other, one is open."""
    opened: set[str] = set()
    most = 0

    def rows(_folder: Location, chain: list[Shard], _columns: object) -> Iterator[Any]:
        nonlocal most
        for shard in chain:
            opened.add(shard.name)
            most = max(most, len(opened))
            for row, path in enumerate((shard.first, shard.last)):
                yield path, PackedAt(shard.name, 0, row), (path, 1, None)
            opened.discard(shard.name)

    monkeypatch.setattr(reading, "_chained", rows)
    made = [
        Shard(name=str(number), images=2, bytes=1, first=f"{number:04}a", last=f"{number:04}b")
        for number in range(1000)
    ]
    made += [Shard(name="grown", images=2, bytes=1, first="0003", last="0990")]
    images = [ListedImage(f"{n:04}{letter}", "", 1, 1) for n in range(1000) for letter in "ab"]
    joined = list(reading.join(images, Location("/nowhere"), made))
    assert most == 2
    assert sum(image is not None and row is not None for image, row in joined) == 2000
    assert [row.key for image, row in joined if image is None and row] == ["0003", "0990"]


@pytest.mark.parametrize("where", ["in", "in/deep/out"])
def test_an_output_inside_the_input_is_refused(source: Path, tmp_path: Path, where: str) -> None:
    with pytest.raises(UsageError, match="inside the input"):
        go(source, tmp_path / where)
    assert sorted(path.name for path in source.iterdir()) == ["kind 0", "kind 1"]


def test_inputs_without_files_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        go(tmp_path / "nothing", tmp_path / "out")
    (tmp_path / "in/empty").mkdir(parents=True)
    with pytest.raises(InputError, match="holds no file"):
        go(tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_wrong_rule_for_labels_is_a_wrong_option(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--label-from: "):
        go(source, tmp_path / "out", label_from="(a)(b)")


def test_files_of_others_are_never_deleted_unasked(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    put(target, "shard-000003.parquet", b"of another program")
    put(target, "notes.txt", b"mine")
    with pytest.raises(UsageError, match=r"no pack\.json"):
        go(source, target)
    assert (target / "shard-000003.parquet").read_bytes() == b"of another program"
    go(source, target, fresh=True)
    assert_whole(source, target)
    assert (target / "notes.txt").read_bytes() == b"mine"


@pytest.mark.parametrize("text", ["", "{}", '{"version": 1}', "cut"])
def test_a_damaged_pack_is_refused(source: Path, tmp_path: Path, text: str) -> None:
    target = tmp_path / "out"
    go(source, target)
    file = target / "pack.json"
    file.write_text(file.read_text()[:-9] if text == "cut" else text)
    for attempt in (lambda: read_pack(Location.parse(str(target))), lambda: go(source, target)):
        with pytest.raises(InputError, match=r"pack\.json is damaged") as refused:
            attempt()
        assert "--fresh" in refused.value.hint
    go(source, target, fresh=True)
    assert_whole(source, target)


def test_a_pack_of_another_version_is_refused(source: Path, tmp_path: Path) -> None:
    go(source, tmp_path / "out")
    file = tmp_path / "out/pack.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "version": 3}))
    with pytest.raises(InputError, match="another version"):
        read_pack(Location.parse(str(tmp_path / "out")))


def test_a_pack_of_the_first_version_is_read_and_not_added_to(source: Path, tmp_path: Path) -> None:
    go(source, tmp_path / "out")
    file = tmp_path / "out/pack.json"
    first = {**json.loads(file.read_text()), "version": 1, "source": "/home/somebody/photos"}
    file.write_text(json.dumps(first))
    assert [image.path for image in list_input(Location(str(tmp_path / "out")))]
    with pytest.raises(UsageError, match="earlier version"):
        go(source, tmp_path / "out")
    go(source, tmp_path / "out", fresh=True)
    assert_whole(source, tmp_path / "out")


def test_a_pack_says_neither_where_nor_when(source: Path, tmp_path: Path) -> None:
    when = 1_234_567_890_123_456_789
    for path in source.rglob("*.jpg"):
        os.utime(path, ns=(when, when))
    go(source, tmp_path / "out")
    times = [str(when)[:10].encode(), *(struct.pack(f"{order}q", when) for order in "<>")]
    for path in (tmp_path / "out").iterdir():
        data = path.read_bytes()
        assert str(source).encode() not in data
        assert not any(time in data for time in times)


def test_a_folder_without_a_pack_has_none(tmp_path: Path) -> None:
    assert read_pack(Location.parse(str(tmp_path))) is None
    assert read_pack(Location.parse(str(tmp_path / "nothing"))) is None


DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "missing": lambda _: None,
    "cut": lambda data: data[:-100],
    "in the footer": lambda data: data[:-12] + b"\xff" * 4 + data[-8:],
    "in a path": lambda data: data.replace(b"00.jpg", b"\xff" * 6),
}
"""What may become of a shard; None for a file that is gone."""


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_shard_that_is_missing_or_damaged_is_said(
    source: Path, tmp_path: Path, damage: Callable[[bytes], bytes | None]
) -> None:
    go(source, tmp_path / "out")
    shard = tmp_path / "out/shard-000000.parquet"
    damaged = damage(shard.read_bytes())
    shard.unlink()
    if damaged is not None:
        shard.write_bytes(damaged)
    said = r"shard-000000.parquet is missing or damaged"
    with pytest.raises(InputError, match=said):
        go(source, tmp_path / "out")
    with pytest.raises(InputError, match=said):
        list(list_input(Location(str(tmp_path / "out"))))


def test_an_image_packed_anew_is_not_taken_for_another(source: Path, tmp_path: Path) -> None:
    go(source, tmp_path / "out")
    first, *_, last = list_input(Location(str(tmp_path / "out")))
    (source / first.path).unlink()
    go(source, tmp_path / "out", fresh=True)
    for image in (first, last):
        with pytest.raises(FileNotFoundError, match="packed anew since it was listed"):
            read_packed(Location(str(tmp_path / "out")), image)


def test_a_bit_that_turned_in_an_image_is_noticed(source: Path, tmp_path: Path) -> None:
    go(source, tmp_path / "out")
    folder, shard = Location(str(tmp_path / "out")), tmp_path / "out/shard-000000.parquet"
    image, *_ = list_input(folder)
    before, whole = shard.read_bytes(), read_packed(folder, image)
    assert isinstance(whole, bytes)
    turned = whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:]
    shard.unlink()
    shard.write_bytes(before.replace(whole, turned))
    reading._row_group.cache_clear()
    reading._opened.cache_clear()
    with pytest.raises(OSError, match="not the bytes that were packed"):
        read_packed(folder, image)


def test_a_target_has_one_writer(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    with (target / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(SetupError, match="in use"):
            go(source, target)
    go(source, target)
    assert_whole(source, target)


def test_a_full_disk_is_said_in_one_line_and_the_same_command_goes_on(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, left = packed_format.written, iter(range(2))

    @contextmanager
    def full(file: Location) -> Iterator[Any]:
        with whole(file) as write:
            if next(left, None) is None:
                raise OSError(errno.ENOSPC, "No space left on device\nmore")
            yield write

    with monkeypatch.context() as patch:
        patch.setattr(packing, "written", full)
        with pytest.raises(SetupError, match="The disk of") as said:
            go(source, tmp_path / "out", shard_bytes=5000)
    assert said.value.message == f"The disk of {tmp_path / 'out'} is full."
    assert "goes on" in said.value.hint
    packed = read_pack(Location.parse(str(tmp_path / "out")))
    assert packed is not None
    assert len(packed.shards) == 2
    go(source, tmp_path / "out")
    assert_whole(source, tmp_path / "out")


def test_a_target_that_is_a_file_is_said_in_one_line(source: Path, tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(SetupError, match="File exists"):
        go(source, tmp_path / "out")


def test_a_store_that_fails_ends_the_pack_instead_of_refusing_all(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "FAILED_READS", 6)
    read = packing.Loader.read

    def failing(self: packing.Loader, image: ListedImage) -> bytes:
        if "kind 1/0" in image.path:
            raise OSError("the network is down")
        if image.path == "kind 0/04.jpg":
            raise FileNotFoundError(errno.ENOENT, "gone")
        return read(self, image)

    with monkeypatch.context() as patch:
        patch.setattr(packing.Loader, "read", failing)
        # Five in a row are taken for bad files; one more, and it is the store.
        assert go(source, tmp_path / "first").refused == {"unreadable": 6}
        patch.setattr(packing, "FAILED_READS", 5)
        with pytest.raises(SetupError, match=r"5 files in a row .* the network is down"):
            go(source, tmp_path / "out", shard_bytes=5000)
    go(source, tmp_path / "out", shard_bytes=5000)
    assert_whole(source, tmp_path / "out")


def test_progress_counts_images_and_refused_ones(source: Path, tmp_path: Path) -> None:
    told: list[tuple[Any, ...]] = []

    class Listener(packing.Progress):
        def start(self, stage: str, total: int | None = None) -> None:
            told.append((stage,))

        def update(self, done: int, rejected: int = 0) -> None:
            told.append((done, rejected))

    put(source, "notes.txt", b"no image")
    go(source, tmp_path / "out", progress=Listener())
    assert told == [("pack",), *((done, 0) for done in range(1, 21)), (21, 1)]
    told.clear()
    go(source, tmp_path / "out", progress=Listener())
    assert told == [("plan",), *((done, 0) for done in range(1, 22))]


def test_what_is_saved_is_counted_in_requests() -> None:
    shard = Shard(name="shard-000000.parquet", images=9000, bytes=1, first="a", last="b")
    packed = Pack(verger_version="1", label_from="none", images=9000, shards=(shard,))
    assert requests_saved(packed) == 9000 - packing.GETS_A_SHARD
    assert requests_saved(packed.model_copy(update={"images": 10})) == 0


def test_the_command_prints_a_summary_or_json(source: Path, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(command)
    put(source, "notes.txt", b"no image")
    arguments = [str(source), str(tmp_path / "out"), "--shard-size", "1", "--threads", "2"]
    shown = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert shown.exit_code == 0
    words = " ".join(shown.output.split())
    assert "21 listed: 20 packed, 1 refused (1 not_an_image)" in words
    assert "37 KiB before, 36 KiB without metadata" in words
    assert "GET requests" in words
    again = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False)
    assert Pack.model_validate_json(again.stdout) == read_pack(
        Location.parse(str(tmp_path / "out"))
    )


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket of moto's, for this process."""
    with moto_server() as port, aws_settings(port, monkeypatch):
        yield make_bucket(port, "plays")


def test_s3_is_packed_resumed_and_leased(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = (Location.parse(f"s3://{bucket}/{name}") for name in ("in", "out"))
    for number, name in enumerate(NAMES):
        objects.put(source.child(name).path, photo(number))
    with monkeypatch.context() as patch:
        break_after(patch, 7, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            pack(source, target, shard_bytes=5000)
    before = read_pack(target)
    assert before is not None
    assert before.shards
    packed = pack(source, target, shard_bytes=5000)
    assert packed.status == "complete"
    assert packed.shards[: len(before.shards)] == before.shards
    names = [shard.name for shard in packed.shards]
    assert objects.names(target.path) == ["pack.json", *names]
    # The number of the shard that may still be on its way is left out.
    assert f"shard-{len(before.shards):06}.parquet" not in names
    rows = [
        row
        for name in names
        for row in pq.read_table(io.BytesIO(objects.get(target.child(name).path))).to_pylist()
    ]
    assert [row["path"] for row in rows] == sorted(NAMES)
    assert all(row["source_tag"] for row in rows)
    assert pack(source, target) == packed
    lease = Lease(target.child(".lock").path)
    assert lease.acquire()
    try:
        with pytest.raises(SetupError, match="in use"):
            pack(source, target)
    finally:
        lease.release()
    objects.put(source.child(NAMES[0]).path, photo(99))
    with pytest.raises(UsageError, match="1 have changed"):
        pack(source, target)
