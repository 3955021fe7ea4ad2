"""All rows of features become a matrix, a model and a recogniser."""

from verger.chain.ending import withdraw
from verger.errors import InputError, VergerError
from verger.output.layout import DataFile, Outcome
from verger.output.manifest import Manifest
from verger.recognise.fit import check_classes, fit, grow
from verger.recognise.recogniser import Recogniser, RecogniserRecord, find_recogniser, write_record
from verger.reduce.moments import Statistics
from verger.reduce.pca import Pca, Projection, solve
from verger.reduce.sample import SAMPLE_IMAGES, Draw, Sample
from verger.spark import matrix, statistics
from verger.spark.model import load_projection, write_model
from verger.spark.run import Run
from verger.spark.scan import Scan
from verger.store import storage


def added_files(this: Run, before: Manifest | None, had: list[DataFile]) -> list[DataFile] | None:
    """The files of features that the matrix of an earlier run lacks; None where it goes.

    Args:
        this: the run.
        before: the manifest of the run before.
        had: the files of features when this run began.
    """
    now, known = this.files.files(Outcome.FEATURIZED), set(had)
    stays = this.settings.keep_pca and before is not None and before.status == "complete"
    # Rows that changed or went are in files that are gone.
    stays = stays and this.scores.exists and known <= set(now)
    if not stays or this.scores.counts().total() != sum(file.rows for file in had):
        return None
    return [file for file in now if file not in known]


def reduce(this: Run, added: list[DataFile] | None) -> Projection:
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
        if settings.model:
            matrix.remove_variance(output)
    else:
        storage.delete(output.model)
        try:
            with this.clock.stage("fit"):
                taken = statistics.take_statistics(spark, output, this.files)
                projection = solve(taken.moments, settings.components)
        except VergerError:
            # The old matrix may have rows that the table has no longer.
            withdraw(this, keep_model=False)
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


def _features(this: Run, files: list[DataFile] | None) -> Scan:
    """The rows of some files of features, or of all."""
    columns = ("path", "label", "features")
    return Scan.of_table(this.spark(), this.files, *columns, part=Outcome.FEATURIZED, files=files)


def _fit_recogniser(
    this: Run, taken: Statistics, before: Recogniser | None, added: list[DataFile] | None
) -> Recogniser:
    """Fit the recogniser on all rows, or add rows to that of the run before.

    Raises:
        InputError: there is nothing to tell apart, or too much.
    """
    draw = Draw.of(check_classes(taken.classes), SAMPLE_IMAGES)

    def sample(files: list[DataFile] | None) -> Sample:
        return statistics.sample_images(_features(this, files), draw)

    grown = grow(before, taken, sample(added)) if before else None
    return grown or fit(taken, sample(None), this.identity)
