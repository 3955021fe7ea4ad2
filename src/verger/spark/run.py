"""A run before its work: what it works with, what it refuses, and what it deletes."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial

import pyspark
from pyspark.sql import SparkSession

from verger.datasets.fruits360 import find_credit
from verger.errors import InputError, UsageError
from verger.images.decoding import EXACT, EXACT_COLOURS, SCALED_COLOURS, VERSIONS
from verger.networks.graph import Backbone
from verger.output.files import Identity, check_comparable, check_source, open_files, open_scores
from verger.output.layout import Outcome, Output, check_foreign
from verger.output.manifest import Manifest, SparkRecord, now, read_manifest
from verger.output.table import Table
from verger.progress import Clock
from verger.settings import RunSettings
from verger.spark import waves
from verger.spark.model import check_model, made_with
from verger.spark.session import start_for
from verger.spark.takeover import OldLedger, read_old_ledger, remove_old
from verger.store import storage
from verger.store.location import check_apart
from verger.version import VERSION


@dataclass(frozen=True)
class Run:
    """What a run works with, from its beginning to its end.

    Attributes:
        settings: what to do.
        output: the names in the output.
        backbone: the network, on its engine.
        clock: times the stages.
        manifest: what is known of the run so far, which is written when it ends.
        files: the table of files.
        scores: the table of scores.
        old: the ledger of an output of version 0.1, until its rows are in the table.
        old_identity: what the rows of earlier runs have in common; None where there are none.
        identity: what new rows have in common.
        spark: gives the session; starts it when it is first asked, which with nothing new is never.
    """

    settings: RunSettings
    output: Output
    backbone: Backbone
    clock: Clock
    manifest: Manifest
    files: Table
    scores: Table
    old: OldLedger | None
    old_identity: Identity | None
    identity: Identity
    spark: Callable[[], SparkSession]

    @property
    def known(self) -> int:
        """Rows of features of earlier runs."""
        if self.old_identity is None:
            return 0
        return self.old.featurized if self.old else self.files.counts()[Outcome.FEATURIZED]

    @property
    def source(self) -> str:
        """The input that the rows of earlier runs came from."""
        return self.old.input if self.old else self.files.properties["input"]


def begin(
    settings: RunSettings,
    backbone: Backbone,
    clock: Clock,
    check_lock: Callable[[], None],
    *,
    debug: bool,
) -> Run:
    """What a run works with, before anything is changed."""
    output = Output(settings.output)
    manifest = Manifest(
        verger_version=VERSION,
        started_at=now(),
        input=str(settings.input),
        output=str(settings.output),
        settings=settings.model_dump(mode="json", exclude={"input", "output"})
        | {"credit": settings.credit or find_credit(settings.input)},
        backbone=backbone.record,
        engine=backbone.engine_record,
        spark=SparkRecord(version=pyspark.__version__, master=settings.master or ""),
    )
    manifest.timings = clock.timings
    writer = {
        "said": {"run": manifest.started_at, "verger_version": VERSION},
        "check": check_lock,
        "anew": settings.fresh,
    }
    files = open_files(output, **writer)
    # A table without rows may be one that a killed run was about to fill with the old ones.
    old = None if settings.fresh or files.files() else read_old_ledger(output)
    old_identity = _identity_of_rows(files, old)
    return Run(
        settings=settings,
        output=output,
        backbone=backbone,
        clock=clock,
        manifest=manifest,
        files=files,
        scores=open_scores(output, **writer),
        old=old,
        old_identity=old_identity,
        identity=Identity(
            backbone=backbone.network.name,
            weights_sha256=backbone.weights.sha256,
            precision=settings.precision,
            label_from=settings.label_from,
            decoding=_decoding(settings, old_identity),
            views=str(settings.views),
        ),
        spark=cache(partial(start_for, settings, clock, manifest.spark, debug=debug)),
    )


def _identity_of_rows(files: Table, old: OldLedger | None) -> Identity | None:
    if old:
        return old.identity_now() if old.waves else None
    return Identity.of(files) if files.files() else None


def _decoding(settings: RunSettings, old_identity: Identity | None) -> str:
    """The rules of decoding: those of the rows, or of the PCA, that new rows are to go with."""
    made_by = old_identity or (made_with(settings.model) if settings.model else None)
    version = made_by.decoding if made_by else ""
    if settings.exact_decoding:
        return EXACT if version == EXACT else EXACT_COLOURS
    # Rows by rules that are not known are refused later.
    return version if version in VERSIONS else SCALED_COLOURS


def check_places(settings: RunSettings) -> None:
    """Refuse an input, an output and a model that lie in one another.

    Raises:
        UsageError: naming them.
    """
    check_apart(settings.input, settings.output)
    output = Output(settings.output)
    for folder in (*output.folders, output.work):
        if folder.contains(settings.input):
            raise UsageError(
                f"The input {settings.input} is where results go: runs delete what is in {folder}.",
                "Give an output elsewhere.",
            )
    if settings.model and output.location.contains(settings.model):
        raise UsageError(
            f"The PCA {settings.model} lies inside the output {settings.output}.",
            "Give an output elsewhere, or use --keep-pca with `verger run`.",
        )


def check_output(this: Run) -> Manifest | None:
    """Refuse what does not fit what the output holds; nothing is changed.

    Returns:
        The manifest of the run before, if the output has rows.
    """
    before = None
    if not this.files.exists and not this.old:
        check_foreign(this.output)
    if this.old_identity:
        check_comparable(this.old_identity, this.identity, this.output)
        if not this.settings.rebase:
            check_source(this.source, str(this.settings.input), this.output)
        # A manifest of another version only costs the short cut that it would allow.
        with suppress(InputError):
            before = read_manifest(this.output)
    check_model(this.identity, this.output, this.settings)
    return before


def prepare(this: Run) -> None:
    """Delete what does not count: the work of killed runs, or everything where nothing is known."""
    known = this.old_identity is not None
    # Until the run is complete, this is what the output is.
    this.manifest.write(this.output)
    waves.delete_pending(this.output)
    if not known:
        remove_old(this.output)
        # First what the rest hangs on, so that a run killed in between finds no table.
        this.files.delete()
        this.scores.delete()
        for place in (*this.output.folders, this.output.moments):
            storage.delete(place)
    elif not this.old:
        remove_old(this.output)
    if not this.files.exists:
        source = this.old.input if this.old and known else str(this.settings.input)
        this.files.create({**this.identity.model_dump(), "input": source})
    this.files.add_columns()
