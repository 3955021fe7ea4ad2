"""Files read ahead of the network, with bounded memory."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from verger.output.layout import ListedImage

T = TypeVar("T")

MAX_AHEAD_BYTES = 64 * 2**20
"""Bytes that may wait in memory; a single larger file waits alone."""

MAX_GROUP_BYTES = 2**20
"""Bytes that a thread reads at once."""


def read_ahead(
    images: Iterable[ListedImage],
    read: Callable[[ListedImage], T],
    threads: int,
    together: int = 1,
) -> Iterator[tuple[ListedImage, T | OSError]]:
    """Read files on `threads` threads, in order, with bounded memory.

    Args:
        images: whose files are read.
        read: reads one.
        threads: that read; at most `2 * threads` groups are ahead.
        together: images that a thread reads one after the other: handing over costs time.

    Yields:
        Each image with what `read` gave, or with the error that it raised.
    """

    def attempt(image: ListedImage) -> T | OSError:
        try:
            return read(image)
        except OSError as error:
            return error

    def attempt_all(group: list[ListedImage]) -> list[T | OSError]:
        return [attempt(image) for image in group]

    waiting: deque[tuple[list[ListedImage], Future[list[T | OSError]]]] = deque()
    ahead = 0
    with ThreadPoolExecutor(threads) as pool:
        for group in _grouped(images, together):
            size = _size(group)
            while waiting and (len(waiting) >= 2 * threads or ahead + size > MAX_AHEAD_BYTES):
                first, data = waiting.popleft()
                ahead -= _size(first)
                yield from zip(first, data.result(), strict=True)
            waiting.append((group, pool.submit(attempt_all, group)))
            ahead += size
        while waiting:
            first, data = waiting.popleft()
            yield from zip(first, data.result(), strict=True)


def _grouped(images: Iterable[ListedImage], together: int) -> Iterator[list[ListedImage]]:
    """Groups of so many images, or of fewer where they are large."""
    group: list[ListedImage] = []
    for image in images:
        if group and (len(group) == together or _size(group) + image.size > MAX_GROUP_BYTES):
            yield group
            group = []
        group.append(image)
    if group:
        yield group


def _size(group: list[ListedImage]) -> int:
    return sum(image.size for image in group)
