"""What an output folder holds: names, schemas, and the manifest that says whether it is whole."""

from datetime import datetime, timezone
from enum import Enum
from typing import Any, Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, ValidationError

from verger import storage
from verger.errors import InputError, UsageError
from verger.storage import Location


class Reason(str, Enum):
    """Why a file gave no features; the whole vocabulary of `rejected/`."""

    __str__ = str.__str__

    NOT_AN_IMAGE = "not_an_image"
    """By its content it is none of the formats read; it does not count against --max-rejected."""
    EMPTY = "empty"
    TRUNCATED = "truncated"
    CORRUPT = "corrupt"
    UNSUPPORTED = "unsupported"
    """An image, but of a format or a kind of pixel that is not read."""
    TOO_LARGE = "too_large"
    """More bytes or pixels than the settings allow, or than memory holds."""
    UNREADABLE = "unreadable"
    """The file system or the store would not give it: permission, vanished, a name not UTF-8."""
    CRASHED = "crashed"
    TIMEOUT = "timeout"


MATRIX_ROWS = 1_000_000
"""Up to so many rows, `pca/matrix.csv` holds the whole matrix in one file."""

FINGERPRINT = (
    pa.field("size", pa.int64()),
    pa.field("mtime_ns", pa.int64()),
    pa.field("etag", pa.string()),
    pa.field("shard", pa.string()),
    pa.field("row_group", pa.int32()),
    pa.field("row", pa.int32()),
)
"""What tells that a file changed, and where it is: a local file has a time of modification, an
object an ETag, and a packed image its place in a shard."""

LISTING_SCHEMA = pa.schema(
    [pa.field("path", pa.string()), pa.field("label", pa.string()), *FINGERPRINT]
)
"""An image as it was listed."""

FILES_SCHEMA = pa.schema(
    [
        pa.field("path", pa.string()),
        pa.field("label", pa.string()),
        pa.field("features", pa.list_(pa.field("element", pa.float32()))),
        pa.field("reason", pa.string()),
        pa.field("detail", pa.string()),
        *FINGERPRINT,
        pa.field("outcome", pa.string()),
    ]
)
"""A file that was dealt with: features, or a reason and its detail."""

SCORES_SCHEMA = pa.schema(
    [
        pa.field("path", pa.string()),
        pa.field("label", pa.string()),
        pa.field("pca", pa.list_(pa.field("element", pa.float64()))),
    ]
)
"""A row of the matrix."""


class Outcome(str, Enum):
    """What became of a file."""

    __str__ = str.__str__

    FEATURIZED = "featurized"
    REJECTED = "rejected"


class Output:
    """The names inside an output folder."""

    def __init__(self, location: Location) -> None:
        self.location = location
        self.manifest = location.child("manifest.json")
        self.files = location.child("files")
        """The table of files; below it, a folder for each outcome."""
        self.features = self.files.child(f"outcome={Outcome.FEATURIZED}")
        self.rejected = self.files.child(f"outcome={Outcome.REJECTED}")
        self.work = location.child("_run")
        """What only runs read: the lock, the last listing, and what is to be done."""
        self.listing = self.work.child("listing")
        self.pca = location.child("pca")
        self.scores = location.child("pca/parquet")
        self.matrix_csv = location.child("pca/matrix.csv")
        self.model = location.child("model")
        self.report = location.child("report.html")

    @property
    def folders(self) -> tuple[Location, ...]:
        """What runs write, and delete."""
        return (self.files, self.pca, self.model)


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
    """Which network made the features."""

    name: str = "mobilenet_v2"
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
    components: int | None = None
    explained_variance_ratio: float | None = None
    backbone: BackboneRecord
    engine: EngineRecord
    spark: SparkRecord
    timings: dict[str, float] = {}
    images_per_second: float | None = None

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
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def check_no_run(output: Output) -> None:
    """Refuse an output of `verger run` to steps that start over.

    Raises:
        UsageError: it has a manifest.
    """
    if storage.exists(output.manifest):
        raise UsageError(
            f"{output.location} is an output of `run`, which keeps account of what is in it.",
            "Give another output.",
        )


def check_foreign(output: Output) -> None:
    """Refuse a folder without ledger that holds files of others under the names that runs delete.

    Raises:
        UsageError: naming one of them; the folder has no manifest, so no run made them.
    """
    if storage.exists(output.manifest):
        return
    for folder in (*output.folders, output.report):
        if storage.names(folder) or (storage.exists(folder) and not storage.is_folder(folder)):
            raise UsageError(
                f"{folder} holds files, and no run of verger made them.",
                "Give another output folder: a run would delete them.",
            )
