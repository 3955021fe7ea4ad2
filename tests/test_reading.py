"""Reading ahead keeps the order and its bounds, and turns failures into values."""

import threading
import time

import pytest

from verger.images import reading
from verger.images.listing import ListedImage
from verger.images.reading import read_ahead


def images(count: int, size: int = 1) -> list[ListedImage]:
    return [ListedImage(f"{number}.jpg", "", size) for number in range(count)]


def test_the_order_is_kept_whatever_finishes_first() -> None:
    def read(image: ListedImage) -> bytes:
        time.sleep(0.01 * (int(image.path[0]) % 3 == 0))
        return image.path.encode()

    listed = images(30)
    assert list(read_ahead(listed, read, 4)) == [(i, i.path.encode()) for i in listed]


def test_a_failed_read_is_a_value_and_the_others_go_on() -> None:
    def read(image: ListedImage) -> bytes:
        if image.path == "1.jpg":
            raise PermissionError(13, "denied")
        return b"x"

    results = [data for _, data in read_ahead(images(3), read, 2)]
    assert results[0] == results[2] == b"x"
    assert isinstance(results[1], PermissionError)


def test_no_images_give_nothing() -> None:
    assert list(read_ahead([], lambda _: b"", 2)) == []


def started_per_yield(listed: list[ListedImage], threads: int) -> list[int]:
    """How many reads had started when each image came out, given time for more to start."""
    started = 0
    lock = threading.Lock()

    def read(image: ListedImage) -> bytes:
        nonlocal started
        with lock:
            started += 1
        return b""

    counts = []
    for _ in read_ahead(listed, read, threads):
        time.sleep(0.005)
        counts.append(started)
    assert started == len(listed)
    return counts


@pytest.mark.parametrize("threads", [1, 3])
def test_at_most_twice_the_threads_wait(threads: int) -> None:
    counts = started_per_yield(images(20), threads)
    assert all(count <= 2 * threads + done for done, count in enumerate(counts))
    assert counts[0] == 2 * threads


def test_bytes_that_wait_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_AHEAD_BYTES", 100)
    counts = started_per_yield(images(12, size=40), 4)
    assert all(count <= 2 + done for done, count in enumerate(counts))


def test_a_file_above_the_bound_waits_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_AHEAD_BYTES", 100)
    assert started_per_yield(images(4, size=1000), 4) == [1, 2, 3, 4]


def test_leaving_early_starts_no_further_reads() -> None:
    read = []
    results = read_ahead(images(100), lambda image: bytes(read.append(image.path) or 1), 2)
    next(results)
    results.close()
    assert len(read) <= 4
