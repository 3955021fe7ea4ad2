"""The recogniser of an output: class means and reference images in the space of discriminants.

It is kept as `.npz`, Parquet and JSON in `recogniser/`, and read without Java.
"""

import io
from dataclasses import dataclass
from itertools import islice
from zipfile import BadZipFile

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from verger.errors import InputError, SetupError, UsageError, VergerError
from verger.output.files import Identity
from verger.output.layout import Output
from verger.reduce.discriminant import Discriminant
from verger.reduce.moments import Float64
from verger.store import storage

FORMAT = 2
"""1 had confidences that were chosen in another space than that of the answers."""

ANSWERS = 5
"""How many classes and similar images an answer names."""


class RecogniserRecord(BaseModel):
    """`recogniser/recogniser.json`: what the recogniser is made of, or why there is none.

    Attributes:
        format: of the files beside it.
        absent: why there is none; empty where there is one.
        identity: what its features have in common, as in the table of files.
        images: whose class means and references it has.
        fitted_on: how many images there were when its space was fitted; with `--keep-pca` new ones
            are added to it until they are many.
        shrinkage: of the covariance within classes; chosen by leaving each image out.
        shrinkages: the share of right answers under each, as measured for that choice.
        temperature: what cosines are divided by before they become confidences.
        threshold: a best cosine below it means that the photograph shows none of the classes.
        calibrated_on: how many photographs of `verger evaluate --calibrate` temperature and
            threshold were chosen by; 0 for the images of the fit, each left out.
        top1: share of right answers when each image is left out.
    """

    model_config = ConfigDict(extra="forbid")

    format: int = FORMAT
    absent: str = ""
    identity: Identity
    images: int = 0
    fitted_on: int = 0
    shrinkage: float = 0.0
    shrinkages: dict[float, float] = {}
    temperature: float = 1.0
    threshold: float = -1.0
    calibrated_on: int = 0
    top1: float = 0.0


class Guess(BaseModel):
    """A class, and how likely it is."""

    label: str
    confidence: float


class Similar(BaseModel):
    """An image that was fitted, and its cosine with the photograph."""

    path: str
    label: str
    similarity: float


class Answer(BaseModel):
    """What a photograph shows.

    Attributes:
        sure: whether it looks like any of the classes; if not, the guesses are only the nearest.
        guesses: the most likely classes, the likeliest first.
        similar: the images most like it, the nearest first.
    """

    sure: bool
    guesses: list[Guess]
    similar: list[Similar]


@dataclass(frozen=True)
class Recogniser:
    """Tells classes by the nearest class mean.

    Attributes:
        record: how it was made.
        labels: its classes, sorted.
        discriminant: from features to unit vectors.
        means: (classes, k), unit vectors.
        paths, path_labels: of the reference images.
        references: (n, k) float32, unit vectors.
    """

    record: RecogniserRecord
    labels: tuple[str, ...]
    discriminant: Discriminant
    means: Float64
    paths: list[str]
    path_labels: list[str]
    references: NDArray[np.float32]

    def cosines(self, features: Float64) -> Float64:
        """Of photographs, (n, d), with the class means, (n, classes)."""
        cosines: Float64 = self.discriminant.project(features) @ self.means.T
        return cosines

    def confidences(self, cosines: Float64) -> Float64:
        """Cosines (n, classes) as probabilities."""
        return softmax(cosines / self.record.temperature)

    def answer(self, features: Float64) -> Answer:
        """What a photograph with these features, (d,), shows."""
        cosines = self.cosines(features[None])
        likely = self.confidences(cosines)[0]
        return Answer(
            sure=bool(cosines.max() >= self.record.threshold),
            guesses=[
                Guess(label=self.labels[i], confidence=float(likely[i]))
                for i in np.argsort(-likely, kind="stable")[:ANSWERS]
            ],
            similar=self.similar(features),
        )

    def similar(self, features: Float64, label: str | None = None) -> list[Similar]:
        """The reference images most like features, (d,), of a class or of all."""
        vector = self.discriminant.project(features[None])[0]
        near = self.references @ vector.astype(np.float32)
        order = np.argsort(-near, kind="stable")
        wanted = (i for i in order if label is None or self.path_labels[i] == label)
        return [
            Similar(path=self.paths[i], label=self.path_labels[i], similarity=float(near[i]))
            for i in islice(wanted, ANSWERS)
        ]

    def save(self, output: Output) -> None:
        """Write it; the record last, so that what is half written does not count."""
        folder = output.recogniser
        storage.delete(folder)
        numbers = io.BytesIO()
        np.savez(
            numbers,
            mean=self.discriminant.mean,
            directions=self.discriminant.directions,
            means=self.means,
            labels=np.array(self.labels),
        )
        storage.write_bytes(folder.child("discriminant.npz"), numbers.getvalue())
        vectors = pa.FixedSizeListArray.from_arrays(
            pa.array(self.references.ravel()), self.references.shape[1]
        )
        rows = pa.table({"path": self.paths, "label": self.path_labels, "vector": vectors})
        storage.write_parquet(folder.child("references.parquet"), rows)
        write_record(self.record, output)


