"""The table of files: one row a file that was listed and dealt with, and what all rows share."""

from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from verger.errors import UsageError
from verger.output.layout import FILES_SCHEMA, SCORES_SCHEMA, SPECIAL, Outcome, Output
from verger.output.table import Table
from verger.store import storage
from verger.store.lock import held

if TYPE_CHECKING:
    from pyarrow.dataset import Dataset


class Identity(BaseModel):
    """What all rows of an output have in common; another identity needs another output."""

    model_config = ConfigDict(frozen=True)

    backbone: str
    weights_sha256: str
    precision: str
    label_from: str
    decoding: str
    """The version of the rules by which files become pixels."""
    views: str = "1"
    """How many views of each image its features are the mean of; see `verger.images.views`."""

    @classmethod
    def of(cls, table: Table) -> "Identity":
        """That of a table that exists."""
        properties = table.properties
        fields = cls.model_fields.items()
        return cls(**{name: properties.get(name, field.default or "") for name, field in fields})


def differences(old: Identity, wanted: Identity) -> str:
    """What differs between two identities, in words; empty where nothing does."""
    return ", ".join(
        f"{name} {had!r} instead of {value!r}"
        for (name, had), (_, value) in zip(old, wanted, strict=True)
        if had != value
    )


def check_comparable(old_identity: Identity, wanted: Identity, output: Output) -> None:
    """Refuse an old output whose rows would not be comparable with new ones.

    Args:
        old_identity: what its rows have in common.
        wanted: what new rows would have.
        output: where they are.

    Raises:
        UsageError: saying what differs.
    """
    if differs := differences(old_identity, wanted):
        raise UsageError(
            f"{output.location} was made with {differs}.",
            "Give another output folder, or start this one over with --fresh.",
        )


def check_source(old_source: str, wanted: str, output: Output) -> None:
    """Refuse an output that was made of another input.

    Raises:
        UsageError: naming both.
    """
    if old_source != wanted:
        raise UsageError(
            f"{output.location} was made with input {old_source!r} instead of {wanted!r}.",
            "Give another output folder, or start this one over with --fresh. If it is the same "
            "tree elsewhere, say so with --rebase.",
        )


def open_files(output: Output, **writer: Any) -> Table:
    """The table of an output's files, which may not exist yet.

    Args:
        output: where it is.
        writer: `said`, `check` and `anew` of `Table`, of a process that writes to it.

    Raises:
        SetupError: it cannot be read.
    """
    return Table(output.files, FILES_SCHEMA, partition="outcome", **writer)


def count_special(table: Table) -> dict[str, int]:
    """How many rows of features were read in which special way, the most frequent first.

    Raises:
        SetupError, OSError: they cannot be read.
    """
    counts: Counter[str] = Counter()
    rows = table.dataset(Outcome.FEATURIZED)
    for batch in rows.to_batches(columns=[SPECIAL.name]):
        for item in batch.column(0).value_counts().to_pylist():
            for name in filter(None, (item["values"] or "").split("+")):
                counts[name] += item["counts"]
    return dict(counts.most_common())


def open_scores(output: Output, **writer: Any) -> Table:
    """The table of an output's scores, which may not exist yet; arguments as for `open_files`.

    Raises:
        SetupError: it cannot be read.
    """
    return Table(output.scores, SCORES_SCHEMA, **writer)


def read_scores(output: Output) -> "Dataset | None":
    """The rows of `SCORES_SCHEMA` of an output for Arrow, or None where there is no matrix.

    Earlier versions, and other programs, leave plain Parquet.

    Raises:
        SetupError, OSError, pyarrow.ArrowException: the table or its files cannot be read.
    """
    from pyarrow.dataset import dataset  # slow to import

    table = open_scores(output)
    if table.exists:
        return table.dataset()
    if not storage.exists(output.scores):
        return None
    files = storage.file_system(output.scores)
    return dataset(output.scores.path, filesystem=files, format="parquet")


def locked(output: Output) -> AbstractContextManager[Callable[[], None]]:
    """Hold the output for this process, so that no two runs write to it; see `lock.held`."""
    name = "lease.json" if output.location.is_s3 else "lock"
    return held(output.location, output.work.child(name))
