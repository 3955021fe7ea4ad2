"""What is refused before or after the work: settings, old outputs and inputs that do not fit."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone

from py4j.protocol import Py4JError
from pyspark.errors import PySparkException

from verger.errors import (
    DeadlineReached,
    DefectError,
    InputError,
    SetupError,
    TooManyRejectedError,
    UsageError,
)
from verger.output.files import Identity, open_files
from verger.output.layout import Output, Reason
from verger.settings import RunSettings, check_apart
from verger.spark.changes import Account
from verger.spark.failures import explain
from verger.spark.model import find_model, is_whole
from verger.spark.takeover import read_old_ledger
from verger.store.location import Location


def check_settings(settings: RunSettings) -> None:
    """Refuse settings that contradict each other.

    Raises:
        UsageError: naming them.
    """
    check_apart(settings.input, settings.output)
    results = Output(settings.output)
    for folder in (*results.folders, results.work):
        if folder.contains(settings.input):
            raise UsageError(
                f"The input {settings.input} is where results go: runs delete what is in {folder}.",
                "Give an output elsewhere.",
            )
    if settings.model and results.location.contains(settings.model):
        raise UsageError(
            f"The PCA {settings.model} lies inside the output {settings.output}.",
            "Give an output elsewhere, or use --keep-pca with `verger run`.",
        )
    if (settings.engine, settings.precision) == ("tensorflow", "bf16"):
        raise UsageError("--precision bf16 is OpenVINO's.", "Use --engine openvino, or f32.")


def check_identity(
    found: Identity, source: str, identity: Identity, output: Output, settings: RunSettings
) -> None:
    """Refuse an old output whose rows would not be comparable with new ones.

    Args:
        found: what the rows of the output have in common.
        source: the input that they came from.
        identity: what new rows would have.
        output: where they are.
        settings: with the input.

    Raises:
        UsageError: saying what differs, with the commands that would be right.
    """
    differs = [
        f"{name} {old!r} instead of {new!r}"
        for (name, old), (_, new) in zip(found, identity, strict=True)
        if old != new
    ]
    hint = "Give another output folder, or start this one over with --fresh."
    if source != str(settings.input) and not settings.rebase:
        differs.append(f"input {source!r} instead of {str(settings.input)!r}")
        hint += " If it is the same tree elsewhere, say so with --rebase."
    if differs:
        raise UsageError(f"{output.location} was made with {', '.join(differs)}.", hint)


def check_model(identity: Identity, output: Output, settings: RunSettings) -> None:
    """Refuse a PCA that is not there, or of features that are not comparable with these.

    Raises:
        UsageError: saying which.
    """
    if settings.keep_pca and not is_whole(output.model):
        raise UsageError(
            f"{output.location} has no fitted PCA to keep.", "Leave out --keep-pca once."
        )
    if settings.model is None:
        return
    find_model(settings.model)
    made_by = _identity_at(settings.model) or _identity_at(settings.model.parent)
    if made_by and made_by != identity.model_copy(update={"label_from": made_by.label_from}):
        raise UsageError(
            f"The PCA of {settings.model} was fitted on features of other weights or precision.",
            f"Give --weights and --precision as they were: {made_by.weights_sha256[:12]}, "
            f"{made_by.precision}.",
        )


def _identity_at(place: Location) -> Identity | None:
    """What the rows of an output have in common, if there is one."""
    output = Output(place)
    table = open_files(output)
    if table.exists:
        return Identity.of(table)
    old = read_old_ledger(output)
    return old.identity_now() if old else None


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
            "JPEG, PNG, WebP, BMP, GIF and TIFF are read, by their content.",
        )
    lost = counts.rejected - foreign
    # A share such as 0.29 is not exact: 29 of 100 are not more.
    if lost > settings.max_rejected * images + 1e-9:
        found = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
        raise TooManyRejectedError(
            f"{lost} of {images} images were rejected ({found}), more than "
            f"{settings.max_rejected:.2%}.",
            f"See {output.rejected}; --max-rejected allows more. The features are kept.",
        )


def check_deadline(settings: RunSettings, left: int, seconds_an_image: float) -> None:
    """Refuse to begin a wave that would end after the deadline.

    Args:
        settings: with the deadline, if there is one.
        left: images that are not done yet.
        seconds_an_image: as long as they took so far; 0 if that is not known.

    Raises:
        DeadlineReached: saying how many images are left.
    """
    if settings.deadline is None or not left:
        return
    wave = timedelta(seconds=min(left, settings.wave_size) * seconds_an_image)
    if datetime.now(timezone.utc) + wave > settings.deadline:
        raise DeadlineReached(
            f"{left:,} images are left, and the next wave would end after the deadline, "
            f"{settings.deadline.isoformat()}.",
            "What is done is kept; the same command with a later --deadline goes on from here.",
        )


@contextmanager
def explained() -> Iterator[None]:
    """Say what a failure of Spark, disk or memory means.

    Raises:
        VergerError: of the kind that fits.
    """
    try:
        yield
    except (PySparkException, Py4JError, OSError, EOFError) as error:
        raise explain(error) from error
    except MemoryError as error:
        raise SetupError(
            "There is not enough memory.", "Look at `verger doctor`; the same command goes on."
        ) from error
