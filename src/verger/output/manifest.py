"""The manifest, which says whether an output is whole."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from verger.errors import InputError
from verger.output.layout import Output
from verger.progress import utc_now
from verger.store import storage


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Counts(_Record):
    """Always listed = featurized + reused + rejected, and rows = featurized + reused + kept."""

    listed: int = 0
    featurized: int = 0
    reused: int = 0
    rejected: int = 0
    kept: int = 0

    @property
    def rows(self) -> int:
        """Rows of features, and so of the matrix."""
        return self.featurized + self.reused + self.kept


class BackboneRecord(_Record):
    """Which network made the features, and how many an image has."""

    name: str
    width: int = 1280
    weights: str
    sha256: str
    source: str
    licence: str


class EngineRecord(_Record):
    """What ran it."""

    name: str
    version: str
    precision: str


class SparkRecord(_Record):
    """Where it ran."""

    version: str
    master: str


class Fidelity(_Record):
    """How near features in bfloat16 are to those in float32.

    Attributes:
        images: that were computed in both.
        mean_cosine, least_cosine: of an image's features in one and the other.
        same_neighbour: the share of images whose nearest one among them, by cosine, is the same.
    """

    images: int
    mean_cosine: float
    least_cosine: float
    same_neighbour: float


Status = Literal["complete", "interrupted", "too_many_rejected", "deadline"]


class Manifest(_Record):
    """`manifest.json`; times are UTC in ISO 8601, timings in seconds."""

    status: Status = "interrupted"
    verger_version: str
    started_at: str
    finished_at: str | None = None
    input: str
    output: str
    settings: dict[str, Any]
    counts: Counts = Counts()
    rejected_by_reason: dict[str, int] = {}
    passed_over: int = 0
    """Files that systems leave beside images, and that are not listed."""
    read_specially: dict[str, int] = {}
    """Of all rows of features, by `verger.output.layout.Special`."""
    components: int | None = None
    explained_variance_ratio: float | None = None
    backbone: BackboneRecord
    engine: EngineRecord
    spark: SparkRecord
    timings: dict[str, float] = {}
    images_per_second: float | None = None
    fidelity: Fidelity | None = None
    """Of a run with `--precision bf16` that computed something."""

    def write(self, output: Output) -> None:
        """Put it in place, whole."""
        storage.write_bytes(output.manifest, self.model_dump_json(indent=2).encode() + b"\n")


def read_manifest(output: Output) -> Manifest:
    """Read the manifest of an output folder.

    Raises:
        InputError: there is none, or it is not one that this version reads.
    """
    try:
        return Manifest.model_validate_json(storage.read_bytes(output.manifest))
    except FileNotFoundError as error:
        raise InputError(
            f"{output.location} holds no manifest.json: it is not an output of verger.",
            "Make one: verger run INPUT OUTPUT",
        ) from error
    except ValidationError as error:
        raise InputError(
            f"{output.manifest} cannot be read: {error.errors()[0]['msg']}.",
            "It may be from another version; run again with --fresh.",
        ) from error


def now() -> str:
    """The time, for the manifest."""
    return utc_now().isoformat(timespec="seconds")
