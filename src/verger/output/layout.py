"""What an output folder holds: names and schemas."""

from dataclasses import dataclass
from enum import Enum

import pyarrow as pa

from verger.errors import UsageError
from verger.store import storage
from verger.store.location import Location


class Reason(str, Enum):
    """Why a file gave no features; the whole vocabulary of `rejected/`."""

    __str__ = str.__str__

    NOT_AN_IMAGE = "not_an_image"
    """It is no image and not called like one; it does not count against --max-rejected."""
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


class Special(str, Enum):
    """What was special about how an image was read."""

    __str__ = str.__str__

    PROFILE = "profile"
    """Its colours were changed to what its ICC profile means."""
    SCALED = "scaled"
    """A large JPEG was decoded at a fraction of its size."""
    TRUNCATED = "truncated"
    """It was cut, and taken as far as it goes, as --accept-truncated has it."""


ROW_GROUP = 2048
"""Rows of a table that are written, and read, at once: 10 MB of features."""

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

SPECIAL = pa.field("special", pa.string())
"""The values of `Special` that are true of an image, joined by `+`; null for none. Outputs of
before have no such column."""

THUMBNAIL = pa.field("thumbnail", pa.binary())
"""WebP of at most 64 pixels a side, of images that take long to decode; null for others. Outputs of
before have no such column."""

FILES_SCHEMA = pa.schema(
    [
        pa.field("path", pa.string()),
        pa.field("label", pa.string()),
        pa.field("features", pa.list_(pa.field("element", pa.float32()))),
        pa.field("reason", pa.string()),
        pa.field("detail", pa.string()),
        *FINGERPRINT,
        SPECIAL,
        THUMBNAIL,
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
        self.rejected = self.files.child(f"outcome={Outcome.REJECTED}")
        self.work = location.child("_run")
        """What only runs read: the lock, the last listing, and what is to be done."""
        self.listing = self.work.child("listing")
        self.moments = self.work.child("moments.npz")
        """Of all features, for the next fit."""
        self.pca = location.child("pca")
        self.scores = location.child("pca/parquet")
        self.variance = location.child("pca/variance.csv")
        self.spectrum = location.child("pca/spectrum.csv")
        self.matrix_csv = location.child("pca/matrix.csv")
        self.model = location.child("model")
        self.recogniser = location.child("recogniser")
        self.evaluation = self.recogniser.child("evaluation.json")
        self.report = location.child("report.html")

    @property
    def folders(self) -> tuple[Location, ...]:
        """What runs write, and delete."""
        return (self.files, self.pca, self.model, self.recogniser)


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
    """Refuse a folder that has no table, but files of others under names that runs delete.

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


@dataclass(frozen=True)
class DataFile:
    """A Parquet file of a table.

    Attributes:
        name: relative to the table, such as `outcome=featurized/x.parquet`.
        size: in bytes.
        rows: how many it has.
        part: the value of the column that the table is partitioned by; None where it is not.
    """

    name: str
    size: int
    rows: int
    part: str | None = None


@dataclass(frozen=True)
class ListedImage:
    r"""A file that may be an image.

    Attributes:
        path: relative to the input, `/` between its parts; bytes that are not UTF-8 are shown as
            `\xNN`, and such a file is later rejected as unreadable.
        label: its class, empty when there is none.
        size: in bytes.
        mtime_ns: time of modification in nanoseconds since 1970, of a local file.
        etag: of an object on S3, or the sha256 of a packed image.
        shard, row_group, row: where a packed image is; see `verger.packs.format`.
    """

    path: str
    label: str
    size: int
    mtime_ns: int | None = None
    etag: str | None = None
    shard: str | None = None
    row_group: int | None = None
    row: int | None = None


@dataclass(frozen=True)
class Rejection:
    """Why a file gave no pixels."""

    reason: Reason
    detail: str


OUT_OF_MEMORY = Rejection(Reason.TOO_LARGE, "more memory than there is")
