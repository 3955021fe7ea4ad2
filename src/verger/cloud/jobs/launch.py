"""A run on AWS from beginning to end: looked up, planned, started, followed, and gone."""

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from verger.cloud.account import places
from verger.cloud.account.stack import Stack
from verger.cloud.jobs import download, follow
from verger.cloud.jobs.check import check_before_run
from verger.cloud.jobs.cluster import Cluster, cluster_request, list_clusters, start_cluster
from verger.cloud.jobs.failures import AGAIN, ON, problem_of
from verger.cloud.jobs.job import OUTPUT_TAG, WORK_TAG, Cost, output_digest
from verger.cloud.jobs.prepare import Launch, make_job
from verger.errors import DefectError, InputError, SetupError, UsageError, VergerError
from verger.images.listing import list_input
from verger.output.files import open_files
from verger.output.layout import Output, check_foreign, check_no_run
from verger.output.manifest import Manifest, read_manifest
from verger.progress import Progress
from verger.store.objects import PAGE_SIZE


@dataclass(frozen=True)
class Ended:
    """A job that has ended, well or not.

    Attributes:
        running: the job.
        manifest: of its output; None where it wrote none.
        problem: what went wrong, if anything did.
        cost: None where AWS did not say.
    """

    running: Cluster
    manifest: Manifest | None
    problem: VergerError | None
    cost: Cost | None


def launch(wanted: Launch, progress: Progress) -> tuple[Manifest, Cost | None]:
    """Run on AWS, and see that nothing is left running.

    A run to the same output that is under way already is followed instead of a new one.

    Returns:
        The manifest of the output, and the cost; None where AWS did not say.

    Raises:
        UsageError: a notebook is being executed to the same output.
        RefusedError: something is not inside the European Union, or the money does not suffice.
        DeadlineReached: the money was spent before the work was done; it can be resumed.
        VergerError: another of its children; on each, it was said whether something still runs.
    """
    ended = see_through(wanted, progress)
    if ended.problem is not None:
        raise ended.problem
    output = wanted.run.output
    if ended.manifest is None:
        raise DefectError(f"The {ended.running.title} succeeded and left no manifest in {output}.")
    if wanted.download is not None:
        download.download(ended.running.session, output, wanted.download, progress)
    return ended.manifest, ended.cost


def see_through(wanted: Launch, progress: Progress) -> Ended:
    """Start a job, or find the one that does the same to the same output; follow it to its end.

    Raises:
        VergerError: as `launch`, of all that goes wrong before or beside the job itself.
    """
    started = _start(wanted, progress)
    running, output = started.running, Output(wanted.run.output)
    listed = None if wanted.notebook else started.listed
    try:
        progress.note(f"{started.word} {_how_to_stop(running)}")
        state = follow.follow(running, output, listed, progress, wanted.time)
    except BaseException:
        progress.note(
            f"As far as is known, the {running.title} still runs and costs money. "
            f"{_how_to_stop(running)}"
        )
        raise
    progress.note(f"The {running.title} has ended: no machine runs.")
    try:
        cost = _cost(running, progress)
    finally:
        try:
            running.clean_up()
        except VergerError as error:
            progress.note(f"{error.message} It costs nothing. To take it away: verger cloud stop")
    manifest = _manifest(output, running)
    goes_on = AGAIN if wanted.notebook else ON
    now = wanted.time.now()
    problem = problem_of(running, started.stack, state, manifest, now=now, goes_on=goes_on)
    return Ended(running, manifest, problem, cost)


def start(wanted: Launch, progress: Progress) -> None:
    """Start a job and leave it to itself; the same launch, given again, follows it.

    Raises:
        VergerError: as `launch`, of all that goes wrong before it runs.
    """
    started = _start(wanted, progress)
    progress.note(
        f"{started.word} {_how_to_stop(started.running)}. The same command without --detach "
        "follows it; its results are in the bucket."
    )


