"""The whole chain on one page: list, plan, extract, account, reduce, write."""

import itertools
from collections.abc import Iterator

from verger.chain.ending import complete, end, is_up_to_date, withdraw
from verger.chain.features import account, extract, plan
from verger.chain.reduction import added_files, reduce
from verger.errors import DeadlineReached, InputError, TooManyRejectedError
from verger.images.listing import Noticed, list_input
from verger.networks.engines import check_runs_here
from verger.networks.graph import load_backbone
from verger.output.files import locked
from verger.output.layout import DataFile, ListedImage, Outcome, Output
from verger.output.manifest import Manifest
from verger.progress import Clock, Progress
from verger.reduce.pca import check_components
from verger.settings import RunSettings
from verger.spark import waves
from verger.spark.failures import spark_errors
from verger.spark.java import is_submitted
from verger.spark.run import Run, begin, check_output, check_places, prepare


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
    images = list_input(settings.input, settings.label_from, noticed)
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
        prepare(this)
        try:
            planned, comparison = plan(this, listing, packed=packed)
            new_rows = extract(this, planned, packed=packed)
        except DeadlineReached:
            end(this, "deadline")
            raise
        try:
            account(this, listing, comparison, new_rows)
        except (InputError, TooManyRejectedError) as error:
            withdraw(this, keep_model=settings.keep_pca)
            if isinstance(error, TooManyRejectedError):
                end(this, "too_many_rejected")
            raise
        if before and not planned and is_up_to_date(this, before):
            this.clock.progress.note("The matrix is as it was.")
            return complete(this, before.components, before.explained_variance_ratio, before)
        projection = reduce(this, added_files(this, before, had))
        return complete(this, projection.components.shape[1], projection.kept_ratio)


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
