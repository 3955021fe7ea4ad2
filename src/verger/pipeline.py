"""The whole chain on one page: list, extract, reduce, write."""

from collections import Counter
from collections.abc import Iterator
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
from verger.errors import DefectError, InputError, TooManyRejectedError, UsageError
from verger.images.listing import ListedImage, list_images
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
)
from verger.settings import RunSettings
from verger.spark import matrix, pca, waves
from verger.spark.extraction import Extractor, warm_up
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
    if settings.input.contains(settings.output):
        raise UsageError(
            f"The output {settings.output} lies inside the input {settings.input}.",
            "Give an output elsewhere: its files would be listed as images by the next run.",
        )
    if settings.input.is_s3 or settings.output.is_s3:
        raise UsageError("S3 is not supported yet.", "Give folders of this machine.")
    if (settings.engine, settings.precision) == ("tensorflow", "bf16"):
        raise UsageError("--precision bf16 is OpenVINO's.", "Use --engine openvino, or f32.")
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
    with locked(output):
        stages = _Chain(settings, output, backbone, progress)
        ledger = stages.open_ledger()
        listed = stages.list(islice(chain([first], images), settings.limit))
        pca.check_components(settings.components, listed)
        try:
            spark = stages.start_spark(debug)
            ledger = stages.extract(spark, ledger)
            stages.check_rejections(ledger)
            stages.reconcile(ledger)
            stages.reduce(spark, ledger)
        except (PySparkException, Py4JError) as error:
            raise explain(error) from error
        return stages.complete()


