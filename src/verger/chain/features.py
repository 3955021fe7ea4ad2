"""Planned images become rows of features, wave by wave, and every file is accounted for."""

from time import monotonic

from verger.errors import DefectError, InputError, TooManyRejectedError
from verger.images.opening import READ
from verger.output.layout import DataFile, Outcome, Reason
from verger.output.manifest import Counts
from verger.spark import changes, matrix, waves
from verger.spark.comparison import CHANGED, GONE, NEW, SAME, Comparison, compare
from verger.spark.connect import share
from verger.spark.extraction import Extractor
from verger.spark.fidelity import measure_fidelity
from verger.spark.run import Run
from verger.spark.takeover import remove_old, take_over
from verger.spark.waves import Wave, check_deadline


def plan(
    this: Run, listing: list[DataFile], *, packed: bool
) -> tuple[list[Wave], Comparison | None]:
    """Compare the listing with the table, and plan waves of what is to be done.

    Returns:
        The waves, and the comparison where there are none: nothing will change it.
    """
    settings, clock, listed = this.settings, this.clock, this.manifest.counts.listed
    known = this.old_identity is not None
    if not known and listed <= settings.wave_size:
        return [Wave(tuple(listing))], None
    if known and this.old:
        clock.progress.note("The output is of an earlier version; its features are kept.")
        this.files.commit(take_over(this.spark(), this.output, this.old), [])
        matrix.remove_scores(this.output)
        remove_old(this.output)
    if this.files.properties["input"] != str(settings.input):
        with clock.stage("plan"):
            new = changes.rebase(this.spark(), this.output, listing, this.files)
            this.files.commit(new, this.files.files())
            this.files.set_properties({"input": str(settings.input)})
    with clock.stage("plan"):
        compared = compare(
            this.spark, this.output, listing, this.files, retry_rejected=settings.retry_rejected
        )
    if known:
        clock.progress.note(compared.describe(listed, prune=settings.prune))
    if not any(compared.to_do(prune=settings.prune)):
        return [], compared
    with clock.stage("waves"):
        planned = changes.plan_waves(
            compared, this.output, settings.wave_size, prune=settings.prune, packed=packed
        )
    compared.release()
    return planned, None


def extract(this: Run, planned: list[Wave], *, packed: bool) -> int:
    """Extract the planned waves, and commit each; how many rows of features are new.

    Raises:
        DeadlineReached: there is no time for another wave; what is committed is kept.
    """
    if not planned:
        return 0
    settings, spark = this.settings, this.spark()
    extractor = Extractor.of(
        settings, share(spark, this.backbone), spark, packed=packed, decoding=this.identity.decoding
    )
    images, done, new_rows = sum(wave.count for wave in planned), 0, 0
    check_deadline(settings, images, seconds_an_image=0)
    with (
        this.clock.stage("extract", images),
        waves.watched(extractor, images, this.clock.progress) as extractor,
    ):
        started = monotonic()
        for wave, written in waves.run_waves(
            spark, this.output, planned, extractor, settings.task_size
        ):
            rewritten, replaced = changes.retire(spark, this.output, this.files, wave)
            this.files.commit([*written, *rewritten], replaced)
            new_rows += sum(file.rows for file in written if file.part == Outcome.FEATURIZED)
            done += wave.count
            pace = (monotonic() - started) / max(done, 1)
            check_deadline(settings, images - done, pace)
    if images:
        this.manifest.images_per_second = round(images / this.clock.timings["extract"], 1)
    if images and settings.precision == "bf16":
        with this.clock.stage("fidelity"):
            this.manifest.fidelity = measure_fidelity(
                spark, this.output, this.files, extractor, this.backbone
            )
    return new_rows


def account(
    this: Run, listing: list[DataFile], comparison: Comparison | None, new_rows: int
) -> None:
    """Count what became of every file: nothing is lost, and nothing is there twice.

    Args:
        this: the run.
        listing: what was listed.
        comparison: of the listing with the table, where nothing has changed since it was made.
        new_rows: rows of features that this run committed.

    Raises:
        DefectError: the counts do not reconcile.
        InputError: there is no image.
        TooManyRejectedError: more of them were rejected than is allowed.
    """
    listed = this.manifest.counts.listed
    with this.clock.stage("account"):
        compared = comparison or compare(this.spark, this.output, listing, this.files)
        this.manifest.counts = _count(this, compared, new_rows)
        rejected = {
            str(reason): count
            for (state, outcome, reason), count in compared.counts.items()
            if state == SAME and outcome == Outcome.REJECTED
        }
        compared.release()
    by_count = sorted(rejected.items(), key=lambda item: (-item[1], item[0]))
    this.manifest.rejected_by_reason = dict(by_count)
    _check_counts(this, listed)


def _count(this: Run, compared: Comparison, new_rows: int) -> Counts:
    """What became of every file, by the comparison of the listing with the table as it is on disk.

    Raises:
        DefectError: a listed file is not in the table, or is there as it was not listed.
    """
    of_listed = compared.count(SAME, outcome=Outcome.FEATURIZED)
    counts = Counts(
        featurized=new_rows,
        reused=of_listed - new_rows,
        rejected=compared.count(SAME, outcome=Outcome.REJECTED),
        kept=compared.count(GONE, outcome=Outcome.FEATURIZED),
    )
    counts.listed = counts.featurized + counts.reused + counts.rejected
    wrong = [
        f"{compared.count(state)} {state}" for state in (NEW, CHANGED) if compared.count(state)
    ]
    if counts.reused < 0:
        wrong.append(f"{-counts.reused} featurized but lost")
    rows = this.files.counts()[Outcome.FEATURIZED]
    if counts.rows != rows:
        wrong.append(f"{counts.rows} rows instead of {rows}")
    if wrong:
        raise DefectError(f"{this.output.location} does not reconcile: {', '.join(wrong)}.")
    return counts


def _check_counts(this: Run, listed: int) -> None:
    """Refuse counts that do not add up, an input without images, and one with too many bad ones."""
    settings, output = this.settings, this.output
    counts, reasons = this.manifest.counts, this.manifest.rejected_by_reason
    if counts.listed != listed:
        raise DefectError(
            f"{listed} files were listed, but {counts.listed} are accounted for in "
            f"{output.location}."
        )
    foreign = reasons.get(Reason.NOT_AN_IMAGE, 0)
    images = counts.listed - foreign
    if not counts.rows and counts.rejected == foreign:
        raise InputError(
            f"None of the {counts.listed} files in {settings.input} is an image.",
            f"{READ} are read, by their content.",
        )
    lost = counts.rejected - foreign
    # A share such as 0.29 is not exact: 29 of 100 are not more.
    if lost > settings.max_rejected * images + 1e-9:
        reasons_in_words = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
        raise TooManyRejectedError(
            f"{lost} of {images} images were rejected ({reasons_in_words}), more than "
            f"{settings.max_rejected:.2%}.",
            f"See {output.rejected}; --max-rejected allows more. The features are kept.",
        )
