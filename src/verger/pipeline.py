"""The whole chain on one page: list, compare, extract, account, reduce, write."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import chain, islice
from time import monotonic

from pyspark.sql import SparkSession

import verger
from verger import storage
from verger.backbone.engines import engine_for
from verger.backbone.graph import Backbone, engine_version, load_backbone
from verger.checks import (
    check_account,
    check_deadline,
    check_ledger,
    check_model,
    check_settings,
    explained,
)
from verger.errors import DeadlineReached, InputError, TooManyRejectedError
from verger.images.listing import ListedImage
from verger.images.loading import Loader
from verger.images.shards import list_input
from verger.ledger import (
    Identity,
    Ledger,
    delete_uncommitted,
    images_of,
    ledger_file,
    locked,
    read_ledger,
)
from verger.progress import Progress
from verger.report.page import write_report
from verger.results import (
    BackboneRecord,
    EngineRecord,
    Manifest,
    Output,
    SparkRecord,
    Status,
    check_foreign,
    now,
    read_manifest,
)
from verger.settings import RunSettings
from verger.spark import changes, matrix, pca, waves
from verger.spark.cloud import s3_options, worker_options
from verger.spark.extraction import Extractor, warm_up
from verger.spark.model import is_whole, load_projection
from verger.spark.session import is_submitted, note_missing_executors, start_session


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
    progress = progress or Progress()
    check_settings(settings)
    images = list_input(settings.input, settings.label_from)
    first = next(images, None)
    if first is None:
        raise InputError(f"The input {settings.input} holds no file.", "Give a folder of images.")

    progress.start("backbone")
    backbone = load_backbone(settings.weights, settings.engine, settings.precision)
    if settings.precision == "bf16":
        engine_for(backbone)  # refuses a processor without it
    progress.finish()

    output = Output(settings.output)
    with explained(), locked(output) as check_lock:
        stages = _Chain(settings, output, backbone, progress, check_lock)
        stages.open_ledger()
        # YARN ends a driver that has no session after some minutes, and a listing may take longer.
        spark = stages.start_spark(debug) if is_submitted() else None
        stages.list(islice(chain([first], images), settings.limit))
        stages.prepare()
        spark = spark or stages.start_spark(debug)
        pending = stages.compare(spark)
        stages.extract(spark, pending, packed=first.shard is not None)
        stages.account(spark)
        stages.reduce(spark)
        return stages.complete()


class _Chain:
    """The stages of a run, which share its output, its manifest and its clock."""

    def __init__(
        self,
        settings: RunSettings,
        output: Output,
        backbone: Backbone,
        progress: Progress,
        check_lock: Callable[[], None],
    ) -> None:
        self.settings = settings
        self.output = output
        self.backbone = backbone
        self.progress = progress
        self.check_lock = check_lock
        self.ledger: Ledger
        self.next_number = 1
        self.new_waves: set[int] = set()
        self.before: Manifest | None = None
        weights = backbone.weights
        self.manifest = Manifest(
            verger_version=verger.__version__,
            started_at=now(),
            input=str(settings.input),
            output=str(settings.output),
            settings=settings.model_dump(mode="json", exclude={"input", "output"}),
            backbone=BackboneRecord(
                weights=weights.name,
                sha256=weights.sha256,
                source=weights.source,
                licence=weights.licence,
            ),
            engine=EngineRecord(
                name=settings.engine,
                version=engine_version(settings.engine),
                precision=settings.precision,
            ),
            spark=SparkRecord(version="", master=settings.master or ""),
        )

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[None]:
        """Time a stage, and tell that it runs."""
        self.progress.start(name, total)
        started = monotonic()
        try:
            yield
        finally:
            elapsed = monotonic() - started
            self.manifest.timings[name] = round(self.manifest.timings.get(name, 0.0) + elapsed, 3)
            self.progress.finish()

    def open_ledger(self) -> None:
        """Read what the output holds, and refuse what does not fit; nothing is changed."""
        identity = Identity(
            backbone="mobilenet_v2",
            weights_sha256=self.backbone.weights.sha256,
            precision=self.settings.precision,
            label_from=self.settings.label_from,
        )
        ledger = None if self.settings.fresh else read_ledger(self.output)
        if ledger is None:
            check_foreign(self.output)
        if ledger is None or not ledger.waves:
            ledger = Ledger(input=str(self.settings.input), identity=identity)
        else:
            # A manifest of another version only costs the short cut that it would allow.
            with suppress(InputError):
                self.before = read_manifest(self.output)
        check_ledger(ledger, identity, self.output, self.settings)
        check_model(identity, self.output, self.settings)
        self.ledger = ledger

    def prepare(self) -> None:
        """Delete what does not count: uncommitted waves, or everything with `fresh`."""
        # Until the run is complete, this is what the output is.
        self.manifest.write(self.output)
        if self.settings.fresh:
            # First what the rest hangs on, so that a run killed in between finds no ledger.
            for place in (ledger_file(self.output), self.output.images, *self.output.folders):
                storage.delete(place)
        self.next_number = delete_uncommitted(self.output, self.ledger)

    def list(self, images: Iterator[ListedImage]) -> None:
        """Save the listing."""
        with self.stage("list"):
            listed = waves.save_listing(images, self.output, self.progress)
        self.manifest.counts.listed = listed
        if self.settings.model is None:
            known = self.ledger.featurized
            pca.check_components(self.settings.components, listed + known)

    def start_spark(self, debug: bool) -> SparkSession:
        """Start Spark, or take the session that runs."""
        settings = self.settings
        places = [place for place in (settings.output, settings.model) if place]
        with self.stage("spark"):
            spark = start_session(
                settings.master,
                driver_memory=settings.driver_memory,
                debug=debug,
                options=s3_options(*places) | worker_options(settings.input),
            )
            note_missing_executors(spark, self.progress)
        master = spark.sparkContext.master or ""
        self.manifest.spark = SparkRecord(version=spark.version, master=master)
        self.broadcast = spark.sparkContext.broadcast(self.backbone)
        if not self.ledger.waves:
            warm_up(spark, self.broadcast)
        return spark

    def compare(self, spark: SparkSession) -> dict[int, int]:
        """Retire rows that no longer count, and plan waves of what is not in the ledger.

        Returns:
            How many images each planned wave has, by its number.
        """
        pending = waves.read_listing(spark, self.output)
        count = listed = self.manifest.counts.listed
        with self.stage("plan"):
            if self.ledger.waves:
                retired = self._retire(spark)
                known = waves.committed_images(spark, self.output, self.ledger)
                pending = pending.join(known.select("path"), "path", "left_anti")
                count = pending.count()
                if count or retired:
                    self.before = None
                    old = f", {retired:,} old ones retired" if retired else ""
                    self.progress.note(f"{count:,} of {listed:,} files are new or changed{old}.")
                else:
                    self.progress.note(f"Nothing new: all {listed:,} files are known.")
            return waves.plan_waves(
                pending, count, self.output, self.next_number, self.settings.wave_size
            )

    def _retire(self, spark: SparkSession) -> int:
        """Have the ledger count only rows of images as they are now; how many were retired."""
        settings = self.settings
        if self.ledger.input != str(settings.input):
            moved = changes.rebase(spark, self.output, self.ledger, self.next_number)
            self._switch(moved.model_copy(update={"input": str(settings.input)}))
        stale = changes.find_stale(
            spark,
            self.output,
            self.ledger,
            prune=settings.prune,
            retry_rejected=settings.retry_rejected,
        )
        ledger, retired = changes.retire(spark, self.output, self.ledger, stale, self.next_number)
        if retired:
            self._switch(ledger)
        return retired

    def _commit(self, ledger: Ledger) -> None:
        had = {(wave.number, wave.images) for wave in self.ledger.waves}
        for wave in ledger.waves:
            if (wave.number, wave.images) not in had:
                for folder in (
                    *self.output.wave_folders(wave.number),
                    images_of(self.output, wave.images),
                ):
                    storage.sync(folder)
        self.check_lock()
        ledger.write(self.output)
        self.ledger = ledger

    def _switch(self, ledger: Ledger) -> None:
        """Have another ledger count, then delete what it no longer names."""
        self._commit(ledger)
        self.next_number = delete_uncommitted(self.output, ledger)

    def extract(self, spark: SparkSession, planned: dict[int, int], *, packed: bool) -> None:
        """Extract the planned waves, and commit each.

        Raises:
            DeadlineReached: there is no time for another wave; what is committed is kept.
        """
        context = spark.sparkContext
        settings = self.settings
        extractor = Extractor(
            loader=Loader(settings.input, settings.max_pixels, settings.max_bytes),
            backbone=self.broadcast,
            read_ahead=settings.read_ahead,
            image_seconds=settings.image_seconds,
            packed=packed,
            done=context.accumulator(0),
            rejected=context.accumulator(0),
        )
        images, done, started = sum(planned.values()), 0, monotonic()
        self._mind_deadline(images, seconds_an_image=0)
        with self.stage("extract", images), waves.watched(extractor, self.progress):
            for wave in waves.run_waves(spark, self.output, planned, extractor, settings.task_size):
                self._commit(self.ledger.with_waves(wave))
                self.new_waves.add(wave.number)
                done += wave.files
                self._mind_deadline(images - done, (monotonic() - started) / done)
        if planned:
            seconds = self.manifest.timings["extract"]
            self.manifest.images_per_second = round(images / seconds, 1)

    def _end(self, status: Status) -> None:
        """Say how the run ended, before its output is whole."""
        self.manifest.status = status
        self.manifest.finished_at = now()
        self._write_report()
        self.manifest.write(self.output)

    def _mind_deadline(self, left: int, seconds_an_image: float) -> None:
        try:
            check_deadline(self.settings, left, seconds_an_image)
        except DeadlineReached:
            self._end("deadline")
            raise

    def account(self, spark: SparkSession) -> None:
        """Count from what is on disk what became of every file.

        Raises:
            DefectError: the counts do not reconcile.
            InputError: there is no image.
            TooManyRejectedError: more of them were rejected than is allowed.
        """
        with self.stage("account"):
            found = changes.take_account(spark, self.output, self.ledger, frozenset(self.new_waves))
        listed, self.manifest.counts = self.manifest.counts.listed, found.counts
        self.manifest.rejected_by_reason = found.rejected_by_reason
        try:
            check_account(found, listed, self.output, self.settings)
        except TooManyRejectedError:
            self.check_lock()
            self._remove_matrix()
            self._end("too_many_rejected")
            raise

    def reduce(self, spark: SparkSession) -> None:
        """Write the matrix of all rows, and the model where it was fitted."""
        if self.before and self._is_up_to_date(self.before):
            self.manifest.components = self.before.components
            self.manifest.explained_variance_ratio = self.before.explained_variance_ratio
            self.progress.note("The matrix is as it was.")
            return
        self.check_lock()
        features = waves.committed_features(spark, self.output, self.ledger)
        projection = self._kept_projection()
        self._remove_matrix()
        if projection is None:
            with self.stage("fit"):
                projection = pca.fit(features, self.settings.components)
        kept = projection.components.shape[1]
        self.manifest.components = kept
        self.manifest.explained_variance_ratio = projection.kept_ratio
        # Saving a model is five small jobs, which leave room for those of the matrix.
        with ThreadPoolExecutor(1) as beside:
            saved = beside.submit(self._write_model, spark, projection)
            with self.stage("project"):
                matrix.write_scores(pca.project(features, projection), self.output)
            with self.stage("write"):
                matrix.write_csv(spark, self.output, kept, self.manifest.counts.rows)
                saved.result()

    def _write_report(self) -> None:
        started = monotonic()
        try:
            write_report(self.output, self.settings.lang, self.progress, self.manifest)
        except Exception as error:  # noqa: BLE001 - a run is whole without its page
            self.progress.note(f"There is no report: {type(error).__name__}: {error}")
        self.manifest.timings["report"] = round(monotonic() - started, 3)

    def _write_model(self, spark: SparkSession, projection: pca.Projection) -> None:
        if isinstance(projection, pca.Pca):
            matrix.write_variance(projection, self.output)
        if not self.settings.keep_pca:
            matrix.write_model(projection, spark, self.output)

    def _kept_projection(self) -> pca.Projection | None:
        """The PCA that is to be used, where none is to be fitted."""
        if self.settings.keep_pca:
            return load_projection(self.output.model)
        return load_projection(self.settings.model) if self.settings.model else None

    def _remove_matrix(self) -> None:
        storage.delete(self.output.report)
        if self.settings.keep_pca:
            matrix.remove_scores(self.output)
        else:
            matrix.remove_matrix(self.output)

    def _is_up_to_date(self, before: Manifest) -> bool:
        """Whether the matrix of an earlier run, with nothing changed since, is the one wanted."""
        asked, had = self.manifest.settings, before.settings
        if self.settings.model or before.status != "complete" or not is_whole(self.output.model):
            return False
        # A PCA that was kept is not the one that all rows would give.
        return self.settings.keep_pca or (
            not had.get("keep_pca") and repr(asked["components"]) == repr(had.get("components"))
        )

    def complete(self) -> Manifest:
        """Say that the output is whole."""
        self.check_lock()
        # A killed run's last job may have left a wave since this one began.
        delete_uncommitted(self.output, self.ledger)
        self.manifest.status = "complete"
        self.manifest.finished_at = now()
        spoken = self.before.settings.get("lang", "en") if self.before else None
        if spoken != self.settings.lang or not storage.exists(self.output.report):
            self._write_report()
        self.manifest.write(self.output)
        return self.manifest
