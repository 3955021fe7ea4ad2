"""Memory of the workers, by what the system counts for them."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from PIL import Image

from helpers import go, spark_workers


@contextmanager
def peak_of_workers() -> Iterator[dict[int, int]]:
    """The largest resident memory, in bytes, of each of Spark's Python workers, by its id."""
    peak: dict[int, int] = {}
    stopped = threading.Event()

    def watch() -> None:
        while not stopped.wait(0.02):
            for worker in spark_workers():
                with suppress(psutil.Error):  # it ended meanwhile
                    peak[worker.pid] = max(peak.get(worker.pid, 0), worker.memory_info().rss)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        stopped.set()
        thread.join()


@pytest.mark.usefixtures("spark")
def test_memory_stays_bounded_whatever_the_size_of_the_images(
    orchard: Path, tmp_path: Path
) -> None:
    """14 photographs of 48 million pixels: 144 MB each when decoded, 2 GB together."""
    folder = tmp_path / "in/large"
    folder.mkdir(parents=True)
    source = next(orchard.glob("*/*.jpg"))
    with Image.open(source) as small:
        small.resize((8000, 6000)).save(folder / "0.jpg", quality=40)
    for number in range(1, 14):
        os.link(folder / "0.jpg", folder / f"{number}.jpg")
    for photo in orchard.glob("*/r_0*.jpg"):
        os.link(photo, tmp_path / "in" / f"{photo.parent.name}.jpg")
    with peak_of_workers() as peak:
        manifest = go(tmp_path / "in", tmp_path / "out", components=2)
    assert manifest.counts.featurized == 18
    assert len(peak) >= 2
    # The interpreter with its engine, a decoded image, and copies on the way to 224 pixels.
    assert max(peak.values()) < 0.25e9 + 4 * 144e6
