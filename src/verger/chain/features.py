"""Planned images become rows of features, wave by wave, and every file is accounted for."""

from verger.output.layout import DataFile, Outcome
from verger.spark import changes, waves
from verger.spark.account import check_account, take_account
from verger.spark.comparison import Comparison, compare
from verger.spark.connect import share
from verger.spark.extraction import Extractor
from verger.spark.fidelity import measure_fidelity
from verger.spark.run import Run
from verger.spark.waves import Wave, check_deadline


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
        started = this.clock.seconds()
        for wave, written in waves.run_waves(
            spark, this.output, planned, extractor, settings.task_size
        ):
            rewritten, replaced = changes.retire(spark, this.output, this.files, wave)
            this.files.commit([*written, *rewritten], replaced)
            new_rows += sum(file.rows for file in written if file.part == Outcome.FEATURIZED)
            done += wave.count
            pace = (this.clock.seconds() - started) / max(done, 1)
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
    """Count what became of every file.

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
    with this.clock.stage("account"):
        compared = comparison or compare(this.spark, this.output, listing, this.files)
        account = take_account(compared, this.files, new_rows, this.output)
        compared.release()
    listed, this.manifest.counts = this.manifest.counts.listed, account.counts
    this.manifest.rejected_by_reason = account.rejected_by_reason
    check_account(account, listed, this.output, this.settings)
