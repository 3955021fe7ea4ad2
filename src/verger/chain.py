"""The whole chain on one page: list, plan, extract, account, reduce, write."""

import itertools
from collections.abc import Iterator

from verger.errors import DeadlineReached, InputError, TooManyRejectedError, VergerError
from verger.images.listing import Noticed, at_least_one, list_input
from verger.networks.engines import check_runs_here
from verger.networks.graph import load_backbone
from verger.output.files import count_special, locked
from verger.output.layout import DataFile, ListedImage, Outcome, Output
from verger.output.manifest import Manifest, Status, now
from verger.progress import Clock, Progress
from verger.recognise.fit import check_classes, fit, grow
from verger.recognise.recogniser import (
    Recogniser,
    RecogniserRecord,
    find_recogniser,
    read_record,
    write_record,
)
from verger.reduce.moments import Statistics
from verger.reduce.pca import Pca, Projection, check_components, solve
from verger.reduce.sample import SAMPLE_IMAGES, Draw, Sample
from verger.report.page import write_report
from verger.settings import RunSettings
from verger.spark import changes, matrix, statistics, waves
from verger.spark.account import check_account, take_account
from verger.spark.comparison import Comparison, compare
from verger.spark.connect import share
from verger.spark.extraction import Extractor
from verger.spark.failures import spark_errors
from verger.spark.fidelity import measure_fidelity
from verger.spark.java import is_submitted
from verger.spark.model import is_whole, load_projection, write_model
from verger.spark.planning import plan
from verger.spark.run import Run, begin, check_output, check_places, prepare
from verger.spark.sample import sample_images
from verger.spark.scan import Scan
from verger.spark.waves import Wave, check_deadline
from verger.store import storage


def run(
    settings: RunSettings, progress: Progress | None = None, *, debug: bool = False
) -> Manifest:
    """Turn the images of `settings.input` into features and a PCA matrix in `settings.output`.

    Args:
        settings: what to do.
        progress: who is told how far it is.
        debug: show Spark's log.

    Returns:
        The manifest, as it stands in the output.

    Raises:
        VergerError: one of its children, by what went wrong; see `verger.errors`.
    """
    clock = Clock(progress or Progress())
    check_places(settings)
    noticed = Noticed()
    listed = list_input(settings.input, settings.label_from, noticed)
    images = at_least_one(listed, settings.input)
    first = next(images)
    packed = first.shard is not None
    with clock.stage("backbone"):
        backbone = load_backbone(
            settings.weights, settings.engine, settings.precision, settings.network
        )
        check_runs_here(backbone)
    with spark_errors(), locked(Output(settings.output)) as check_lock:
        this = begin(settings, backbone, clock, check_lock, debug=debug)
        before, had = check_output(this), this.files.files(Outcome.FEATURIZED)
        if is_submitted():
            # YARN ends a driver that has no session after some minutes; a listing may take longer.
            this.spark()
        listing = _list(this, itertools.chain([first], images), noticed)
        known = prepare(this)
        try:
            planned, comparison = plan(this, listing, known=known, packed=packed)
            new_rows = _extract(this, planned, packed=packed)
            _account(this, listing, None if planned else comparison, new_rows)
        except DeadlineReached:
            _end(this, "deadline")
            raise
        except TooManyRejectedError:
            this.files.check()
            matrix.withdraw(this.output, keep_model=settings.keep_pca)
            _end(this, "too_many_rejected")
            raise
        if before and not planned and _is_up_to_date(this, before):
            this.clock.progress.note("The matrix is as it was.")
            return _complete(this, before.components, before.explained_variance_ratio, before)
        projection = _reduce(this, _added(this, before, had))
        return _complete(this, projection.components.shape[1], projection.kept_ratio)


def _list(this: Run, images: Iterator[ListedImage], noticed: Noticed) -> list[DataFile]:
    """Save the listing; in which files it is."""
    with this.clock.stage("list"):
        limited = itertools.islice(images, this.settings.limit)
        listing = waves.save_listing(limited, this.output, this.clock.progress)
    for note in noticed.notes():
        this.clock.progress.note(note)
    this.manifest.passed_over = noticed.passed_over
    listed = this.manifest.counts.listed = sum(file.rows for file in listing)
    if this.settings.model is None:
        rows, width = listed + this.known, this.backbone.network.width
        check_components(this.settings.components, rows, width)
    return listing


