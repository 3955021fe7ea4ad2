"""Reading ahead keeps the order and its bounds, and turns failures into values."""

import threading
import time
from math import inf

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


@pytest.mark.parametrize("together", [2, 7, 100])
def test_groups_keep_the_order_too(together: int) -> None:
    listed = images(30, size=100_000)
    found = read_ahead(listed, lambda image: image.path.encode(), 3, together)
    assert list(found) == [(image, image.path.encode()) for image in listed]


def test_of_a_group_that_is_slow_the_rest_is_waited_for_at_once() -> None:
    together = threading.Barrier(4)

    def read(image: ListedImage) -> bytes:
        if image.path == "0.jpg":
            time.sleep(2 * ahead.SOON_SECONDS)
        else:
            # Alone, each would wait for the others in vain.
            together.wait(timeout=30)
        return image.path.encode()

    listed = images(9)
    assert list(read_ahead(listed, read, 8, 32)) == [(i, i.path.encode()) for i in listed]


def assert_ahead(
    listed: list[ListedImage], threads: int, ahead: int, most_bytes: float = inf
) -> None:
    """Exactly `ahead` reads more than images that came out before have started, to the end."""
    started = 0
    lock = threading.Lock()

    def read(image: ListedImage) -> bytes:
        nonlocal started
        with lock:
            started += 1
        return b""

    for done, _ in enumerate(read_ahead(listed, read, threads, 1, most_bytes)):
        expected = min(done + ahead, len(listed))
        deadline = time.monotonic() + 5
        while started < expected and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.003)  # for one too many to start
        assert started == expected


@pytest.mark.parametrize("threads", [1, 3])
def test_twice_the_threads_wait_and_no_more(threads: int) -> None:
    assert_ahead(images(20), threads, ahead=2 * threads)


def test_bytes_that_wait_are_bounded() -> None:
    assert_ahead(images(12, size=40), threads=4, ahead=2, most_bytes=100)


def test_a_file_above_the_bound_waits_alone() -> None:
    assert_ahead(images(4, size=1000), threads=4, ahead=1, most_bytes=100)


def test_leaving_early_starts_no_further_reads() -> None:
    read = []
    results = read_ahead(images(100), lambda image: bytes(read.append(image.path) or 1), 2)
    next(results)
    results.close()
    assert len(read) <= 4
