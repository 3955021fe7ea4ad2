"""Files read ahead of the network, with bounded memory."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from verger.images.listing import ListedImage

MAX_AHEAD_BYTES = 64 * 2**20
"""Bytes that may wait in memory; a single larger file waits alone."""


def read_ahead(
    images: Iterable[ListedImage],
    read: Callable[[ListedImage], bytes],
    threads: int,
) -> Iterator[tuple[ListedImage, bytes | OSError]]:
    """Read files on `threads` threads, in order, at most `2 * threads` of them ahead.

    Yields:
        Each image with its bytes, or with the error that reading it gave.
    """

    def attempt(image: ListedImage) -> bytes | OSError:
        try:
            return read(image)
        except OSError as error:
            return error

    waiting: deque[tuple[ListedImage, Future[bytes | OSError]]] = deque()
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
