"""The whole chain on one page: list, compare, extract, account, reduce, write."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from itertools import islice
from time import monotonic

import pyspark
from pyspark import Broadcast
from pyspark.sql import SparkSession

from verger.checks import (
    check_account,
    check_deadline,
    check_identity,
    check_model,
    check_settings,
    explained,
)
from verger.errors import DeadlineReached, InputError, TooManyRejectedError, VergerError
from verger.images.decoding import RULES
from verger.images.listing import list_input
from verger.networks.engines import engine_for
from verger.networks.graph import Backbone, engine_version, load_backbone
from verger.output.files import Identity, locked, open_files, open_scores
from verger.output.layout import ListedImage, Outcome, Output, check_foreign
from verger.output.manifest import (
    BackboneRecord,
    EngineRecord,
    Manifest,
    SparkRecord,
    Status,
    now,
    read_manifest,
)
from verger.output.table import DataFile
from verger.progress import Progress
from verger.reduce.pca import Pca, Projection, check_components
from verger.report.page import write_report
from verger.settings import RunSettings
from verger.spark import changes, matrix, reduce, waves
from verger.spark.changes import Comparison
from verger.spark.extraction import Extractor
from verger.spark.model import is_whole, load_projection, write_model
from verger.spark.scan import Scan
from verger.spark.session import (
    is_submitted,
    note_missing_executors,
    start_session,
    worker_options,
)
from verger.spark.takeover import OldLedger, read_old_ledger, remove_old, take_over
from verger.spark.waves import Wave
from verger.store import storage
from verger.version import VERSION


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
        chain = _Chain(settings, output, backbone, progress, check_lock, debug=debug)
        before = chain.check()
        if is_submitted():
            # YARN ends a driver that has no session after some minutes; a listing may take longer.
            chain.spark  # noqa: B018 - it starts
        listing = chain.save_listing(islice(itertools.chain([first], images), settings.limit))
        chain.prepare()
        packed = first.shard is not None
        planned, found = chain.plan(listing, packed=packed)
        new_rows = chain.extract(planned, packed=packed)
        chain.account(listing, None if planned else found, new_rows)
        if planned or not before or not chain.is_up_to_date(before):
            chain.reduce()
            before = None
        return chain.complete(before)


class _Chain:
    """The stages of a run, which share its output, its manifest and its clock."""

    def __init__(
        self,
        settings: RunSettings,
        output: Output,
        backbone: Backbone,
        progress: Progress,
        check_lock: Callable[[], None],
        *,
        debug: bool,
    ) -> None:
        self.debug = debug
        self.settings = settings
        self.output = output
        self.backbone = backbone
        self.progress = progress
        self.check_lock = check_lock
        self.table = open_files(output)
        # A table without rows may be one that a killed run was about to fill with the old ones.
        self.old = None if self.table.files() else read_old_ledger(output)
        weights = backbone.weights
        self.identity = Identity(
            backbone=backbone.network.name,
            weights_sha256=weights.sha256,
            precision=settings.precision,
            label_from=settings.label_from,
            decoding=RULES,
        )
        self.manifest = Manifest(
            verger_version=VERSION,
            started_at=now(),
            input=str(settings.input),
            output=str(settings.output),
            settings=settings.model_dump(mode="json", exclude={"input", "output"}),
            backbone=BackboneRecord(
                name=backbone.network.name,
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
            spark=SparkRecord(version=pyspark.__version__, master=settings.master or ""),
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

    @property
    def has_rows(self) -> bool:
        """Whether the output has rows of earlier runs that count."""
        if self.settings.fresh:
            return False
        return bool(self.old.waves if self.old else self.table.files())

    def check(self) -> Manifest | None:
        """Refuse what does not fit what the output holds; nothing is changed.

        Returns:
            The manifest of the run before, if the output has rows.
        """
        before = None
        if not self.table.exists and not self.old:
            check_foreign(self.output)
        if self.has_rows:
            found = self.old.identity_now() if self.old else Identity.of(self.table)
            check_identity(found, self._source(), self.identity, self.output, self.settings)
            # A manifest of another version only costs the short cut that it would allow.
            with suppress(InputError):
                before = read_manifest(self.output)
        check_model(self.identity, self.output, self.settings)
        return before

    def _known_rows(self) -> int:
        """Rows of features of earlier runs."""
        if self.old:
            return sum(wave.featurized for wave in self.old.waves)
        return self.table.counts()[Outcome.FEATURIZED]

    def _source(self) -> str:
        """The input that the rows of the output came from."""
        return self.old.input if self.old else self.table.properties["input"]

    def save_listing(self, images: Iterator[ListedImage]) -> list[DataFile]:
        """Save the listing; in which files it is."""
        with self.stage("list"):
            listing = waves.save_listing(images, self.output, self.progress)
        self.manifest.counts.listed = sum(file.rows for file in listing)
        if self.settings.model is None:
            known = self._known_rows() if self.has_rows else 0
            check_components(
                self.settings.components,
                self.manifest.counts.listed + known,
                self.backbone.network.width,
            )
        return listing

    def prepare(self) -> None:
        """Delete what does not count: the work of killed runs, or everything with `fresh`."""
        # Until the run is complete, this is what the output is.
        self.manifest.write(self.output)
        waves.delete_pending(self.output)
        if not self.has_rows:
            remove_old(self.output)
            # First what the rest hangs on, so that a run killed in between finds no table.
            self.table.delete()
            for place in self.output.folders:
                storage.delete(place)
            self.old = None
        elif not self.old:
            remove_old(self.output)
        if not self.table.exists:
            source = self.old.input if self.old else str(self.settings.input)
            self.table.create({**self.identity.model_dump(), "input": source}, self._said())

    def _said(self, **counts: int) -> dict[str, str | int]:
        """What a commit says of the run that made it."""
        return {"run": self.manifest.started_at, "verger_version": VERSION, **counts}

    @cached_property
    def spark(self) -> SparkSession:
        """The session; it starts when it is first needed, which with nothing new is never."""
        settings = self.settings
        with self.stage("spark"):
            spark = start_session(
                settings.master,
                driver_memory=settings.driver_memory,
                debug=self.debug,
                options=worker_options(settings.input, settings.output),
            )
            note_missing_executors(spark, self.progress)
        self.manifest.spark.master = spark.sparkContext.master or ""
        return spark

    @cached_property
    def broadcast(self) -> "Broadcast[Backbone]":
        """The network, sent to the executors once."""
        return self.spark.sparkContext.broadcast(self.backbone)

    def compare(self, listing: list[DataFile], *, retry_rejected: bool = False) -> Comparison:
        """Compare the listing with the table as it is now."""
        rows = max(self.manifest.counts.listed, self.table.counts().total())
        if rows <= changes.FEW:
            return changes.compare_few(
                self.output, listing, self.table, retry_rejected=retry_rejected
            )
        return changes.compare(
            self.spark, self.output, listing, self.table, retry_rejected=retry_rejected
        )

    def plan(
        self, listing: list[DataFile], *, packed: bool
    ) -> tuple[list[Wave], Comparison | None]:
        """Compare the listing with the table, and plan waves of what is to be done."""
        settings, listed = self.settings, self.manifest.counts.listed
        if not self.has_rows and listed <= settings.wave_size:
            return [Wave(tuple(listing))], None
        had_rows = self.has_rows
        if self.old:
            self._take_over(self.old)
        if self._source() != str(settings.input):
            self._rebase(listing)
        with self.stage("plan"):
            found = self.compare(listing, retry_rejected=settings.retry_rejected)
        count, retired = found.to_do(prune=settings.prune)
        if had_rows:
            old = f", {retired:,} old ones retired" if retired else ""
            self.progress.note(
                f"{count:,} of {listed:,} files are new or changed{old}."
                if count or retired
                else f"Nothing new: all {listed:,} files are known."
            )
        if not count and not retired:
            return [], found
        spark = self.spark
        with self.stage("waves"):
            planned = changes.plan_waves(
                spark, found, self.output, settings.wave_size, prune=settings.prune, packed=packed
            )
        return planned, found

    def _take_over(self, old: OldLedger) -> None:
        """Make a table of the waves that an earlier version of verger left."""
        self.progress.note("The output is of an earlier version; its features are kept.")
        self._commit(take_over(self.spark, self.output, old), [])
        self.old = None
        matrix.remove_scores(self.output)
        remove_old(self.output)

    def _rebase(self, listing: list[DataFile]) -> None:
        """Take the same tree at another place for the input."""
        spark = self.spark
        with self.stage("plan"):
            files = changes.rebase(spark, self.output, listing, self.table)
            self._commit(files, self.table.files())
            self.table.set_properties({"input": str(self.settings.input)}, self._said())

    def _commit(self, added: list[DataFile], removed: list[DataFile]) -> None:
        counts = Counter[str]()
        for file in added:
            counts[file.part or ""] += file.rows
        self.check_lock()
        self.table.commit(added, removed, self._said(**counts))

    def extract(self, planned: list[Wave], *, packed: bool) -> int:
        """Extract the planned waves, and commit each; how many rows of features are new.

        Raises:
            DeadlineReached: there is no time for another wave; what is committed is kept.
        """
        if not planned:
            return 0
        spark, settings = self.spark, self.settings
        extractor = Extractor.of(settings, self.broadcast, spark.sparkContext, packed=packed)
        images, done, started = sum(wave.count for wave in planned), 0, monotonic()
        new_rows = 0
        self._mind_deadline(images, seconds_an_image=0)
        with self.stage("extract", images), waves.watched(extractor, self.progress):
            for wave, written in waves.run_waves(
                spark, self.output, planned, extractor, settings.task_size
            ):
                rewritten, replaced = changes.retire(spark, self.output, self.table, wave)
                self._commit([*written, *rewritten], replaced)
                new_rows += sum(file.rows for file in written if file.part == Outcome.FEATURIZED)
                done += wave.count
                self._mind_deadline(images - done, (monotonic() - started) / max(done, 1))
        if images:
            seconds = self.manifest.timings["extract"]
            self.manifest.images_per_second = round(images / seconds, 1)
        return new_rows

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

    def account(
        self,
        listing: list[DataFile],
        found: Comparison | None,
        new_rows: int,
    ) -> None:
        """Count what became of every file, by a join of the listing with the table as it is now.

        Args:
            listing: what was listed.
            found: the comparison of both, where nothing has changed since it was made.
            new_rows: rows of features that this run committed.

        Raises:
            DefectError: the counts do not reconcile.
            InputError: there is no image.
            TooManyRejectedError: more of them were rejected than is allowed.
        """
        with self.stage("account"):
            found = found or self.compare(listing)
            account = changes.take_account(found, self.table, new_rows, self.output)
            found.release()
        listed, self.manifest.counts = self.manifest.counts.listed, account.counts
        self.manifest.rejected_by_reason = account.rejected_by_reason
        try:
            check_account(account, listed, self.output, self.settings)
        except TooManyRejectedError:
            self.check_lock()
            storage.delete(self.output.report)
            if self.settings.keep_pca:
                matrix.remove_scores(self.output)
            else:
                matrix.remove_matrix(self.output)
            self._end("too_many_rejected")
            raise

    def reduce(self) -> None:
        """Write the matrix of all rows, and the model where it was fitted."""
        self.check_lock()
        spark, settings, output = self.spark, self.settings, self.output
        storage.delete(output.report)
        matrix.remove_csv(output)
        projection = self._kept_projection()
        if projection is None:
            storage.delete(output.model)
            features = Scan.of_table(spark, self.table, "features", part=Outcome.FEATURIZED)
            try:
                with self.stage("fit"):
                    projection = reduce.fit(features, settings.components)
            except VergerError:
                # The old matrix may have rows that the table has no longer.
                matrix.remove_matrix(output)
                raise
        self.manifest.components = projection.components.shape[1]
        self.manifest.explained_variance_ratio = projection.kept_ratio
        with self.stage("project"):
            rows = Scan.of_table(
                spark, self.table, "path", "label", "features", part=Outcome.FEATURIZED
            )
            scores = open_scores(output)
            broadcast = spark.sparkContext.broadcast(projection)
            matrix.write_scores(rows, broadcast, scores, self._said())
        with self.stage("write"):
            matrix.write_csv(spark, scores, output, self.manifest.components)
            if isinstance(projection, Pca):
                matrix.write_variance(projection, output)
            if not settings.keep_pca:
                write_model(projection, output.model)

    def _kept_projection(self) -> Projection | None:
        """The PCA that is to be used, where none is to be fitted."""
        if self.settings.keep_pca:
            return load_projection(self.output.model)
        return load_projection(self.settings.model) if self.settings.model else None

    def is_up_to_date(self, before: Manifest) -> bool:
        """Whether the matrix of an earlier run, with nothing changed since, is the one wanted."""
        asked, had = self.manifest.settings, before.settings
        whole = is_whole(self.output.model) and open_scores(self.output).exists
        if self.settings.model or before.status != "complete" or not whole:
            return False
        # A PCA that was kept is not the one that all rows would give.
        return self.settings.keep_pca or (
            not had.get("keep_pca") and repr(asked["components"]) == repr(had.get("components"))
        )

    def complete(self, before: Manifest | None) -> Manifest:
        """Leave only what counts, and say that the output is whole.

        Args:
            before: the manifest of the run whose matrix is taken over, if it is.
        """
        self.check_lock()
        if before:
            self.manifest.components = before.components
            self.manifest.explained_variance_ratio = before.explained_variance_ratio
            self.progress.note("The matrix is as it was.")
        with self.stage("tidy"):
            storage.delete(self.output.work.child("compared"))
            waves.delete_pending(self.output)
            for table in (self.table, open_scores(self.output)):
                table.compact(self.settings.compact_files, self._said())
                hours = 0 if self.settings.prune else self.settings.retain
                table.vacuum(hours, self.check_lock)
        self.manifest.status = "complete"
        self.manifest.finished_at = now()
        spoken = before.settings.get("lang", "en") if before else None
        if spoken != self.settings.lang or not storage.exists(self.output.report):
            self._write_report()
        self.manifest.write(self.output)
        return self.manifest

    def _write_report(self) -> None:
        started = monotonic()
        try:
            write_report(self.output, self.settings.lang, self.progress, self.manifest)
        except Exception as error:  # noqa: BLE001 - a run is whole without its page
            self.progress.note(f"There is no report: {type(error).__name__}: {error}")
        self.manifest.timings["report"] = round(monotonic() - started, 3)
