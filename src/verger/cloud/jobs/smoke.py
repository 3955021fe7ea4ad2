"""The first run in an account: small, compared with this machine, removed, and written down."""

import re
import secrets
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset as ds

from verger.cloud.account import stack as stacks
from verger.cloud.account.erase import delete_bucket, erase
from verger.cloud.account.upload import upload_images
from verger.cloud.jobs.bundle import Architecture
from verger.cloud.jobs.check import check_account, raise_first
from verger.cloud.jobs.launch import launch
from verger.cloud.jobs.prepare import Launch
from verger.datasets.demo import write_demo_images
from verger.errors import DefectError, SetupError, VergerError
from verger.progress import TIME, Progress, Time
from verger.settings import RunSettings
from verger.store.location import Location

IMAGES = 200

EXPECTED_EUR = 0.15
"""What it should cost; more is said, and is no failure."""

TOLERANCE = 1e-3
"""Between features of one image on two machines, as between the two engines."""


class Transcript(Progress):
    """Passes on what is told, and keeps the notes and stages without numbers of accounts."""

    def __init__(self, inner: Progress, time: Time) -> None:
        self.inner, self.time = inner, time
        self.begun = time.now()
        self.lines: list[str] = []

    def start(self, stage: str, total: int | None = None) -> None:
        """Keep when a stage began."""
        self._keep(f"[{stage}]")
        self.inner.start(stage, total)

    def update(self, done: int, rejected: int = 0) -> None:
        """Only shown."""
        self.inner.update(done, rejected)

    def finish(self) -> None:
        """Only shown."""
        self.inner.finish()

    def note(self, text: str) -> None:
        """Keep what the reader is told."""
        self._keep(text)
        self.inner.note(text)

    def _keep(self, text: str) -> None:
        minutes, seconds = divmod(int((self.time.now() - self.begun).total_seconds()), 60)
        self.lines.append(f"{minutes:3}:{seconds:02} {without_accounts(text)}")


def without_accounts(text: str) -> str:
    """A text without numbers of accounts."""
    return re.sub(r"(?<!\d)\d{12}(?!\d)", "ACCOUNT", text)


def smoke(
    session: Any,
    run_here: Callable[[RunSettings], object],
    progress: Progress,
    *,
    arch: Architecture = "arm64",
    max_cost: float = 0.5,
    time: Time = TIME,
) -> int:
    """Run a few rendered images on a cluster of one worker, compare, and remove everything.

    A stack that was there before stays; what the smoke test put into its bucket goes.

    Args:
        session: a session of boto3, for the region where to run.
        run_here: runs the same on this machine.
        progress: who is told how far it is.
        arch: of the processors.
        max_cost: in euros.
        time: by which it waits.

    Returns:
        How many images there are, on both sides.

    Raises:
        DefectError: the cluster's result is another than that of this machine.
        VergerError: as `check.raise_first` and `launch.launch`, after all was removed.
    """
    name = f"verger-smoke-{secrets.token_hex(4)}"
    findings = list(check_account(session, arch, bucket=name))
    for one in findings:
        progress.note(f"{one.what}: {one.level}, {one.found}")
    raise_first(findings)
    try:
        stack = stacks.find_stack(session)
        is_new = False
    except SetupError:
        progress.note(f"Making the stack, with the bucket {name}.")
        stack, is_new = stacks.create_stack(session, name), True
    place = Location(f"s3://{stack.bucket}/{stack.key(stacks.TEMPORARY, name)}")
    try:
        with tempfile.TemporaryDirectory() as scratch:
            images = Path(scratch, "images")
            write_demo_images(images, images=IMAGES)
            run_here(RunSettings(input=Location(str(images)), output=Location(f"{scratch}/here")))
            upload_images(session, Location(str(images)), place.child("in"), progress)
            wanted = Launch(
                run=RunSettings(input=place.child("in"), output=place.child("out")),
                workers=1,
                arch=arch,
                max_cost=max_cost,
                download=Path(scratch, "there"),
                checked=True,
                time=time,
            )
            return _compare_both(wanted, Path(scratch), progress)
    finally:
        _remove(session, stack.bucket if is_new else None, place, progress, time)


def _compare_both(wanted: Launch, scratch: Path, progress: Progress) -> int:
    _, cost = launch(wanted, progress)
    here, there = _features(scratch / "here"), _features(scratch / "there")
    if here.keys() != there.keys():
        raise DefectError(f"{len(here)} images have features here and {len(there)} on the cluster.")
    largest = max(float(np.abs(here[path] - there[path]).max()) for path in here)
    if largest > TOLERANCE:
        raise DefectError(
            f"Features of the cluster differ from those of this machine by up to {largest:.2g}."
        )
    progress.note(f"{len(here)} images, largest difference of a feature {largest:.2g}.")
    if cost is not None:
        more = "" if cost.eur <= EXPECTED_EUR else ", more than expected"
        progress.note(f"It cost {cost.eur:.2f} EUR without tax{more}.")
    return len(here)


def _features(output: Path) -> dict[str, np.ndarray]:
    table = ds.dataset(output / "files/outcome=featurized", format="parquet").to_table(
        columns=["path", "features"]
    )
    rows = zip(table["path"].to_pylist(), table["features"].to_pylist(), strict=True)
    return {path: np.array(features) for path, features in rows}


def _remove(
    session: Any, bucket: str | None, place: Location, progress: Progress, time: Time
) -> None:
    """Take away what was made; what cannot be is said, since it is what the reader has to do."""
    try:
        erase(session, place, progress)
        if bucket is not None:
            erase(session, Location(f"s3://{bucket}"), progress)
            stacks.delete_stack(session, time)
            delete_bucket(session, bucket, progress, time)
        progress.note("All that it made is removed.")
    except VergerError as error:
        again = f"verger cloud destroy --region {session.region_name} --purge"
        progress.note(
            f"Not all is removed: {error.message} "
            + (f"Give: {again} --bucket {bucket}" if bucket else f"Erase {place}.")
        )
