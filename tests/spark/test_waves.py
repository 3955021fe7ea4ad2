"""How a wave is cut into tasks, and how its progress is told."""

import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from verger.images.decoding import Rules
from verger.images.loading import Loader
from verger.images.views import to_views
from verger.output.layout import DataFile, ListedImage, Reason, Rejection
from verger.progress import Progress
from verger.spark.extraction import Extractor, Row
from verger.spark.reading import whole
from verger.spark.tasks import LEAST_TASK, cut, task_sizes
from verger.spark.waves import watched
from verger.store.location import Location


@given(images=st.integers(1, 20_000), most=st.integers(1, 2_000), processors=st.integers(1, 64))
def test_tasks_have_all_images_and_become_smaller(images: int, most: int, processors: int) -> None:
    sizes = task_sizes(images, most, processors)
    assert sum(sizes) == images
    assert max(sizes) <= most
    assert sizes == sorted(sizes, reverse=True)
    # No processor works long when the others have ended.
    assert sizes[-1] <= LEAST_TASK


@given(
    rows=st.lists(st.integers(1, 700), min_size=1, max_size=5),
    most=st.integers(1, 300),
    processors=st.integers(1, 4),
)
def test_files_arecut_without_loss_or_overlap(rows: list[int], most: int, processors: int) -> None:
    files = [DataFile(f"{index}", 0, count) for index, count in enumerate(rows)]
    sizes = task_sizes(sum(rows), most, processors)
    tasks = cut(whole(files), sizes)
    assert [sum(piece.stop - piece.start for piece in task) for task in tasks] == sizes
    pieces = [piece for task in tasks for piece in task]
    for file in files:
        mine = [piece for piece in pieces if piece.file is file]
        assert mine[0].start == 0
        assert mine[-1].stop == file.rows
        assert all(left.stop == right.start for left, right in pairwise(mine))


class Heard(Progress):
    """Keeps the last that it was told."""

    done = 0

    def update(self, done: int, rejected: int = 0) -> None:
        self.done = done


def test_a_task_tells_of_its_images_before_it_ends(tmp_path: Path) -> None:
    # An accumulator has the value of tasks that have ended.
    accumulator = SimpleNamespace(value=0, add=lambda _: None)
    extractor = Extractor(
        loader=Loader(Location(str(tmp_path)), to_views(224, 1), 1, Rules(1)),
        backbone=SimpleNamespace(value=None),
        read_ahead=1,
        image_seconds=1,
        done=accumulator,
        rejected=accumulator,
    )
    rows = [Row(ListedImage("a.jpg", "", 1), Rejection(Reason.EMPTY, "0 bytes"))] * 3
    heard = Heard()
    with watched(extractor, 5, heard) as watching:
        watching._pack(rows)
        until(lambda: heard.done == 3)
        # A task that is tried again.
        watching._pack(rows)
        until(lambda: heard.done == 5)
    assert not Path(watching.ticks).exists()
    # A worker of another machine has no such file, one of another user may not write to it.
    for ticks in (watching.ticks, str(tmp_path)):
        assert replace(watching, ticks=ticks)._pack(rows).num_rows == 3


def until(true) -> None:
    while not true():
        time.sleep(0.01)
