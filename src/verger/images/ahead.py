"""Files read ahead of the network, with bounded memory."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from verger.output.layout import ListedImage

T = TypeVar("T")

MAX_AHEAD_BYTES = 64 * 2**20
"""Bytes that may wait in memory; a single larger file waits alone."""


def read_ahead(
    images: Iterable[ListedImage],
    read: Callable[[ListedImage], T],
    threads: int,
) -> Iterator[tuple[ListedImage, T | OSError]]:
    """Read files on `threads` threads, in order, at most `2 * threads` of them ahead.

    Yields:
        Each image with what `read` gave, or with the error that it raised.
    """

    def attempt(image: ListedImage) -> T | OSError:
        try:
            return read(image)
        except OSError as error:
            return error

    waiting: deque[tuple[ListedImage, Future[T | OSError]]] = deque()
    ahead = 0
    with ThreadPoolExecutor(threads) as pool:
        for image in images:
            while waiting and (len(waiting) >= 2 * threads or ahead + image.size > MAX_AHEAD_BYTES):
                first, data = waiting.popleft()
                ahead -= first.size
                yield first, data.result()
            waiting.append((image, pool.submit(attempt, image)))
            ahead += image.size
        while waiting:
            first, data = waiting.popleft()
            yield first, data.result()
