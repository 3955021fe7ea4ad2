"""All that is ours on AWS, in all regions of the Union: found by its tags, and stopped."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from verger.cloud.jobs.cluster import Cluster, list_clusters
from verger.errors import VergerError
from verger.progress import Progress, Time
from verger.store.regions import EU_REGIONS, OPT_IN

STOP_MINUTES = 30
"""Machines may take so long to end."""


@dataclass(frozen=True)
class Inventory:
    """What was found.

    Attributes:
        running: jobs of ours.
        unseen: where AWS did not answer, and why.
        off: regions that are off in the account, or that do not know these credentials.
    """

    running: tuple[Cluster, ...]
    unseen: dict[str, str]
    off: tuple[str, ...] = ()


def take_inventory(session: Any, since: datetime | None = None) -> Inventory:
    """Look into all regions of the Union that the credentials are for.

    What is found is there now, or was made since a time, ended or not.

    Raises:
        SetupError: no region answers.
    """
    partition = session.get_partition_for_region(session.region_name)
    running: list[Cluster] = []
    unseen: dict[str, str] = {}
    off: list[str] = []
    problems: list[VergerError] = []
    answered = False
    for region in EU_REGIONS:
        if session.get_partition_for_region(region) != partition:
            continue
        try:
            running += list_clusters(session, region, since)
            answered = True
        except VergerError as error:
            problems.append(error)
            if region != session.region_name and _is_off(region, error):
                off.append(region)
            else:
                unseen[f"Clusters in {region}"] = error.message
    if problems and not answered:
        raise problems[0]
    return Inventory(tuple(running), unseen, tuple(off))


def _is_off(region: str, error: VergerError) -> bool:
    from botocore.exceptions import ClientError

    cause = error.__cause__
    codes = {"UnrecognizedClientException", "InvalidClientTokenId"}
    return (
        region in OPT_IN
        and isinstance(cause, ClientError)
        and cause.response["Error"]["Code"] in codes
    )


def stop_all(running: Sequence[Cluster], progress: Progress, time: Time) -> None:
    """Stop jobs, wait until AWS says that each has ended, and take away what is left of them.

    Raises:
        SetupError: AWS refuses, or one does not end; all others are stopped even so.
    """
    problems: list[VergerError] = []
    for one in running:
        try:
            if one.state().phase != "ended":
                one.stop()
        except VergerError as error:
            problems.append(error)
    for one in running:
        try:
            _wait_until_ended(one, progress, time)
            one.clean_up()
            progress.note(f"Stopped: {one.title}")
        except VergerError as error:
            problems.append(error)
    if problems:
        raise problems[0]


def _wait_until_ended(running: Cluster, progress: Progress, time: Time) -> None:
    progress.start("ending")
    for _ in range(int(STOP_MINUTES * 60 / time.poll_seconds)):
        state = running.state()
        if state.phase == "ended":
            progress.finish()
            return
        time.sleep(time.poll_seconds)
    raise running.not_ended(state)