def write_record(record: RecogniserRecord, output: Output) -> None:
    """Say what the recogniser is made of, or why there is none."""
    data = record.model_dump_json(indent=2).encode() + b"\n"
    storage.write_bytes(output.recogniser.child("recogniser.json"), data)


def read_record(output: Output) -> RecogniserRecord | None:
    """The record of an output; None where there is none, or it is of another version."""
    try:
        data = storage.read_bytes(output.recogniser.child("recogniser.json"))
        record = RecogniserRecord.model_validate_json(data)
    except (FileNotFoundError, NotADirectoryError, ValidationError):
        return None
    return record if record.format == FORMAT else None


def find_recogniser(output: Output) -> Recogniser | None:
    """The recogniser of an output; None where there is none that can be used."""
    try:
        return load_recogniser(output)
    except VergerError:
        return None


def load_recogniser(output: Output) -> Recogniser:
    """Read the recogniser of an output.

    Raises:
        InputError: there is no output, or one that is not finished.
        UsageError: it has no recogniser, and what to do about that.
        SetupError: its files are damaged.
    """
    record = read_record(output)
    if record is None:
        if not storage.exists(output.manifest):
            raise InputError(
                f"{output.location} is not an output of verger, or its run has not ended.",
                "Make one: verger run INPUT OUTPUT",
            )
        raise UsageError(
            f"{output.location} has no recogniser: its last run did not end, or was of "
            "another version.",
            "Give the same `verger run INPUT OUTPUT` again: it makes one, and features are kept.",
        )
    if record.absent:
        raise UsageError(
            f"{output.location} has no recogniser. {record.absent}",
            "Sort the images into a folder a class, or give --label-from, and run again.",
        )
    folder = output.recogniser
    try:
        data = storage.read_bytes(folder.child("discriminant.npz"))
        with np.load(io.BytesIO(data), allow_pickle=False) as numbers:
            discriminant = Discriminant(numbers["mean"], numbers["directions"])
            means, labels = numbers["means"], tuple(map(str, numbers["labels"]))
        rows = storage.read_parquet(folder.child("references.parquet"))
        vectors = rows["vector"].combine_chunks().flatten().to_numpy()
        references = vectors.reshape(len(rows), means.shape[1])
    except (OSError, EOFError, ValueError, KeyError, BadZipFile, pa.ArrowException) as error:
        raise SetupError(
            f"The recogniser in {folder} is damaged: {error}",
            "Delete this folder, and give the same `verger run INPUT OUTPUT` again.",
        ) from error
    return Recogniser(
        record=record,
        labels=labels,
        discriminant=discriminant,
        means=means,
        paths=rows["path"].to_pylist(),
        path_labels=rows["label"].to_pylist(),
        references=references,
    )


def softmax(scores: Float64) -> Float64:
    """Rows of scores as rows of probabilities."""
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    shares: Float64 = powers / powers.sum(axis=-1, keepdims=True)
    return shares