def request(wanted: Launch, progress: Progress) -> dict[str, Any]:
    """What EMR's RunJobFlow would be asked; nothing is made or started.

    Raises:
        VergerError: as `launch`, of all that would be refused.
    """
    place = places.find_place(wanted.run.input, wanted.run.output)
    output = Output(wanted.run.output)
    listed, done = _count(wanted, output, progress)
    _check_output(wanted, output)
    check_before_run(place.session, place.stack, progress)
    job = make_job(place, wanted, listed - done, progress, upload=False)
    return cluster_request(job, place.stack)


@dataclass(frozen=True)
class _Started:
    stack: Stack
    running: Cluster
    listed: int
    word: str


def _start(wanted: Launch, progress: Progress) -> _Started:
    """Start a job, or find the one that does the same to the same output."""
    place = places.find_place(wanted.run.input, wanted.run.output)
    session, stack, output = place.session, place.stack, Output(wanted.run.output)
    listed, done = _count(wanted, output, progress)
    running = _find(session, stack, wanted)
    if running is not None:
        word = f"The {running.title} works on this output already; following it."
        return _Started(stack, running, listed, word)
    _check_output(wanted, output)
    progress.note("Nothing runs on AWS yet.")
    if not wanted.checked:
        check_before_run(session, stack, progress)
    if listed == done:
        progress.note(f"All {listed:,} images are done; the run only looks for changed ones.")
    job = make_job(place, wanted, listed - done, progress)
    running = start_cluster(session, stack, job, progress)
    return _Started(stack, running, listed, f"Started the {running.title}.")


def _count(wanted: Launch, output: Output, progress: Progress) -> tuple[int, int]:
    """How many images there are, and how many of them are done; a notebook does all again."""
    run = wanted.run
    listed = 0
    images = list_input(run.input, run.label_from)
    progress.start("list")
    for listed, _ in enumerate(images, start=1):
        if listed % PAGE_SIZE == 0:
            progress.update(listed)
    progress.update(listed)
    progress.finish()
    listed = min(listed, run.limit or listed)
    done = 0 if run.fresh or wanted.notebook else open_files(output).counts().total()
    return listed, min(done, listed)


def _check_output(wanted: Launch, output: Output) -> None:
    """Refuse here, before money is spent, what the job would refuse there."""
    if wanted.notebook is not None:
        check_no_run(output)
    elif wanted.run.fresh or not open_files(output).exists:
        check_foreign(output)


def _find(session: object, stack: Stack, wanted: Launch) -> Cluster | None:
    """A job of ours that does the same to the same output.

    Raises:
        UsageError: one does something else to it.
    """
    digest = output_digest(wanted.run.output)
    for running in list_clusters(session, stack.region):
        if running.tags.get(OUTPUT_TAG) == digest and running.state().phase != "ended":
            if running.tags.get(WORK_TAG) != wanted.work:
                raise UsageError(
                    f"The {running.title} works on {wanted.run.output}, and does something else.",
                    "Wait for it (verger cloud status), or give another --output.",
                )
            return running
    return None


def _how_to_stop(running: Cluster) -> str:
    end = running.ends_at
    latest = f", by {end.astimezone(timezone.utc):%Y-%m-%d %H:%M} UTC at the latest" if end else ""
    return f"It ends by itself with its work{latest}. To stop it now: verger cloud stop"


def _manifest(output: Output, running: Cluster) -> Manifest | None:
    """The manifest of this run; None where the job did not get so far."""
    try:
        manifest = read_manifest(output)
    except InputError:
        return None
    except OSError as error:
        raise SetupError(
            f"The job has ended, and its manifest cannot be read: {error}",
            f"No machine runs. When S3 answers again, look at {output.manifest}.",
        ) from error
    is_older = datetime.fromisoformat(manifest.started_at) < running.asked_at
    return None if is_older else manifest


def _cost(running: Cluster, progress: Progress) -> Cost | None:
    try:
        cost = running.cost()
    except VergerError as error:
        progress.note(f"What it cost is not known: {error.message}")
        return None
    progress.note(f"It cost about {cost.eur:.2f} EUR ({cost.usage}).")
    return cost
