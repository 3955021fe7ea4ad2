"""An output, read into one object that the page is made of; whatever it lacks is left out."""

import csv
import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import ValidationError

from verger.errors import InputError, VergerError
from verger.output.evaluation import Evaluation, read_evaluation
from verger.output.files import open_files, read_scores
from verger.output.layout import Outcome, Output
from verger.output.manifest import Manifest, read_manifest
from verger.progress import Progress
from verger.report.neighbours import Findings, examine
from verger.report.scores import Classes, Summary, count_classes, summarize
from verger.store import storage
from verger.store.location import Location

SHOWN_REJECTED = 200
"""Rejected files of one reason that are named."""

DAMAGED = (OSError, pa.ArrowException, ValueError, KeyError, VergerError)
"""What reading files raises that are missing, cut, or of another version."""


@dataclass(frozen=True)
class Component:
    """A row of `pca/spectrum.csv` or `pca/variance.csv`; ratios are shares of the variance."""

    number: int
    ratio: float
    cumulative: float


@dataclass(frozen=True)
class Contents:
    """What an output holds.

    Attributes:
        output: where it is.
        manifest: of this version, with defaults for what it does not say.
        foreign: the manifest is of another version, or says what this one does not know.
        classes: of all rows; without centroids where there is no PCA.
        rejected: (path, detail) of up to `SHOWN_REJECTED` files of each reason.
        rejected_counts: of all rejected files, by reason.
        spectrum: all components, or those kept, or none.
        kept: how many components are kept.
        summary: of the scores; None without PCA.
        findings: likewise.
        evaluation: of the recogniser; None where it has not been measured.
        problems: what could not be read, for the reader.
    """

    output: Output
    manifest: Manifest
    foreign: bool
    classes: Classes
    rejected: dict[str, list[tuple[str, str]]]
    rejected_counts: dict[str, int]
    spectrum: list[Component]
    kept: int
    summary: Summary | None
    findings: Findings | None
    evaluation: Evaluation | None
    problems: list[str]


def read_output(output: Output, progress: Progress, manifest: Manifest | None = None) -> Contents:
    """Read an output, however much of it is there.

    Args:
        output: which.
        progress: is told the stages "scores" and "compare".
        manifest: what is to be taken for its manifest; None for the one that it has.

    Raises:
        InputError: it has no manifest, or one that is no JSON object.
    """
    problems: list[str] = []
    foreign = False
    if manifest is None:
        manifest, foreign = tolerant_manifest(output)
    rejected, counts = _read_rejected(output, problems)
    spectrum, kept = _read_spectrum(output)
    summary, findings = _read_scores(output, progress, problems)
    classes = summary.classes if summary else _count(output, problems)
    return Contents(
        output=output,
        manifest=manifest,
        foreign=foreign,
        classes=classes,
        rejected=rejected,
        rejected_counts=counts or manifest.rejected_by_reason,
        spectrum=spectrum,
        kept=kept,
        summary=summary,
        findings=findings,
        evaluation=_read_evaluation(output, problems),
        problems=problems,
    )


def tolerant_manifest(output: Output) -> tuple[Manifest, bool]:
    """The manifest, and whether it is of a version that is read only in part.

    Raises:
        InputError: there is none, or it is no JSON object.
    """
    try:
        return read_manifest(output), False
    except InputError:
        fields = None
        with suppress(OSError, ValueError):
            fields = json.loads(storage.read_bytes(output.manifest))
        if not isinstance(fields, dict):
            raise
        return _known_part(fields, output), True


def _known_part(fields: dict[str, Any], output: Output) -> Manifest:
    """What this version understands of a manifest, with "?" and nothing for the rest."""
    defaults: dict[str, Any] = {
        "verger_version": "?",
        "started_at": "",
        "input": "?",
        "output": str(output.location),
        "settings": {},
        "backbone": {"weights": "?", "sha256": "?", "source": "?", "licence": "?"},
        "engine": {"name": "?", "version": "?", "precision": "?"},
        "spark": {"version": "?", "master": "?"},
    }
    known = {name: value for name, value in fields.items() if name in Manifest.model_fields}
    try:
        return Manifest.model_validate(defaults | known)
    except ValidationError as error:
        wrong = {str(problem["loc"][0]) for problem in error.errors()}
    return Manifest.model_validate(
        defaults | {name: value for name, value in known.items() if name not in wrong}
    )


def _read_rejected(
    output: Output, problems: list[str]
) -> tuple[dict[str, list[tuple[str, str]]], dict[str, int]]:
    names = defaultdict[str, list[tuple[str, str]]](list)
    counts: Counter[str] = Counter()
    with _noting(problems):
        rejected = open_files(output).dataset(Outcome.REJECTED)
        for batch in rejected.to_batches(columns=["path", "reason", "detail"]):
            for row in batch.to_pylist():
                counts[row["reason"]] += 1
                if len(names[row["reason"]]) < SHOWN_REJECTED:
                    names[row["reason"]].append((row["path"], row["detail"] or ""))
    order = sorted(counts, key=lambda reason: (-counts[reason], reason))
    return {reason: names[reason] for reason in order}, {key: counts[key] for key in order}


def _read_spectrum(output: Output) -> tuple[list[Component], int]:
    """All components, and how many are kept; those kept where only they are known."""
    kept = _read_components(output.variance)
    return _read_components(output.spectrum) or kept, len(kept)


def _read_components(file: Location) -> list[Component]:
    try:
        lines = storage.read_bytes(file).decode().splitlines()
        return [
            Component(
                int(row["component"]),
                float(row["explained_variance_ratio"]),
                float(row["cumulative_ratio"]),
            )
            for row in csv.DictReader(lines)
        ]
    except DAMAGED:  # a transformed output has no variance of its own
        return []


def _read_scores(
    output: Output, progress: Progress, problems: list[str]
) -> tuple[Summary | None, Findings | None]:
    with _noting(problems):
        scores = read_scores(output)
        if scores is None:
            return None, None
        progress.start("scores", scores.count_rows())
        summary = summarize(scores, progress)
        progress.finish()
        progress.start("compare", len(summary.sample))
        findings = examine(summary.sample, summary.classes, progress)
        progress.finish()
        return summary, findings
    return None, None


def _read_evaluation(output: Output, problems: list[str]) -> Evaluation | None:
    with _noting(problems, f"{output.evaluation}: "):
        return read_evaluation(output)
    return None


def _count(output: Output, problems: list[str]) -> Classes:
    with _noting(problems):
        return count_classes(open_files(output).dataset(Outcome.FEATURIZED))
    return Classes([], np.array([], np.int64))


@contextmanager
def _noting(problems: list[str], about: str = "") -> Iterator[None]:
    """Files that cannot be read become a problem, of a line, and the page goes without them."""
    try:
        yield
    except DAMAGED as error:
        line = (str(error).splitlines() or [type(error).__name__])[0]
        problems.append(about + line[:300])