class _Chain:
    """The stages of a run, which share its output, its manifest and its clock."""

    def __init__(
        self, settings: RunSettings, output: Output, backbone: Backbone, progress: Progress
    ) -> None:
        self.settings = settings
        self.output = output
        self.backbone = backbone
        self.progress = progress
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

    def open_ledger(self) -> Ledger:
        identity = Identity(
            backbone="mobilenet_v2",
            weights_sha256=self.backbone.weights.sha256,
            precision=self.settings.precision,
            label_from=self.settings.label_from,
        )
        if self.settings.fresh:
            self._delete_results()
        ledger = read_ledger(self.output)
        if ledger is None:
            ledger = Ledger(input=str(self.settings.input), identity=identity)
        self._check_fits(ledger, identity)
        delete_uncommitted(self.output, ledger)
        # Until the run is complete, this is what the output is.
        self.manifest.write(self.output)
        return ledger

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
        if ledger.input != str(self.settings.input):
            differs.append(f"input {ledger.input!r} instead of {str(self.settings.input)!r}")
        if differs:
            raise UsageError(
                f"{self.output.location} was made with {', '.join(differs)}.",
                "Give another output folder, or start this one over with --fresh.",
            )

    def list(self, images: Iterator[ListedImage]) -> int:
        with self.stage("list"):
            self.manifest.counts.listed = waves.save_listing(images, self.output, self.progress)
        return self.manifest.counts.listed

    def start_spark(self, debug: bool) -> SparkSession:
        with self.stage("spark"):
            spark = start_session(
                self.settings.master, driver_memory=self.settings.driver_memory, debug=debug
            )
        master = spark.sparkContext.master or ""
        self.manifest.spark = SparkRecord(version=spark.version, master=master)
        return spark

    def extract(self, spark: SparkSession, ledger: Ledger) -> Ledger:
        """Extract what is not in the ledger yet, wave by wave."""
        broadcast = spark.sparkContext.broadcast(self.backbone)
        if not ledger.waves:
            warm_up(spark, broadcast)
        pending = waves.read_listing(spark, self.output)
        count = self.manifest.counts.listed
        with self.stage("plan"):
            if ledger.waves:
                known = waves.committed_images(spark, self.output, ledger)
                self._check_unchanged(known, pending)
                pending = pending.join(known.select("path"), "path", "left_anti")
                count = pending.count()
                self.manifest.counts.reused = sum(wave.featurized for wave in ledger.waves)
            planned = waves.plan_waves(
                pending, count, self.output, ledger.next_number(), self.settings.wave_size
            )
        context = spark.sparkContext
        extractor = Extractor(
            folder=self.settings.input,
            backbone=broadcast,
            max_pixels=self.settings.max_pixels,
            max_bytes=self.settings.max_bytes,
            read_ahead=self.settings.read_ahead,
            done=context.accumulator(0),
            rejected=context.accumulator(0),
        )
        counts = self.manifest.counts
        with (
            self.stage("extract", sum(planned.values())),
            waves.watched(extractor, self.progress),
        ):
            for number, count in planned.items():
                wave = waves.run_wave(
                    spark,
                    self.output,
                    number,
                    count,
                    extractor=extractor,
                    task_size=self.settings.task_size,
                )
                ledger = ledger.with_wave(wave)
                ledger.write(self.output)
                counts.featurized += wave.featurized
        seconds = self.manifest.timings["extract"]
        if planned:
            self.manifest.images_per_second = round(sum(planned.values()) / seconds, 1)
        return ledger

    def _check_unchanged(self, known: DataFrame, listing: DataFrame) -> None:
        """Refuse to mix old rows with images that are not what they were."""
        gone = known.join(listing.select("path"), "path", "left_anti").count()
        changed = known.join(listing, "path").count() - known.intersect(listing).count()
        if gone or changed:
            raise UsageError(
                f"Since {self.output.location} was made, {changed} of its images changed and "
                f"{gone} are not listed any more.",
                "Start it over with --fresh, or give another output folder.",
            )

    def check_rejections(self, ledger: Ledger) -> None:
        """Stop a run that lost too much, with its work kept."""
        reasons: Counter[str] = Counter()
        for wave in ledger.waves:
            reasons.update(wave.rejected)
        counts = self.manifest.counts
        self.manifest.rejected_by_reason = dict(reasons.most_common())
        counts.rejected = reasons.total()
        foreign = reasons[Reason.NOT_AN_IMAGE]
        images = counts.listed - foreign
        if not counts.rows and counts.rejected == foreign:
            raise InputError(
                f"None of the {counts.listed} files in {self.settings.input} is an image.",
                "JPEG, PNG, WebP, BMP, GIF and TIFF are read, by their content.",
            )
        lost = reasons.total() - foreign
        if lost > self.settings.max_rejected * images:
            matrix.remove_matrix(self.output)
            self.manifest.status = "too_many_rejected"
            self.manifest.finished_at = now()
            self.manifest.write(self.output)
            found = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
            raise TooManyRejectedError(
                f"{lost} of {images} images were rejected ({found}), more than "
                f"{self.settings.max_rejected:.2%}.",
                f"See {self.output.rejected}; --max-rejected allows more. The features are kept.",
            )

    def reduce(self, spark: SparkSession, ledger: Ledger) -> None:
        """Fit the PCA on all rows and write the matrix and the model."""
        features = waves.committed_features(spark, self.output, ledger)
        with self.stage("fit"):
            fitted = pca.fit(features, self.settings.components)
        kept = fitted.components.shape[1]
        self.manifest.components = kept
        self.manifest.explained_variance_ratio = fitted.kept_ratio
        matrix.remove_matrix(self.output)
        with self.stage("project"):
            matrix.write_scores(pca.project(features, fitted), self.output)
        with self.stage("write"):
            matrix.write_csv(spark, self.output, kept, fitted.rows)
            matrix.write_variance(fitted, self.output)
            matrix.write_model(fitted, spark, self.output)

    def reconcile(self, ledger: Ledger) -> None:
        """Compare the counts with what is on disk.

        Raises:
            DefectError: they differ.
        """
        rows = sum(storage.count_rows(self.output.features_of(w.number)) for w in ledger.waves)
        rejected = sum(storage.count_rows(self.output.rejected_of(w.number)) for w in ledger.waves)
        counts = self.manifest.counts
        accounted = counts.featurized + counts.reused + counts.rejected
        if (counts.rows, counts.rejected, counts.listed) != (rows, rejected, accounted):
            raise DefectError(
                f"The counts do not reconcile: {counts}, but {rows} rows of features and "
                f"{rejected} rejections are in {self.output.location}."
            )

    def complete(self) -> Manifest:
        """Say that the output is whole."""
        self.manifest.status = "complete"
        self.manifest.finished_at = now()
        self.manifest.write(self.output)
        return self.manifest
