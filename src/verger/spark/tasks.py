"""How the images of a wave are cut into tasks."""

from collections.abc import Iterable
from dataclasses import replace
from itertools import chain, groupby, repeat

from verger.spark.reading import Reader, Slice

LEAST_TASK = 64
"""Images below which a task costs more to begin than it gains."""


def count_images(images: Iterable[Slice]) -> int:
    """How many images there are."""
    return sum(piece.rows for piece in images)


def task_sizes(images: int, most: int, processors: int) -> list[int]:
    """How many images each task takes: fewer towards the end, so that all processors end together.

    Guided self-scheduling (Polychronopoulos and Kuck, 1987), with two tasks a processor for what is
    left.

    Args:
        images: in all.
        most: that a task may take.
        processors: that work at once.
    """
    sizes = []
    while images:
        size = min(most, max(images // (2 * processors), LEAST_TASK), images)
        sizes.append(size)
        images -= size
    return sizes


def cut(images: Iterable[Slice], sizes: list[int]) -> list[list[Slice]]:
    """Tasks of so many images."""
    tasks: list[list[Slice]] = [[]]
    remaining = iter(sizes)
    room = next(remaining)
    for piece in images:
        start = piece.start
        while start < piece.stop:
            if not room:
                tasks.append([])
                room = next(remaining)
            stop = min(start + room, piece.stop)
            tasks[-1].append(Slice(piece.file, start, stop))
            room -= stop - start
            start = stop
    return tasks


def cut_packed(reader: Reader, images: Iterable[Slice], sizes: list[int]) -> list[list[Slice]]:
    """Tasks of about so many images: a row group goes to one task, which reads it once."""
    tasks: list[list[Slice]] = []
    remaining = chain(sizes, repeat(sizes[-1]))
    size = next(remaining)
    for piece in images:
        rows = (row for batch in reader.read([piece]) for row in batch.to_pylist())
        start = stop = piece.start
        for _, group in groupby(rows, key=lambda row: (row["shard"], row["row_group"])):
            stop += sum(1 for _ in group)
            if stop - start >= size or stop == piece.stop:
                tasks.append([Slice(piece.file, start, stop)])
                start = stop
                size = next(remaining)
    return tasks


def halve(images: list[Slice]) -> tuple[list[Slice], list[Slice]]:
    """Cut images in two: files, or the rows of a single one."""
    if len(images) > 1:
        middle = len(images) // 2
        return images[:middle], images[middle:]
    (piece,) = images
    middle = (piece.start + piece.stop) // 2
    return [replace(piece, stop=middle)], [replace(piece, start=middle)]
