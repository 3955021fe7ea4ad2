"""What went wrong with a job on AWS: from the manifest, AWS' word or the job's own log."""

import re
from datetime import datetime

from verger.cloud.account.stack import Stack
from verger.cloud.jobs import logs
from verger.cloud.jobs.cluster import Cluster
from verger.cloud.jobs.job import State
from verger.errors import (
    DeadlineReached,
    InputError,
    SetupError,
    TooManyRejectedError,
    UsageError,
    VergerError,
)
from verger.output.manifest import Manifest

_EXITED = re.compile(r"User application exited with (?:status )?(\d+)")

_ERRORS: dict[int, type[VergerError]] = {
    kind.exit_code: kind
    for kind in (UsageError, InputError, TooManyRejectedError, SetupError, DeadlineReached)
}

ON = "What is done is kept; the same command, without --fresh, goes on from here."
AGAIN = "A notebook begins again: the same command pays for all of it."
"""What giving the same command once more does."""

HINTS = {
    "VALIDATION_ERROR": "If it is a quota: ask AWS for more (console, Service Quotas), or give "
    "fewer --workers.",
    "BOOTSTRAP_FAILURE": "A machine could not be set up. Try again; if it stays so, look at the "
    "network of verger cloud init.",
    "INSTANCE_FAILURE": "Machines were lost, as spot machines may be; those without --spot stay. "
    "{goes_on}",
    "INSUFFICIENT_CAPACITY": "No zone has such machines free now; the quota is not the reason. Try "
    "again later, with another --arch, fewer --workers, or without --spot.",
    "INSTANCE_FLEET_TIMEOUT": "AWS has not enough such machines now. Try again later, with another "
    "--arch, or without --spot.",
    "INTERNAL_ERROR": "AWS failed. {goes_on}",
}
"""What to do, by EMR's word for why a cluster ended; `goes_on` is `ON` or `AGAIN`."""


def problem_of(
    running: Cluster,
    stack: Stack,
    state: State,
    manifest: Manifest | None,
    *,
    now: datetime,
    goes_on: str,
) -> VergerError | None:
    """What went wrong, from the manifest, AWS' word or the job's log, whichever knows best.

    The manifest is None where the job wrote none; `goes_on` is `ON` or `AGAIN`.
    """
    status = manifest.status if manifest else None
    if state.succeeded and status in {"complete", None}:
        return None
    if status == "deadline":
        return DeadlineReached("The money was spent before all images were done.", goes_on)
    end = running.ends_at
    if end is not None and now >= end:
        return DeadlineReached(
            f"The {running.title} did not end in time, and was ended: its job hung.", goes_on
        )
    if state.code in {"USER_REQUEST", "CANCELLED"}:
        return SetupError(
            f"The {running.title} was stopped by someone: {state.reason}".rstrip(": "), goes_on
        )
    if hint := HINTS.get(state.code):
        return SetupError(
            f"The {running.title} ended ({state.code}): {state.reason}",
            hint.format(goes_on=goes_on),
        )
    return _explain(running, stack, state)


def _explain(running: Cluster, stack: Stack, state: State) -> VergerError:
    try:
        texts = [logs.read_log(file) for file in running.logs(stack)]
    except VergerError:
        texts = []
    lines = logs.find_error(texts)
    codes = [int(code) for text in texts for code in _EXITED.findall(text)]
    kind = _ERRORS.get(codes[0], VergerError) if codes else SetupError
    if not lines:
        return kind(
            f"The job failed: {state.reason or state.code or 'AWS does not say why'}",
            "Its log comes within minutes: verger cloud logs",
        )
    if lines[0].startswith("Error: "):
        return kind(f"The job failed: {lines[0].removeprefix('Error: ')}", "\n".join(lines[1:]))
    return kind(f"The job failed: {lines[-1].strip()}", "More of its log: verger cloud logs")
