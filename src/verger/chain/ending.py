"""How a run ends: whole, as it was, or too early."""

from typing import Any

from verger.output.files import count_special
from verger.output.layout import Outcome
from verger.output.manifest import Manifest, Status, now
from verger.recognise.recogniser import read_record
from verger.report.page import write_report
from verger.spark import matrix, statistics, waves
from verger.spark.model import is_whole
from verger.spark.run import Run
from verger.spark.writing import merge_files
from verger.store import storage


def is_up_to_date(this: Run, before: Manifest) -> bool:
    """Whether the matrix of an earlier run, with nothing changed since, is the one wanted."""
    wanted, had = this.manifest.settings, before.settings
    whole = is_whole(this.output.model) and this.scores.exists
    whole = whole and read_record(this.output) is not None
    if this.settings.model or before.status != "complete" or not whole:
        return False
    if wanted["csv_dialect"] != had.get("csv_dialect", "standard"):
        return False
    # A PCA that was kept, or that of another output, is not the one that all rows would give.
    fitted = not had.get("keep_pca") and not had.get("model")
    return this.settings.keep_pca or (
        fitted and repr(wanted["components"]) == repr(had.get("components"))
    )


def complete(
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
        if merge_files(this.spark, this.files, settings.compact_files):
            statistics.follow(output, this.files, before_merging)
        merge_files(this.spark, this.scores, settings.compact_files)
        for table in (this.files, this.scores):
            table.vacuum(0 if settings.prune else settings.retain)
    manifest.read_specially = before.read_specially if before else count_special(this.files)
    manifest.components, manifest.explained_variance_ratio = components, kept_ratio
    manifest.status, manifest.finished_at = "complete", now()
    if before:
        manifest.fidelity = before.fidelity
    page_stays = before is not None and _on_the_page(before) == _on_the_page(manifest)
    if not page_stays or not storage.exists(output.report):
        _write_report(this)
    manifest.write(output)
    return manifest


def _on_the_page(manifest: Manifest) -> tuple[Any, ...]:
    """What the page says that may change while the matrix stays."""
    had, counts = manifest.settings, manifest.counts
    files = counts.listed, counts.rejected, counts.kept
    return manifest.input, had.get("lang", "en"), had.get("credit"), files


def withdraw(this: Run, *, keep_model: bool) -> None:
    """Delete what an earlier run made of all rows, and what was pruned: there is no matrix now.

    Args:
        this: the run.
        keep_model: leave model and variance.
    """
    output = this.output
    this.files.check()
    storage.delete(output.report)
    storage.delete(output.recogniser)
    if keep_model:
        matrix.remove_scores(output)
    else:
        storage.delete(output.pca)
        storage.delete(output.model)
    waves.delete_pending(output)
    if this.settings.prune:
        storage.delete(output.moments)
        this.files.vacuum(0)


def end(this: Run, status: Status) -> None:
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
