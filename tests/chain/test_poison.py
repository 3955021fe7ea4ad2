"""Images that crash, hang or swell the process that decodes them, and workers that die."""

import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest

from helpers import assert_same_features, features_of, go, rejected_of, spark_workers
from verger.datasets.demo import KINDS
from verger.errors import SetupError
from verger.images.guard import Guard
from verger.images.loading import Loader
from verger.output.layout import DataFile
from verger.spark import extraction, waves

pytestmark = pytest.mark.usefixtures("spark")

POISON = b"poison"


def poisoned(monkeypatch: pytest.MonkeyPatch, *effects: Callable[[], None]) -> None:
    """Have the workers decode with a decoder on which poisons, by their last byte, have effects."""

    # Classes of a test are pickled whole only when no module holds them.
    class Poisoned(Loader):
        def decode(self, image, data):
            if data.startswith(b"poison"):
                effects[data[-1]]()
            return super().decode(image, data)

    monkeypatch.setattr(extraction, "Loader", Poisoned)


def die() -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), signal.SIGKILL)


def crash() -> Callable[[], None]:
    def effect() -> None:
        import ctypes

        ctypes.string_at(0)

    return effect


def hang() -> Callable[[], None]:
    def effect() -> None:
        import re

        # A loop in C that never gives the interpreter back.
        re.match(r"(a+)+$", "a" * 64 + "b")

    return effect


def swell() -> Callable[[], None]:
    def effect() -> None:
        # In a worker, what the system does when memory ends; where a limit holds, reach it.
        if multiprocessing.parent_process() is None:
            os.kill(os.getpid(), signal.SIGKILL)
        hoard = []
        while True:
            hoard.append(bytearray(2**28))

    return effect


def die_with_the_worker() -> Callable[[], None]:
    def effect() -> None:
        if multiprocessing.parent_process() is not None:
            os.kill(os.getppid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)

    return effect


@pytest.mark.parametrize(
    ("effects", "reasons", "seconds"),
    [
        ((die(), crash(), swell()), ("crashed", "crashed", "too_large"), 60.0),
        ((hang(),), ("timeout",), 2.0),
        ((die_with_the_worker(),), ("crashed",), 60.0),
    ],
    ids=["kill-segfault-memory", "endless-loop", "worker-too"],
)
def test_poison_costs_its_image_only(
    orchard: Path, sound: Path, tmp_path: Path, monkeypatch, effects, reasons, seconds: float
) -> None:
    images, output = shutil.copytree(orchard, tmp_path / "in"), tmp_path / "out"
    for number in range(len(effects)):
        (images / KINDS[number] / "poison.jpg").write_bytes(POISON + bytes([number]))
    poisoned(monkeypatch, *effects)
    manifest = go(images, output, max_rejected=0.2, image_seconds=seconds, wave_size=14)
    assert rejected_of(output) == {
        f"{kind}/poison.jpg": reason for kind, reason in zip(KINDS, reasons, strict=False)
    }
    assert manifest.counts.featurized == 24
    assert manifest.rejected_by_reason == Counter(reasons)
    assert_same_features(output, sound)


def test_workers_that_die_of_everything_end_the_run_with_its_work_kept(
    orchard: Path, tmp_path: Path, monkeypatch
) -> None:
    shutil.copytree(orchard, tmp_path / "in")
    go(tmp_path / "in", tmp_path / "out")
    for number in range(3):
        (tmp_path / f"in/{number}.jpg").write_bytes(POISON + bytes([0]))
    poisoned(monkeypatch, die_with_the_worker())
    monkeypatch.setattr(waves, "MAX_CRASHED", 1)
    with pytest.raises(SetupError, match="Workers die whatever the image"):
        go(tmp_path / "in", tmp_path / "out", max_rejected=1)
    assert len(features_of(tmp_path / "out")) == 24


def test_a_worker_that_is_killed_from_outside_loses_nothing(
    orchard: Path, sound: Path, tmp_path: Path
) -> None:
    killed = []

    def kill_worker() -> None:
        for _ in range(600):
            workers = spark_workers()
            daemons = {worker.pid for worker in workers}
            # Those that Spark's daemon forked: they have an engine, and images to do.
            for worker in workers:
                with suppress(psutil.Error):  # it ended meanwhile
                    if worker.ppid() in daemons:
                        worker.kill()
                        killed.append(worker.pid)
                        return
            time.sleep(0.02)

    thread = threading.Thread(target=kill_worker)
    thread.start()
    manifest = go(orchard, tmp_path / "out", task_size=4)
    thread.join()
    assert killed
    assert manifest.counts.featurized == 24
    assert_same_features(tmp_path / "out", sound)


