"""A job on AWS: what is asked for, and what is known of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Literal

from verger.cloud.account.cloudformation import TAGS
from verger.store.location import Location

RELEASE = "emr-7.14.0"
"""Of EMR: Spark 3.5, with Python 3.11 beside its default."""

RUN_TAG, OUTPUT_TAG, WORK_TAG, END_TAG, ARCH_TAG = "run", "output", "work", "ends-at", "arch"
"""Tags of a job: its id, digests of its output and its work, its end at the latest, processors."""


@dataclass(frozen=True)
class Job:
    """What is asked for.

    Attributes:
        run_id: made for this run: the time in UTC and chance, such as `20260131-1200-a1b2`.
        output: where the results go.
        properties: of Spark; see `submit.spark_properties`.
        entry: URI of the script that starts verger.
        command: of verger, without its weights.
        arch: of the processors.
        machines: types of machine to choose from, the preferred one first.
        subnets: one of which EMR takes, whichever has such machines.
        workers: machines, besides a cluster's primary one; with 0 that one works itself.
        spot: whether all workers but one may be spot machines.
        ends_at: when the money would be spent, and all is ended whatever it does.
        work: `run`, or a digest of the notebook that is executed.
    """

    run_id: str
    output: Location
    properties: Mapping[str, str]
    entry: str
    command: tuple[str, ...]
    arch: Literal["arm64", "x86_64"]
    machines: tuple[str, ...]
    subnets: tuple[str, ...]
    workers: int
    spot: bool
    ends_at: datetime
    work: str = "run"

    @property
    def name(self) -> str:
        """Of the cluster."""
        return f"verger-{self.run_id}"

    @property
    def tags(self) -> dict[str, str]:
        """By which it is found again."""
        return {
            **TAGS,
            RUN_TAG: self.run_id,
            OUTPUT_TAG: output_digest(self.output),
            WORK_TAG: self.work,
            ARCH_TAG: self.arch,
            END_TAG: self.ends_at.isoformat(timespec="seconds"),
        }


@dataclass(frozen=True)
class State:
    """How a job stands.

    Attributes:
        phase: starting, running, ending (the work is over, its machines are not) or ended.
        succeeded: whether the work was done; only once it has ended.
        code: AWS' own word for why it ended.
        reason: the same in a sentence.
    """

    phase: Literal["starting", "running", "ending", "ended"]
    succeeded: bool = False
    code: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Cost:
    """What a job has cost, by the prices that are known.

    Attributes:
        usage: what was used, in words.
        eur: without tax.
    """

    usage: str
    eur: float


def output_digest(output: Location) -> str:
    """Of an output's place, since a tag takes neither all characters nor all lengths."""
    return sha256(output.uri.encode()).hexdigest()[:16]
