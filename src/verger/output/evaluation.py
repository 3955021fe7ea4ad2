"""What `verger evaluate` measured, as an output keeps it in `recogniser/evaluation.json`."""

from pydantic import BaseModel

from verger.output.layout import ListedImage, Output
from verger.store import storage


class ClassScore(BaseModel):
    """How often images of a class are recognised."""

    label: str
    images: int
    top1: float
    top5: float


class Confusion(BaseModel):
    """A class that was taken for another, how often, and some of the images."""

    label: str
    taken_for: str
    images: int
    examples: list[str]


class Mistake(BaseModel):
    """An image that was taken for another class.

    Attributes:
        image: where it is in the input that was evaluated, and its label.
        taken_for: the class that was named.
        confidence: of that answer.
        nearest: the path, in the input of the run, of the image of that class that is most like it;
            None where none of that class is kept.
    """

    image: ListedImage
    taken_for: str
    confidence: float
    nearest: str | None


class Bin(BaseModel):
    """Images with about the same confidence: their mean confidence and the share of right ones."""

    images: int
    confidence: float
    accuracy: float


class Coverage(BaseModel):
    """The share of right answers where only the surest so many are given."""

    coverage: float
    accuracy: float


class Evaluation(BaseModel):
    """What `verger evaluate` measures.

    Attributes:
        input: where the images are.
        top1, top5: shares of images whose class is the likeliest, or among the five likeliest.
        top1_interval: of 95 % (Wilson 1927).
        classes: of the images, among those that the recogniser knows.
        images: of these classes that could be read.
        ece: expected calibration error, with 15 bins (Guo et al. 2017, arXiv:1706.04599).
        answered: the share of images that the recogniser is sure of, and `answered_accuracy` the
            share of right answers among them.
        unknown_refused: the share of images that it is not sure of when their own class is left out
            of the answers: what it does with a kind that it has not seen.
        foreign: images of classes that it does not know, which count nowhere else, and
            `foreign_refused` the share of them that it is not sure of; None where there are none.
        rejected: files that are images and could not be read, by reason.
        by_class: in the order of their labels.
        confused: pairs, the most frequent first.
        mistakes: the answers that were wrong with the most confidence, the surest first.
        calibration: bins that are not empty.
        coverage: accuracy for falling shares of answers.
        images_per_second: with reading and decoding.
    """

    input: str
    top1: float
    top5: float
    top1_interval: tuple[float, float]
    classes: int
    images: int
    ece: float
    answered: float
    answered_accuracy: float
    unknown_refused: float
    foreign: int
    foreign_refused: float | None
    rejected: dict[str, int]
    by_class: list[ClassScore]
    confused: list[Confusion]
    mistakes: list[Mistake]
    calibration: list[Bin]
    coverage: list[Coverage]
    images_per_second: float


def write_evaluation(evaluation: Evaluation, output: Output) -> None:
    """Keep it beside the recogniser that it measures, and with which it goes."""
    data = evaluation.model_dump_json(indent=2).encode() + b"\n"
    storage.write_bytes(output.evaluation, data)


def read_evaluation(output: Output) -> Evaluation | None:
    """The last one of an output; None where its recogniser has not been measured.

    Raises:
        OSError, ValueError: it cannot be read, or is of another version.
    """
    try:
        return Evaluation.model_validate_json(storage.read_bytes(output.evaluation))
    except (FileNotFoundError, NotADirectoryError):
        return None
