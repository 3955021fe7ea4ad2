"""The demonstration photographs: files, determinism, and fruits that turn yet stay themselves."""

import io
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from numpy.typing import NDArray
from PIL import Image

from verger.cli import run as command
from verger.datasets import demo
from verger.datasets.demo import JPEG_QUALITY, KINDS, render, write_demo_images
from verger.progress import Progress

Array = NDArray[np.floating[Any]]

FRAMES = 12
SEED = 3
WHITE_ENOUGH = 245  # JPEG ripples a little around the fruit,
FRUIT_ENOUGH = 200  # and more next to it


class DemoSet:
    """One small set written to disk, with what the writer said while writing it."""

    def __init__(self, folder: Path) -> None:
        """Write the set into `folder`."""
        self.folder = folder
        self.told: list[tuple[object, ...]] = []
        progress = Progress()
        progress.start = lambda *stage: self.told.append(stage)
        progress.update = lambda done: self.told.append((done,))
        write_demo_images(folder, images=FRAMES * len(KINDS), seed=SEED, progress=progress)

    def path(self, kind: str, frame: int) -> Path:
        """Where a frame should be."""
        return self.folder / kind / f"r_{frame}_100.jpg"

    def pixels(self) -> Array:
        """All pictures: (kinds, frames, 100, 100, 3), in 0..255."""
        return np.array(
            [
                [np.asarray(Image.open(self.path(kind, frame)), float) for frame in range(FRAMES)]
                for kind in KINDS
            ]
        )


@pytest.fixture(scope="module")
def demo_set(tmp_path_factory: pytest.TempPathFactory) -> DemoSet:
    """Render the set once for all the tests."""
    return DemoSet(tmp_path_factory.mktemp("demo") / "not" / "there" / "yet")


@pytest.fixture(scope="module")
def pixels(demo_set: DemoSet) -> Array:
    """Read the set once for all the tests."""
    return demo_set.pixels()


def as_jpeg(image: Image.Image) -> bytes:
    """The bytes that the writer would put in a file."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def descriptors(pixels: Array) -> Array:
    """Mean and spread of the fruit's colour, its area, height and width: (..., 9), about 0..1."""
    fruit = pixels.min(axis=-1) < FRUIT_ENOUGH
    area = fruit.sum(axis=(-2, -1))[..., None]
    inside = pixels * fruit[..., None]
    mean = inside.sum(axis=(-3, -2)) / area
    spread = np.sqrt(np.maximum((inside**2).sum(axis=(-3, -2)) / area - mean**2, 0))
    extents = [fruit.any(axis=axis).sum(axis=-1)[..., None] / 100 for axis in (-1, -2)]
    return np.concatenate([mean / 255, spread / 255, area / 10_000, *extents], axis=-1)


def test_there_are_fifteen_kinds_with_names_usable_as_folders() -> None:
    assert len(set(KINDS)) == len(KINDS) == 15
    assert all(kind.replace(" ", "").isalpha() for kind in KINDS)


def test_writes_as_many_frames_of_each_kind_and_nothing_else(demo_set: DemoSet) -> None:
    expected = {demo_set.path(kind, frame) for kind in KINDS for frame in range(FRAMES)}
    assert {path for path in demo_set.folder.rglob("*") if path.is_file()} == expected


def test_reports_progress_after_every_image(demo_set: DemoSet) -> None:
    total = FRAMES * len(KINDS)
    assert demo_set.told == [("demo", total), *((done,) for done in range(1, total + 1))]


def test_files_are_100_by_100_rgb_jpegs(demo_set: DemoSet) -> None:
    for kind in KINDS:
        with Image.open(demo_set.path(kind, 0)) as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (100, 100))


def test_same_seed_gives_the_same_bytes_even_out_of_order(demo_set: DemoSet) -> None:
    for kind, frame in (("Banana", 5), ("Apple Red", 2), ("Strawberry", 9)):
        again = as_jpeg(render(kind, frame, FRAMES, SEED))
        assert again == demo_set.path(kind, frame).read_bytes()


def test_another_seed_gives_another_fruit() -> None:
    assert as_jpeg(render("Lemon", 0, FRAMES, SEED)) != as_jpeg(
        render("Lemon", 0, FRAMES, SEED + 1)
    )


def test_a_full_turn_comes_back_to_the_start() -> None:
    assert as_jpeg(render("Banana", 0, FRAMES)) == as_jpeg(render("Banana", FRAMES, FRAMES))


def test_corners_are_white(pixels: Array) -> None:
    corners = pixels[:, :, :: 100 - 1, :: 100 - 1]
    assert corners.min() >= WHITE_ENOUGH


def test_fruit_fills_the_frame_and_stays_inside(pixels: Array) -> None:
    height_and_width = descriptors(pixels)[..., -2:]
    assert height_and_width.max(axis=(1, 2)).min() > 0.75
    assert height_and_width.max() < 1


def test_no_pinholes_in_a_plain_fruit(pixels: Array) -> None:
    middles = pixels[KINDS.index("Plum"), :, 35:65, 35:65]
    assert middles.min(axis=-1).max() < FRUIT_ENOUGH


def test_each_picture_is_nearest_to_its_own_kind(pixels: Array) -> None:
    found = descriptors(pixels)
    centres = found[:, ::2].mean(axis=1)
    strangers = found[:, 1::2]
    distances = np.linalg.norm(strangers[:, :, None] - centres, axis=-1)
    right = distances.argmin(axis=-1) == np.arange(len(KINDS))[:, None]
    assert right.mean() > 0.97


def test_every_step_of_the_turn_shows(pixels: Array) -> None:
    steps = np.abs(np.diff(pixels, axis=1)).mean(axis=(2, 3, 4))
    assert steps.min() > 1


def test_a_step_of_the_turn_changes_less_than_another_kind_would(pixels: Array) -> None:
    steps = np.abs(np.diff(pixels, axis=1)).mean(axis=(1, 2, 3, 4))
    first = pixels[:, 0]
    between = np.array([np.abs(first - other).mean(axis=(1, 2, 3)) for other in first])
    np.fill_diagonal(between, np.inf)
    assert (steps < between.min(axis=1)).all()


def test_few_images_still_give_one_of_each_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("verger.datasets.demo.KINDS", KINDS[:2])
    write_demo_images(tmp_path, images=0)
    assert sorted(path.parent.name for path in tmp_path.rglob("*.jpg")) == list(KINDS[:2])


def test_as_many_are_written_as_are_asked_for(tmp_path: Path) -> None:
    write_demo_images(tmp_path, images=len(KINDS) + 1)
    written = Counter(path.parent.name for path in tmp_path.rglob("*.jpg"))
    assert written == dict.fromkeys(KINDS, 1) | {KINDS[0]: 2}


def test_an_interrupted_command_leaves_no_part_that_counts_as_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(folder: Path, **_: object) -> None:
        (folder / "Lemon").mkdir(parents=True)
        (folder / "Lemon/left.jpg").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "run_chain", lambda *_, **__: None)
    with monkeypatch.context() as patch:
        patch.setattr(demo, "write_demo_images", interrupted)
        with pytest.raises(typer.Exit):
            command.demo(tmp_path)
    monkeypatch.setattr(demo, "KINDS", KINDS[:1])
    command.demo(tmp_path, images=1)
    assert [path.name for path in tmp_path.rglob("*.jpg")] == ["r_0_100.jpg"]
    assert (tmp_path / "images").is_dir()
