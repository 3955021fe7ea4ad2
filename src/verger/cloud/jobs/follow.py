"""A job on AWS until it has ended, whatever happens to it: its waves, or its own words."""

from collections.abc import Callable
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import TypeVar

from verger.cloud.account.stack import Stack
from verger.cloud.jobs.cluster import Cluster
from verger.cloud.jobs.inventory import STOP_MINUTES
from verger.cloud.jobs.job import State
from verger.cloud.jobs.logs import read_log
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
        state = _patiently(running.state, progress.note, time)
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
            _patiently(running.stop, progress.note, time)
            told, since = True, time.now()
        elif told and time.now() > since + timedelta(minutes=STOP_MINUTES):
            raise running.not_ended(state)
        time.sleep(time.poll_seconds)


def follow_logs(running: Cluster, stack: Stack, say: Callable[[str], None], time: Time) -> State:
    """Say a job's words as they arrive in the bucket, until it has ended; EMR brings them late.

    Raises:
        VergerError: AWS does not answer for `PATIENCE`, or the bucket is forbidden.
    """
    shown: dict[str, int] = {}

    def read() -> dict[str, str]:
        return {file.uri: read_log(file) for file in running.logs(stack)}

    while True:
        state = _patiently(running.state, say, time)
        for uri, text in _patiently(read, say, time).items():
            lines, before = text.splitlines(), shown.get(uri, 0)
            if lines[before:] and not before:
                say(f"--- {uri}")
            for line in lines[before:]:
                say(line)
            shown[uri] = max(before, len(lines))  # one that cannot be read now is empty
        if state.phase == "ended":
            return state
        time.sleep(time.poll_seconds)


def _patiently(ask: Callable[[], Answer], say: Callable[[str], None], time: Time) -> Answer:
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
                say("AWS does not answer; asking again. The job goes on meanwhile.")
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
