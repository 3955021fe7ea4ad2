"""The whole chain on one page: list, compare, extract, account, reduce, write."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain, islice
from time import monotonic

from py4j.protocol import Py4JError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession

import verger
from verger import storage
from verger.backbone.engines import engine_for
from verger.backbone.graph import Backbone, engine_version, load_backbone
from verger.errors import DefectError, InputError, SetupError, TooManyRejectedError, UsageError
from verger.images.listing import ListedImage, list_images
from verger.images.loading import Loader
from verger.ledger import Identity, Ledger, delete_uncommitted, locked, read_ledger
from verger.progress import Progress
from verger.results import (
    BackboneRecord,
    EngineRecord,
    Manifest,
    Output,
    Reason,
    SparkRecord,
    now,
    read_manifest,
)
from verger.settings import RunSettings
from verger.spark import changes, matrix, pca, waves
from verger.spark.cloud import s3_options, worker_options
from verger.spark.extraction import Extractor, warm_up
from verger.spark.model import load_projection
from verger.spark.session import default_master, explain, start_session


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
    _check_places(settings)
    images = list_images(settings.input, settings.label_from)
    first = next(images, None)
    if first is None:
        raise InputError(f"The input {settings.input} holds no file.", "Give a folder of images.")

    progress.start("backbone")
    backbone = load_backbone(settings.weights, settings.engine, settings.precision)
    if settings.precision == "bf16":
        engine_for(backbone)  # refuses a processor without it
    progress.finish()

    output = Output(settings.output)
    with locked(output) as check_lock, _explained():
        stages = _Chain(settings, output, backbone, progress, check_lock)
        stages.open_ledger()
        stages.list(islice(chain([first], images), settings.limit))
        spark = stages.start_spark(debug)
        pending = stages.compare(spark)
        stages.extract(spark, pending)
        stages.account(spark)
        stages.reduce(spark)
        return stages.complete()


def _check_places(settings: RunSettings) -> None:
    if settings.input.contains(settings.output):
        raise UsageError(
            f"The output {settings.output} lies inside the input {settings.input}.",
            "Give an output elsewhere: its files would be listed as images by the next run.",
        )
    if (settings.engine, settings.precision) == ("tensorflow", "bf16"):
        raise UsageError("--precision bf16 is OpenVINO's.", "Use --engine openvino, or f32.")


@contextmanager
def _explained() -> Iterator[None]:
    """Say what a failure of Spark, disk or memory means."""
    try:
        yield
    except (PySparkException, Py4JError, OSError) as error:
        raise explain(error) from error
    except MemoryError as error:
        raise SetupError(
            "There is not enough memory.", "Look at `verger doctor`; the same command goes on."
        ) from error


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
            spark=SparkRecord(version="", master=settings.master or default_master()),
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
        """Read what the output holds, refuse what does not fit, delete what does not count."""
        identity = Identity(
            backbone="mobilenet_v2",
            weights_sha256=self.backbone.weights.sha256,
            precision=self.settings.precision,
            label_from=self.settings.label_from,
        )
        if self.settings.fresh:
            self._delete_results()
        ledger = read_ledger(self.output)
        if ledger is None or not ledger.waves:
            ledger = Ledger(input=str(self.settings.input), identity=identity)
        elif storage.exists(self.output.manifest):
            self.before = read_manifest(self.output)
        self._check_fits(ledger, identity)
        if self.settings.keep_pca and not storage.exists(self.output.model):
            raise UsageError(
                f"{self.output.location} has no fitted PCA to keep.", "Leave out --keep-pca once."
            )
        if self.settings.model:
            self._check_model(self.settings.model, identity)
        self.ledger = ledger
        self.next_number = delete_uncommitted(self.output, ledger)
        # Until the run is complete, this is what the output is.
        self.manifest.write(self.output)

    def _delete_results(self) -> None:
        for folder in (self.output.features, self.output.rejected):
            storage.delete(folder)
        for name in ("images", "listing", "ledger.json"):
            storage.delete(self.output.ledger.child(name))
        matrix.remove_matrix(self.output)

    def _check_fits(self, ledger: Ledger, identity: Identity) -> None:
        """Refuse an old output whose rows would not be comparable with new ones."""
        differs = [
            f"{name} {old!r} instead of {new!r}"
            for (name, old), (_, new) in zip(ledger.identity, identity, strict=True)
            if old != new
        ]
        hint = "Give another output folder, or start this one over with --fresh."
        if ledger.input != str(self.settings.input) and not self.settings.rebase:
            differs.append(f"input {ledger.input!r} instead of {str(self.settings.input)!r}")
            hint += " If it is the same tree elsewhere, say so with --rebase."
        if differs:
            raise UsageError(f"{self.output.location} was made with {', '.join(differs)}.", hint)

    def _check_model(self, place: storage.Location, identity: Identity) -> None:
        """Refuse a PCA of features that are not comparable with these."""
        made_by = read_ledger(Output(place)) or read_ledger(Output(place.parent))
        wanted = identity.model_dump(exclude={"label_from"})
        if made_by and made_by.identity.model_dump(exclude={"label_from"}) != wanted:
            found = made_by.identity
            raise UsageError(
                f"The PCA of {place} was fitted on features of other weights or precision.",
                f"Give --weights and --precision as they were: {found.weights_sha256[:12]}, "
                f"{found.precision}.",
            )

    def list(self, images: Iterator[ListedImage]) -> None:
        """Save the listing."""
        with self.stage("list"):
            listed = waves.save_listing(images, self.output, self.progress)
        self.manifest.counts.listed = listed
        if self.settings.model is None:
            known = sum(wave.featurized for wave in self.ledger.waves)
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
        count = self.manifest.counts.listed
        with self.stage("plan"):
            if self.ledger.waves:
                if self.ledger.input != str(self.settings.input):
                    moved = changes.rebase(spark, self.output, self.ledger, self.next_number)
                    self._switch(moved.model_copy(update={"input": str(self.settings.input)}))
                stale = changes.find_stale(
                    spark,
                    self.output,
                    self.ledger,
                    prune=self.settings.prune,
                    retry_rejected=self.settings.retry_rejected,
                )
                ledger, retired = changes.retire(
                    spark, self.output, self.ledger, stale, self.next_number
                )
                if retired:
                    self._switch(ledger)
                known = waves.committed_images(spark, self.output, self.ledger)
                pending = pending.join(known.select("path"), "path", "left_anti")
                count = pending.count()
                self.progress.note(
                    f"{count:,} of {self.manifest.counts.listed:,} files are new or changed"
                    f"{f', {retired:,} old ones retired' if retired else ''}."
                    if count or retired
                    else f"Nothing new: all {self.manifest.counts.listed:,} files are known."
                )
                if count or retired:
                    self.before = None
            return waves.plan_waves(
                pending, count, self.output, self.next_number, self.settings.wave_size
            )

    def _commit(self, ledger: Ledger) -> None:
        self.check_lock()
        ledger.write(self.output)
        self.ledger = ledger

    def _switch(self, ledger: Ledger) -> None:
        """Have another ledger count, then delete what it no longer names."""
        self._commit(ledger)
        self.next_number = delete_uncommitted(self.output, ledger)

    def extract(self, spark: SparkSession, planned: dict[int, int]) -> None:
        """Extract the planned waves, and commit each."""
        context = spark.sparkContext
        settings = self.settings
        extractor = Extractor(
            loader=Loader(settings.input, settings.max_pixels, settings.max_bytes),
            backbone=self.broadcast,
            read_ahead=settings.read_ahead,
            image_seconds=settings.image_seconds,
            done=context.accumulator(0),
            rejected=context.accumulator(0),
        )
        images = sum(planned.values())
        with self.stage("extract", images), waves.watched(extractor, self.progress):
            for wave in waves.run_waves(spark, self.output, planned, extractor, settings.task_size):
                self._commit(self.ledger.with_waves(wave))
                self.new_waves.add(wave.number)
        if planned:
            seconds = self.manifest.timings["extract"]
            self.manifest.images_per_second = round(images / seconds, 1)

    def account(self, spark: SparkSession) -> None:
        """Count from what is on disk what became of every file.

        Raises:
            DefectError: the counts do not reconcile.
            InputError: there is no image.
            TooManyRejectedError: more of them were rejected than is allowed.
        """
        with self.stage("account"):
            found = changes.take_account(spark, self.output, self.ledger, frozenset(self.new_waves))
        counts, reasons = found.counts, found.rejected_by_reason
        if counts.listed != self.manifest.counts.listed:
            raise DefectError(
                f"{self.manifest.counts.listed} files were listed, but {counts.listed} are "
                f"accounted for in {self.output.location}."
            )
        self.manifest.counts = counts
        self.manifest.rejected_by_reason = reasons
        foreign = reasons.get(Reason.NOT_AN_IMAGE, 0)
        images = counts.listed - foreign
        if not counts.rows and counts.rejected == foreign:
            raise InputError(
                f"None of the {counts.listed} files in {self.settings.input} is an image.",
                "JPEG, PNG, WebP, BMP, GIF and TIFF are read, by their content.",
            )
        lost = counts.rejected - foreign
        if lost > self.settings.max_rejected * images:
            matrix.remove_matrix(self.output)
            self.manifest.status = "too_many_rejected"
            self.manifest.finished_at = now()
            self.manifest.write(self.output)
            found_reasons = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
            raise TooManyRejectedError(
                f"{lost} of {images} images were rejected ({found_reasons}), more than "
                f"{self.settings.max_rejected:.2%}.",
                f"See {self.output.rejected}; --max-rejected allows more. The features are kept.",
            )

    def reduce(self, spark: SparkSession) -> None:
        """Write the matrix of all rows, and the model where it was fitted."""
        if self.before and self._is_up_to_date(self.before):
            self.manifest.components = self.before.components
            self.manifest.explained_variance_ratio = self.before.explained_variance_ratio
            self.progress.note("The matrix is as it was.")
            return
        features = waves.committed_features(spark, self.output, self.ledger)
        projection = self._projection(features)
        kept = projection.components.shape[1]
        self.manifest.components = kept
        self.manifest.explained_variance_ratio = projection.kept_ratio
        if self.settings.keep_pca:
            matrix.remove_scores(self.output)
        else:
            matrix.remove_matrix(self.output)
        # Saving a model is five small jobs, which leave room for those of the matrix.
        with ThreadPoolExecutor(1) as beside:
            saved = beside.submit(self._write_model, spark, projection)
            with self.stage("project"):
                matrix.write_scores(pca.project(features, projection), self.output)
            with self.stage("write"):
                matrix.write_csv(spark, self.output, kept, self.manifest.counts.rows)
                saved.result()

    def _write_model(self, spark: SparkSession, projection: pca.Projection) -> None:
        if isinstance(projection, pca.Pca):
            matrix.write_variance(projection, self.output)
        if not self.settings.keep_pca:
            matrix.write_model(projection, spark, self.output)

    def _projection(self, features: DataFrame) -> pca.Projection:
        if self.settings.keep_pca:
            return load_projection(self.output.model)
        if self.settings.model:
            return load_projection(self.settings.model)
        with self.stage("fit"):
            return pca.fit(features, self.settings.components)

    def _is_up_to_date(self, before: Manifest) -> bool:
        """Whether the matrix of an earlier run, with nothing changed since, is the one wanted."""
        asked = self.manifest.settings
        return before.status == "complete" and (
            self.settings.keep_pca
            or all(
                repr(asked[name]) == repr(before.settings.get(name))
                for name in ("components", "model")
            )
        )

    def complete(self) -> Manifest:
        """Say that the output is whole."""
        self.manifest.status = "complete"
        self.manifest.finished_at = now()
        self.manifest.write(self.output)
        return self.manifest
