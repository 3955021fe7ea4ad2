"""What a run has to do: the listing beside the table, cut into waves."""

from verger.output.layout import DataFile
from verger.spark import changes, matrix
from verger.spark.comparison import Comparison, compare
from verger.spark.run import Run
from verger.spark.takeover import remove_old, take_over
from verger.spark.waves import Wave


def plan(
    this: Run, listing: list[DataFile], *, known: bool, packed: bool
) -> tuple[list[Wave], Comparison | None]:
    """Compare the listing with the table, and plan waves of what is to be done."""
    settings, clock, listed = this.settings, this.clock, this.manifest.counts.listed
    if not known and listed <= settings.wave_size:
        return [Wave(tuple(listing))], None
    if known and this.old:
        clock.progress.note("The output is of an earlier version; its features are kept.")
        this.files.commit(take_over(this.spark(), this.output, this.old), [])
        matrix.remove_scores(this.output)
        remove_old(this.output)
    if this.files.properties["input"] != str(settings.input):
        with clock.stage("plan"):
            new = changes.rebase(this.spark(), this.output, listing, this.files)
            this.files.commit(new, this.files.files())
            this.files.set_properties({"input": str(settings.input)})
    with clock.stage("plan"):
        compared = compare(
            this.spark, this.output, listing, this.files, retry_rejected=settings.retry_rejected
        )
    if known:
        clock.progress.note(compared.describe(listed, prune=settings.prune))
    if not any(compared.to_do(prune=settings.prune)):
        return [], compared
    with clock.stage("waves"):
        planned = changes.plan_waves(
            compared, this.output, settings.wave_size, prune=settings.prune, packed=packed
        )
    return planned, compared
