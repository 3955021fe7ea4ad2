"""The interactive map of all images: embedding-atlas, in an environment of its own."""

import hashlib
import os
import shutil
import socket
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn
from urllib.request import ProxyHandler, build_opener

import pyarrow as pa
from pyarrow.parquet import ParquetWriter

from verger.errors import InputError, SetupError
from verger.images.shrinking import SIDE
from verger.images.thumbnails import find_images, make_thumbnails
from verger.output.files import read_scores
from verger.output.layout import Output
from verger.progress import Progress
from verger.report.data import DAMAGED, tolerant_manifest
from verger.report.scores import Rows, in_batches
from verger.store.location import Location, cache_folder
from verger.store.lock import flock

if TYPE_CHECKING:
    from pyarrow.dataset import Dataset

REQUIREMENTS = "explorer-requirements.txt"
HOST = "127.0.0.1"
START_SECONDS = 120.0
"""What the viewer may take until it answers."""
END_SECONDS = 5.0
"""What it may take to end."""
KEPT_COMPONENTS = 6
"""Components that the viewer gets as columns."""
LOOKED_UP = 65_536
"""Images that are looked up in the table of files at once: each time all its paths are read."""


def make_table(output: Output, progress: Progress) -> Path:
    """Write what the viewer shows to the user's cache, or find it there from before.

    Returns:
        A Parquet file: path, label, pc_1, pc_2 and up to four more, picture (WebP or null).

    Raises:
        InputError: the output is none, or has no scores.
    """
    manifest, _ = tolerant_manifest(output)
    scores = read_scores(output)
    if scores is None:
        raise InputError(
            f"{output.location} has no PCA, so there is no map.", "Let its run end first."
        )
    of_output = hashlib.sha256(str(output.location).encode()).hexdigest()[:32]
    run = f"{manifest.started_at}\n{manifest.finished_at}"
    of_run = hashlib.sha256(run.encode()).hexdigest()[:32]
    table = cache_folder() / "explore" / f"{of_output}-{of_run}.parquet"
    if table.exists() and manifest.status == "complete":
        return table
    table.parent.mkdir(parents=True, exist_ok=True)
    partial = table.with_suffix(f".{os.getpid()}.partial")
    try:
        progress.start("pictures", scores.count_rows())
        _write_table(output, scores, manifest.input, partial, progress)
        progress.finish()
    except DAMAGED as error:
        raise InputError(
            f"{output.scores} cannot be read, or {table.parent} not written: {error}.",
            "Run again, or make room in the cache folder.",
        ) from error
    else:
        partial.replace(table)
        # Images of earlier runs may have been erased since.
        for old in table.parent.glob(f"{of_output}-*.parquet"):
            if old != table:
                old.unlink(missing_ok=True)
    finally:
        partial.unlink(missing_ok=True)
    return table


