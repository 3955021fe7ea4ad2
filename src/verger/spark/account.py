"""The account of all files: nothing is lost, and nothing is there twice."""

from dataclasses import dataclass

from verger.errors import DefectError, InputError, TooManyRejectedError
from verger.images.opening import READ
from verger.output.layout import Outcome, Output, Reason
from verger.output.manifest import Counts
from verger.output.table import Table
from verger.settings import RunSettings
from verger.spark.comparison import CHANGED, GONE, NEW, SAME, Comparison


@dataclass(frozen=True)
class Account:
    """What became of every file: counts, and the rejected ones by reason."""

    counts: Counts
    rejected_by_reason: dict[str, int]


def take_account(compared: Comparison, table: Table, new: int, output: Output) -> Account:
    """Count what became of every file.

    Args:
        compared: the comparison of the listing with the table as it is on disk.
        table: the same.
        new: rows of features that this run committed.
        output: where they are.

    Raises:
        DefectError: a listed file is not in the table, or is there as it was not listed.
    """
    of_listed = compared.count(SAME, outcome=Outcome.FEATURIZED)
    counts = Counts(
        featurized=new,
        reused=of_listed - new,
        rejected=compared.count(SAME, outcome=Outcome.REJECTED),
        kept=compared.count(GONE, outcome=Outcome.FEATURIZED),
    )
    counts.listed = counts.featurized + counts.reused + counts.rejected
    wrong = [
        f"{compared.count(state)} {state}" for state in (NEW, CHANGED) if compared.count(state)
    ]
    if counts.reused < 0:
        wrong.append(f"{-counts.reused} featurized but lost")
    if counts.rows != table.counts()[Outcome.FEATURIZED]:
        wrong.append(f"{counts.rows} rows instead of {table.counts()[Outcome.FEATURIZED]}")
    if wrong:
        raise DefectError(f"{output.location} does not reconcile: {', '.join(wrong)}.")
    reasons = {
        str(reason): count
        for (state, outcome, reason), count in compared.counts.items()
        if state == SAME and outcome == Outcome.REJECTED
    }
    by_count = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    return Account(counts, dict(by_count))


def check_account(account: Account, listed: int, output: Output, settings: RunSettings) -> None:
    """Refuse counts that do not add up, an input without images, and one with too many bad ones.

    Raises:
        DefectError: files were lost or doubled.
        InputError: there is no image.
        TooManyRejectedError: more of them were rejected than is allowed.
    """
    counts, reasons = account.counts, account.rejected_by_reason
    if counts.listed != listed:
        raise DefectError(
            f"{listed} files were listed, but {counts.listed} are accounted for in "
            f"{output.location}."
        )
    foreign = reasons.get(Reason.NOT_AN_IMAGE, 0)
    images = counts.listed - foreign
    if not counts.rows and counts.rejected == foreign:
        raise InputError(
            f"None of the {counts.listed} files in {settings.input} is an image.",
            f"{READ} are read, by their content.",
        )
    lost = counts.rejected - foreign
    # A share such as 0.29 is not exact: 29 of 100 are not more.
    if lost > settings.max_rejected * images + 1e-9:
        reasons_in_words = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
        raise TooManyRejectedError(
            f"{lost} of {images} images were rejected ({reasons_in_words}), more than "
            f"{settings.max_rejected:.2%}.",
            f"See {output.rejected}; --max-rejected allows more. The features are kept.",
        )
