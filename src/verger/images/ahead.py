"""Files read ahead of the network, with bounded memory."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from time import monotonic
from typing import TypeVar

from verger.output.layout import ListedImage

T = TypeVar("T")

MAX_AHEAD_BYTES = 64 * 2**20
"""Bytes that may wait in memory; a single larger file waits alone."""

MAX_GROUP_BYTES = 2**20
"""Bytes that a thread reads at once."""

SOON_SECONDS = 0.05
"""A group that takes longer is read one by one from there on."""


def read_ahead(
    images: Iterable[ListedImage],
    read: Callable[[ListedImage], T],
    threads: int,
    together: int = 1,
    most_bytes: float = MAX_AHEAD_BYTES,
) -> Iterator[tuple[ListedImage, T | OSError]]:
    """Read files on `threads` threads, in order, with bounded memory.

    Args:
        images: whose files are read.
        read: reads one.
        threads: that read; at most `2 * threads` groups are ahead.
        together: images that a thread reads one after the other: handing over costs time. Where
            that is slow, as on a network or for files that cannot be read, it reads one by one.
        most_bytes: of files that may be ahead; infinite where less is kept of them.

    Yields:
        Each image with what `read` gave, or with the error that it raised.
    """
    waiting: deque[tuple[list[ListedImage], Future[list[T | OSError]]]] = deque()
    ahead = 0

    def attempt_all(group: list[ListedImage]) -> list[T | OSError]:
        """As many of a group as are read soon, and one at least."""
        begun, done = monotonic(), list[T | OSError]()
        for image in group:
            try:
                done.append(read(image))
            except OSError as error:
                done.append(error)
            if monotonic() - begun > SOON_SECONDS:
                break
        return done

    def take() -> Iterator[tuple[ListedImage, T | OSError]]:
        nonlocal ahead
        group, future = waiting.popleft()
        read_of_it = future.result()
        count = len(read_of_it)
        ahead -= _size(group[:count])
        # The rest is slow: it is waited for at once.
        rest = [([image], pool.submit(attempt_all, [image])) for image in group[count:]]
        waiting.extendleft(reversed(rest))
        yield from zip(group[:count], read_of_it, strict=True)

    with ThreadPoolExecutor(threads) as pool:
        for group in _grouped(images, together):
            size = _size(group)
            while waiting and (len(waiting) >= 2 * threads or ahead + size > most_bytes):
                yield from take()
            waiting.append((group, pool.submit(attempt_all, group)))
            ahead += size
        while waiting:
            yield from take()


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