def install(progress: Progress) -> Path:
    """Make the viewer's environment on first use.

    Returns:
        Its executable.

    Raises:
        SetupError: packages cannot be had, or another process is at it.
    """
    pins = (files("verger.report") / REQUIREMENTS).read_text(encoding="utf-8")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    name = hashlib.sha256(f"{version}\n{pins}".encode()).hexdigest()[:16]
    home = cache_folder() / f"explorer-{name}"
    ready = home / "ready"
    viewer = home / "bin" / "embedding-atlas"
    if ready.exists() and viewer.exists():
        return viewer
    home.parent.mkdir(parents=True, exist_ok=True)
    in_use = SetupError(f"Another process installs into {home}.", "Let it end.")
    lock = os.open(f"{home}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    with flock(lock, str(home), in_use):
        shutil.rmtree(home, ignore_errors=True)
        progress.start("explorer", pins.count("=="))
        try:
            venv.create(home, with_pip=True, symlinks=True)
            (home / REQUIREMENTS).write_text(pins)
            _install_packages(home, progress)
        except (OSError, subprocess.CalledProcessError) as error:
            raise SetupError(
                f"The viewer's environment {home} cannot be made: {error}.",
                "It needs Python's venv, 600 MB of disk, and a package index.",
            ) from error
        ready.touch()
        progress.finish()
    return viewer


@contextmanager
def serving(
    viewer: Path, table: Path, port: int, progress: Progress
) -> Iterator[tuple[str, Callable[[], NoReturn]]]:
    """Run the viewer on loopback; it ends with the block.

    Args:
        viewer: its executable.
        table: what `make_table` wrote.
        port: 0 for any that is free.
        progress: is told that it starts.

    Yields:
        Its address, and what waits until it ends by itself, which is a SetupError.

    Raises:
        SetupError: the port is taken, or it ends, or does not answer.
    """
    port = _free_port(port)
    address = f"http://{HOST}:{port}/"
    log = table.with_suffix(".log")
    command = [str(viewer), str(table), "--x", "pc_1", "--y", "pc_2", "--image", "picture"]
    # Queries run in the browser: on the server, any page could send it SQL.
    command += ["--duckdb", "wasm", "--host", HOST, "--port", str(port), "--no-auto-port"]
    progress.start("viewer")
    with log.open("wb") as stream:
        process = subprocess.Popen(  # noqa: S603 - the viewer that was installed for this
            command, stdout=stream, stderr=stream
        )

        def wait() -> NoReturn:
            process.wait()
            raise _ended(log)

        try:
            _wait_until_ready(process, address, log)
            progress.finish()
            yield address, wait
        finally:
            _end(process)


def _write_table(
    output: Output, scores: "Dataset", place: str, target: Path, progress: Progress
) -> None:
    folder = None if place == "?" else Location.parse(place)
    done = 0
    writer: ParquetWriter | None = None
    try:
        for rows in _together(scores):
            paths = [str(path) for path in rows.paths]
            listed, kept = find_images(output, set(paths), thumbnails=True)
            images = [listed[path] for path in paths]
            pictures: list[dict[str, bytes] | None] = []
            for _, webp in make_thumbnails(folder, images, SIDE, kept=kept) if folder else ():
                pictures.append({"bytes": webp} if webp else None)
                progress.update(done + len(pictures))
            columns = {"path": pa.array(paths), "label": pa.array(rows.labels, pa.string())}
            for index in range(max(2, rows.scores.shape[1])):
                # A single component lies on a line.
                known = index < rows.scores.shape[1]
                values = rows.scores[:, index] if known else [0.0] * len(rows)
                columns[f"pc_{index + 1}"] = pa.array(values, pa.float32())
            shape = pa.struct([("bytes", pa.binary())])
            columns["picture"] = pa.array(pictures or [None] * len(rows), shape)
            batch = pa.table(columns)
            writer = writer or ParquetWriter(target, batch.schema)
            writer.write_table(batch)
            done += len(rows)
    finally:
        if writer:
            writer.close()


def _together(scores: "Dataset") -> Iterator[Rows]:
    """The scores on the components that are shown, of about `LOOKED_UP` images at a time."""
    held: list[Rows] = []
    for rows in in_batches(scores):
        held.append(replace(rows, scores=rows.scores[:, :KEPT_COMPONENTS].copy()))
        if sum(map(len, held)) >= LOOKED_UP:
            yield Rows.join(held)
            held = []
    if held:
        yield Rows.join(held)


def _install_packages(home: Path, progress: Progress) -> None:
    pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check"]
    options = ["--no-input", "--no-deps", "--require-hashes", "--progress-bar", "off"]
    log = home / "pip.log"
    with (
        log.open("w") as lines,
        subprocess.Popen(  # noqa: S603 - pip, in the environment just made
            [*pip, *options, "--requirement", str(home / REQUIREMENTS)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process,
    ):
        try:
            collected = 0
            for line in process.stdout or ():
                lines.write(line)
                collected += line.startswith("Collecting")
                progress.update(collected)
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise OSError(_last_line(log))


def _wait_until_ready(process: "subprocess.Popen[bytes]", address: str, log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    ask = build_opener(ProxyHandler({})).open  # no proxy is on the way to this machine
    while time.monotonic() < end:
        if process.poll() is not None:
            raise _ended(log)
        try:
            with ask(address, timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise SetupError(f"The viewer does not answer at {address}.", f"What it said is in {log}.")


def _ended(log: Path) -> SetupError:
    return SetupError(f"The viewer ended: {_last_line(log)}", f"All it said is in {log}.")


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        pass  # it waits for a browser that does not hang up
    finally:
        process.kill()
        process.wait()


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "nothing was said")


def _free_port(wanted: int) -> int:
    # Looked at before: whoever has it would answer in the place of the viewer.
    try:
        with socket.create_server((HOST, wanted)) as one:
            return int(one.getsockname()[1])
    except OSError as error:
        raise SetupError(
            f"The viewer cannot listen on {HOST} port {wanted}: {error.strerror}.",
            "Another program may have the port: give another one, or none.",
        ) from error
