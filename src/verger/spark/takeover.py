"""An output of before there was a table: its waves become one, and nothing is computed again."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ValidationError
from pyspark.sql import SparkSession

from verger.errors import SetupError
from verger.images.decoding import EXACT
from verger.output.files import Identity
from verger.output.layout import FILES_SCHEMA, FINGERPRINT, DataFile, Outcome, Output
from verger.spark.reading import Reader, Slice
from verger.spark.scan import Batches
from verger.spark.writing import write
from verger.store import storage


class OldWave(BaseModel):
    """Images that were committed together, in folders of these numbers."""

    number: int
    images: int
    featurized: int


class OldLedger(BaseModel):
    """`_ledger/ledger.json`, which named the waves that counted."""

    input: str
    identity: dict[str, str]
    waves: tuple[OldWave, ...]

    @property
    def featurized(self) -> int:
        """Rows of features."""
        return sum(wave.featurized for wave in self.waves)

    def identity_now(self) -> Identity:
        """What its rows have in common, in the words of today."""
        return Identity(**self.identity, decoding=EXACT)


def read_old_ledger(output: Output) -> OldLedger | None:
    """The ledger of an output that an earlier version made, or None.

    Raises:
        SetupError: it is damaged.
    """
    file = output.location.child("_ledger", "ledger.json")
    try:
        return OldLedger.model_validate_json(storage.read_bytes(file))
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise SetupError(
            f"{file} is damaged or of another version.",
            "Start over with --fresh, or give another output folder.",
        ) from error


def take_over(spark: SparkSession, output: Output, ledger: OldLedger) -> list[DataFile]:
    """Write the rows of all waves below the table's folder, a task a wave.

    Returns:
        The new files, which are not committed yet.
    """
    place, waves = output.location, ledger.waves
    names = [field.name for field in FINGERPRINT]

    def rows_of(numbers: Batches) -> Iterator[pa.RecordBatch]:
        for batch in numbers:
            for number in batch[0].to_pylist():
                yield from rows_of_wave(waves[number])

    def rows_of_wave(wave: OldWave) -> Iterator[pa.RecordBatch]:
        known = storage.read_parquet(place.child(f"_ledger/images/wave={wave.images}"))
        known = known.combine_chunks()
        paths = known["path"].chunk(0)
        for folder, outcome in (
            (place.child(f"features/wave-{wave.number:06}"), Outcome.FEATURIZED),
            (place.child(f"rejected/wave-{wave.number:06}"), Outcome.REJECTED),
        ):
            reader = Reader(folder, FILES_SCHEMA, partition="outcome")
            files = [name for name in storage.names(folder) if name.endswith(".parquet")]
            for rows in reader.read(
                Slice(DataFile(name, 0, 0, str(outcome)), 0, 2**62) for name in files
            ):
                order = pc.index_in(rows.column("path"), value_set=paths)
                columns = {column: rows.column(column) for column in rows.schema.names}
                columns |= {column: known[column].chunk(0).take(order) for column in names}
                yield pa.RecordBatch.from_pydict(columns, FILES_SCHEMA)

    count = len(waves)
    numbers = spark.range(0, count, 1, max(count, 1))
    return write(numbers, rows_of, output.files, "outcome")


def remove_old(output: Output) -> None:
    """Delete what an earlier version wrote, by the ledger that says that it did."""
    place = output.location
    if storage.exists(place.child("_ledger")):
        for name in ("features", "rejected", "_ledger"):
            storage.delete(place.child(name))
