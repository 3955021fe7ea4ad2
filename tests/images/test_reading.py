"""Reading ahead keeps the order and its bounds, and turns failures into values."""

import threading
import time

import pytest

from verger.images import ahead
from verger.images.ahead import read_ahead
from verger.output.layout import ListedImage


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


def assert_ahead(listed: list[ListedImage], threads: int, ahead: int) -> None:
    """Exactly `ahead` reads more than images that came out before have started, to the end."""
    started = 0
    lock = threading.Lock()

    def read(image: ListedImage) -> bytes:
        nonlocal started
        with lock:
            started += 1
        return b""

    for done, _ in enumerate(read_ahead(listed, read, threads)):
        expected = min(done + ahead, len(listed))
        deadline = time.monotonic() + 5
        while started < expected and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.003)  # for one too many to start
        assert started == expected


@pytest.mark.parametrize("threads", [1, 3])
def test_twice_the_threads_wait_and_no_more(threads: int) -> None:
    assert_ahead(images(20), threads, ahead=2 * threads)


def test_bytes_that_wait_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "MAX_AHEAD_BYTES", 100)
    assert_ahead(images(12, size=40), threads=4, ahead=2)


def test_a_file_above_the_bound_waits_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "MAX_AHEAD_BYTES", 100)
    assert_ahead(images(4, size=1000), threads=4, ahead=1)


def test_leaving_early_starts_no_further_reads() -> None:
    read = []
    results = read_ahead(images(100), lambda image: bytes(read.append(image.path) or 1), 2)
    next(results)
    results.close()
    assert len(read) <= 4