def test_what_cannot_be_read_is_tried_again_and_then_says_why(
    orchard: Path, tmp_path: Path, monkeypatch
) -> None:
    tries = tmp_path / "tries"
    tries.mkdir()
    folder = str(tries)

    def read(self, image):
        """Fails twice with the second image, and always with the third."""
        from pathlib import Path

        if image.path.endswith(("r_1_100.jpg", "r_2_100.jpg")):
            for attempt in range(9):
                mark = Path(folder) / f"{image.label}-{image.path[-11:]}-{attempt}"
                if not mark.exists():
                    mark.touch()
                    break
            if image.path.endswith("r_2_100.jpg") or attempt < 2:
                raise OSError(5, "Input/output error")
        return Path(self.folder.child(image.path).path).read_bytes()

    class FlakyLoader(Loader):
        read_once = read

    monkeypatch.setattr(extraction, "Loader", FlakyLoader)
    manifest = go(orchard, tmp_path / "out", max_rejected=0.5)
    assert manifest.rejected_by_reason == {"unreadable": 4}
    assert {name.split("/")[1] for name in rejected_of(tmp_path / "out")} == {"r_2_100.jpg"}
    assert len(list(tries.glob("*r_2*"))) == 4 * 4
    assert not (features_of(tmp_path / "out").features.map(np.any) == False).any()  # noqa: E712


@pytest.fixture
def guard() -> Iterator[Guard]:
    import pickle

    with Guard(pickle.dumps(abs), seconds=5) as guarded:
        yield guarded


def test_a_guard_goes_on_after_a_failure(guard: Guard) -> None:
    assert guard(-3) == 3
    broken = guard("no number")
    assert str(broken.reason) == "crashed"
    assert guard(-4) == 4


def test_a_guard_does_not_blame_an_image_for_what_an_earlier_one_did() -> None:
    import pickle

    with Guard(pickle.dumps(abs), seconds=5) as guarded:
        assert guarded(-1) == 1
        assert guarded._child is not None
        os.kill(guarded._child.pid, signal.SIGKILL)
        guarded._child.join()
        assert guarded(-2) == 2


def test_a_broken_environment_is_no_fault_of_an_image(orchard: Path, tmp_path: Path, monkeypatch):
    def loader(*arguments, **more):
        class BrokenLoader(Loader):
            def read_once(self, image):
                from verger.errors import SetupError

                raise SetupError("The credentials are gone.", "Renew them.")

        return BrokenLoader(*arguments, **more)

    monkeypatch.setattr(extraction, "Loader", loader)
    with pytest.raises(SetupError, match="credentials are gone") as raised:
        go(orchard, tmp_path / "out", max_rejected=1)
    assert raised.value.hint == "Renew them."
    assert not rejected_of(tmp_path / "out")


def test_a_wave_of_which_nothing_can_be_read_is_not_committed(
    orchard: Path, tmp_path: Path, monkeypatch
) -> None:
    def loader(*arguments, **more):
        class BrokenLoader(Loader):
            def read(self, image):
                raise OSError(5, "Input/output error")

        return BrokenLoader(*arguments, **more)

    monkeypatch.setattr(extraction, "Loader", loader)
    with pytest.raises(SetupError, match="None of 24 images could be read"):
        go(orchard, tmp_path / "out", max_rejected=1)
    monkeypatch.undo()
    assert go(orchard, tmp_path / "out").counts.featurized == 24


def test_workers_that_write_where_the_driver_does_not_look_end_the_run(
    orchard: Path, tmp_path: Path, monkeypatch
) -> None:
    elsewhere = DataFile("outcome=featurized/elsewhere.parquet", 1, 24, "featurized")
    monkeypatch.setattr(waves, "write", lambda *_, **__: [elsewhere])
    with pytest.raises(SetupError, match="not seen by the driver"):
        go(orchard, tmp_path / "out")
    monkeypatch.undo()
    assert go(orchard, tmp_path / "out").counts.featurized == 24
