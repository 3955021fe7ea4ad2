"""How far a job on AWS is, by its own waves, until it has ended, whatever happens to it."""

from collections.abc import Callable
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import TypeVar

from verger.cloud.jobs.cluster import Cluster
from verger.cloud.jobs.inventory import STOP_MINUTES
from verger.cloud.jobs.job import State
from verger.errors import SetupError, VergerError
from verger.output.files import open_files
from verger.output.layout import Outcome, Output
from verger.progress import Progress, Time

PATIENCE = timedelta(minutes=10)
"""How long AWS may not answer before the reader is told."""

GRACE = timedelta(minutes=2)
"""What the clock in the account is given before this one ends a job that is out of time."""

ENDING = timedelta(minutes=10)
"""What machines may take to end after their work before they are told to."""

STAGES = {"starting": "machines", "ending": "ending"}

Answer = TypeVar("Answer")


def follow(
    running: Cluster,
    output: Output,
    listed: int | None,
    progress: Progress,
    time: Time,
) -> State:
    """Show the waves that a job commits until it has ended; end it when its time is over.

    Args:
        running: the job.
        output: where it writes.
        listed: how many images there are; None for a notebook, whose waves nobody knows.
        progress: is shown them.
        time: by which it waits.

    Raises:
        SetupError: AWS does not answer for `PATIENCE`, or the job does not end.
    """
    shown, since, told = "", time.now(), False
    ends_at = running.ends_at
    while True:
        state = _patiently(running.state, progress, time)
        if state.phase == "ended":
            if shown:
                progress.finish()
            return state
        stage = STAGES.get(state.phase, "notebook" if listed is None else "extract")
        if stage != shown:
            if shown:
                progress.finish()
            progress.start(stage, listed if stage == "extract" else None)
            shown, since = stage, time.now()
        if stage == "extract":
            progress.update(*_done(output))
        late = ends_at is not None and time.now() > ends_at + GRACE
        idle = state.phase == "ending" and time.now() > since + ENDING
        if (late or idle) and not told:
            progress.note(f"The {running.title} is out of time and is told to end.")
            _patiently(running.stop, progress, time)
            told, since = True, time.now()
        elif told and time.now() > since + timedelta(minutes=STOP_MINUTES):
            raise running.not_ended(state)
        time.sleep(time.poll_seconds)


def _patiently(ask: Callable[[], Answer], progress: Progress, time: Time) -> Answer:
    """Ask AWS again while the network is away."""
    lost: datetime | None = None
    while True:
        try:
            return ask()
        except SetupError as error:
            if not _may_pass(error.__cause__):
                raise
            if lost is None:
                lost = time.now()
                progress.note("AWS does not answer; asking again. The job goes on meanwhile.")
            if time.now() > lost + PATIENCE:
                raise
        time.sleep(time.poll_seconds)


def _may_pass(cause: BaseException | None) -> bool:
    """Whether an error of botocore is of the network, or of a service that is busy."""
    from botocore.exceptions import ClientError, HTTPClientError
    from botocore.exceptions import ConnectionError as BotoConnectionError

    if isinstance(cause, ClientError):
        status = cause.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        code = cause.response.get("Error", {}).get("Code", "")
        return status >= HTTPStatus.INTERNAL_SERVER_ERROR or "Throttl" in code
    return isinstance(cause, (HTTPClientError, BotoConnectionError))


def _done(output: Output) -> tuple[int, int]:
    """Images in committed waves, and how many of them were rejected."""
    try:
        counts = open_files(output).counts()
    except (VergerError, OSError):  # only a bar hangs on it
        return 0, 0
    return counts.total(), counts[Outcome.REJECTED]