def _extract(this: Run, planned: list[Wave], *, packed: bool) -> int:
    """Extract the planned waves, and commit each; how many rows of features are new.

    Raises:
        DeadlineReached: there is no time for another wave; what is committed is kept.
    """
    if not planned:
        return 0
    settings, spark = this.settings, this.spark()
    extractor = Extractor.of(
        settings,
        share(spark, this.backbone),
        spark,
        packed=packed,
        decoding=this.identity.decoding,
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


def _account(
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


def _added(this: Run, before: Manifest | None, had: list[DataFile]) -> list[DataFile] | None:
    """The files of features that the matrix of an earlier run lacks; None where it goes.

    Args:
        this: the run.
        before: the manifest of the run before.
        had: the files of features when this run began.
    """
    now = this.files.files(Outcome.FEATURIZED)
    stays = this.settings.keep_pca and before is not None and before.status == "complete"
    # Rows that changed or went are in files that are gone.
    stays = stays and this.scores.exists and set(had) <= set(now)
    if not stays or this.scores.counts().total() != sum(file.rows for file in had):
        return None
    return [file for file in now if file not in had]


def _reduce(this: Run, added: list[DataFile] | None) -> Projection:
    """Write the matrix of all rows, and the model where it was fitted.

    Args:
        this: the run.
        added: the files of features to add to the matrix that is there; None to make it anew.
    """
    this.files.check()
    spark, settings, output = this.spark(), this.settings, this.output
    recogniser = None if added is None else find_recogniser(output)
    storage.delete(output.report)
    storage.delete(output.recogniser)
    matrix.remove_csv(output)
    projection: Projection | Pca
    taken = None
    if settings.keep_pca or settings.model:
        projection = load_projection(settings.model or output.model)
    else:
        storage.delete(output.model)
        try:
            with this.clock.stage("fit"):
                taken = statistics.take_statistics(spark, output, this.files)
                projection = solve(taken.moments, settings.components)
        except VergerError:
            # The old matrix may have rows that the table has no longer.
            matrix.withdraw(output, keep_model=False)
            raise
    with this.clock.stage("project"):
        rows = _features(this, added)
        matrix.write_scores(rows, projection, this.scores, keep=added is not None)
    with this.clock.stage("write"):
        components, dialect = projection.components.shape[1], settings.csv_dialect
        matrix.write_csv(spark, this.scores, output, components, dialect)
        if isinstance(projection, Pca):
            matrix.write_variance(projection, output)
        if not settings.keep_pca:
            write_model(projection, output.model)
    with this.clock.stage("recognise"):
        try:
            taken = taken or statistics.take_statistics(spark, output, this.files)
            _fit_recogniser(this, taken, recogniser, added).save(output)
        except InputError as error:
            record = RecogniserRecord(absent=error.message, identity=this.identity)
            write_record(record, output)
    return projection


def _features(this: Run, files: list[DataFile] | None = None) -> Scan:
    """The rows of some files of features, or of all."""
    columns = ("path", "label", "features")
    return Scan.of_table(this.spark(), this.files, *columns, part=Outcome.FEATURIZED, files=files)


def _fit_recogniser(
    this: Run, taken: Statistics, before: Recogniser | None, added: list[DataFile] | None
) -> Recogniser:
    """Fit the recogniser on all rows, or add rows to that of the run before.

    Raises:
        InputError: there is nothing to tell apart.
    """
    check_classes(taken.classes)
    draw = Draw.of(taken.classes, SAMPLE_IMAGES)

    def sample(files: list[DataFile] | None) -> Sample:
        return sample_images(_features(this, files), draw)

    grown = grow(before, taken, sample(added)) if before else None
    return grown or fit(taken, sample(None), this.identity)


def _is_up_to_date(this: Run, before: Manifest) -> bool:
    """Whether the matrix of an earlier run, with nothing changed since, is the one wanted."""
    wanted, had = this.manifest.settings, before.settings
    whole = is_whole(this.output.model) and this.scores.exists
    whole = whole and read_record(this.output) is not None
    if this.settings.model or before.status != "complete" or not whole:
        return False
    if wanted["csv_dialect"] != had.get("csv_dialect", "standard"):
        return False
    # A PCA that was kept is not the one that all rows would give.
    return this.settings.keep_pca or (
        not had.get("keep_pca") and repr(wanted["components"]) == repr(had.get("components"))
    )


def _complete(
    this: Run, components: int | None, kept_ratio: float | None, before: Manifest | None = None
) -> Manifest:
    """Leave only what counts, and say that the output is whole.

    Args:
        this: the run.
        components: of the matrix.
        kept_ratio: their share of the variance.
        before: the manifest of the run whose matrix it is, if it is not of this one.
    """
    settings, output, manifest = this.settings, this.output, this.manifest
    this.files.check()
    with this.clock.stage("tidy"):
        waves.delete_pending(output)
        before_merging = this.files.files(Outcome.FEATURIZED)
        if this.files.compact(settings.compact_files):
            statistics.follow(output, this.files, before_merging)
        this.scores.compact(settings.compact_files)
        for table in (this.files, this.scores):
            table.vacuum(0 if settings.prune else settings.retain)
    manifest.read_specially = before.read_specially if before else count_special(this.files)
    manifest.components, manifest.explained_variance_ratio = components, kept_ratio
    manifest.status, manifest.finished_at = "complete", now()
    spoken = before.settings.get("lang", "en") if before else None
    if before:
        manifest.fidelity = before.fidelity
    if spoken != settings.lang or not storage.exists(output.report):
        _write_report(this)
    manifest.write(output)
    return manifest


def _end(this: Run, status: Status) -> None:
    """Say how the run ended, before its output is whole."""
    this.manifest.status, this.manifest.finished_at = status, now()
    _write_report(this)
    this.manifest.write(this.output)


def _write_report(this: Run) -> None:
    with this.clock.timed("report"):
        try:
            write_report(this.output, this.settings.lang, this.clock.progress, this.manifest)
        except Exception as error:  # noqa: BLE001 - a run is whole without its page
            this.clock.progress.note(f"There is no report: {type(error).__name__}: {error}")
