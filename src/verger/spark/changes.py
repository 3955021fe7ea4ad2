"""What a run changes in the table of files: rows that waves add and retire, rows re-based."""

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import SparkSession

from verger.output.layout import FINGERPRINT, LISTING_SCHEMA, DataFile, Output
from verger.output.table import Table
from verger.spark.comparison import EXTRACTED, Comparison, agree, stale
from verger.spark.reading import FILE, Reader, whole
from verger.spark.scan import Batches, Scan
from verger.spark.waves import PENDING, Wave, waves_of
from verger.spark.writing import check_rows, write, write_here


def plan_waves(
    compared: Comparison, output: Output, wave_size: int, *, prune: bool, packed: bool
) -> list[Wave]:
    """Cut what is to be done into waves of about `wave_size`, written to `_run`.

    Rows of one file of the table are retired by one wave, which writes that file anew; new images
    are spread over all waves, so that each is a sample of all classes. Images of one
    row group stay together, since they are read together.

    Args:
        compared: the comparison.
        output: where waves are written to.
        wave_size: images, or rows that are retired.
        prune: retire the rows of images that have gone.
        packed: images are in shards.
    """
    count = -(-max(compared.to_do(prune=prune)) // wave_size)
    if isinstance(compared.rows, pa.Table):
        rows = _planned_here(compared.rows, count, stale(prune))
        return waves_of(write_here(output.work, rows.to_batches(), PENDING))
    together = f"coalesce({FILE.name}, concat(shard, '#', row_group), path)"
    number = f"format_string('%06d', pmod(xxhash64({together}), {count}))"
    columns = [*LISTING_SCHEMA.names, FILE.name]
    frame = compared.rows
    images, retired = (
        frame.where(f"state in ({', '.join(map(repr, states))})").selectExpr(
            *columns, f"concat({number}, '{what}') as {PENDING}"
        )
        for states, what in ((EXTRACTED, "-images"), (stale(prune), "-retired"))
    )
    rows = images.unionByName(retired)
    # A shuffle is a stage more, and a single wave needs none.
    rows = rows.repartition(PENDING) if count > 1 else rows.coalesce(1)
    if packed:
        rows = rows.sortWithinPartitions(PENDING, "shard", "row_group", "row")
    return waves_of(write(rows, iter, output.work, PENDING))


def _planned_here(compared: pa.Table, count: int, retired: tuple[str, ...]) -> pa.Table:
    """Images, and rows that are retired, with the waves that they go to; in this process."""
    compared = compared.sort_by("path")
    group = pc.binary_join_element_wise(
        compared["shard"], pc.cast(compared["row_group"], pa.string()), "#"
    )
    together = pc.coalesce(compared[FILE.name], group, compared["path"])
    codes = pc.dictionary_encode(together).combine_chunks()
    # Always the same for the same rows; each wave gets as many groups.
    spread = np.random.default_rng(0).permutation(len(codes.dictionary))
    numbers = [f"{n:06}" for n in spread[codes.indices.to_numpy()] % count]
    parts = []
    for what, states in (("images", EXTRACTED), ("retired", retired)):
        names = pa.array([f"{number}-{what}" for number in numbers])
        chosen = pc.is_in(compared["state"], pa.array(states))
        parts.append(compared.append_column(PENDING, names).filter(chosen))
    order = [(name, "ascending") for name in (PENDING, "shard", "row_group", "row", "path")]
    columns = [*LISTING_SCHEMA.names, FILE.name, PENDING]
    return pa.concat_tables(parts).sort_by(order).select(columns)


def retire(spark: SparkSession, output: Output, table: Table, wave: Wave) -> tuple[
    list[DataFile], list[DataFile]
]:  # fmt: skip
    """Write the files anew that hold rows which a wave retires, without these.

    Returns:
        The new files, and the old ones; neither is committed.

    Raises:
        DefectError: other rows would go too.
    """
    if not wave.retired:
        return [], []
    schema = pa.schema([LISTING_SCHEMA.field("path"), FILE])
    retired = Reader(output.work, schema).table(whole(wave.retired))
    names = set(retired[FILE.name].to_pylist())
    paths = retired["path"].combine_chunks()
    old = [file for file in table.files() if file.name in names]

    def without_retired(batches: Batches) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            yield batch.filter(pc.invert(pc.is_in(batch.column("path"), value_set=paths)))

    rows = Scan.of_table(spark, table, *table.schema.names, files=old)
    written = write(rows, without_retired, table.location, table.partition)
    check_rows(written, sum(file.rows for file in old) - len(retired))
    return written, old


def rebase(
    spark: SparkSession, output: Output, listing: list[DataFile], table: Table
) -> list[DataFile]:
    """Write all files of the table anew, with the fingerprints of the listing where sizes agree.

    Returns:
        The new files, which are not committed yet.

    Raises:
        DefectError: rows would be lost.
    """
    names = [field.name for field in FINGERPRINT]
    new = Scan.of_files(spark, output.work, LISTING_SCHEMA, listing).rows().alias("new")
    old = Scan.of_table(spark, table, "path", *names, FILE.name).rows().alias("old")
    fingerprint = [f"if({agree('size')}, new.{name}, old.{name}) as {name}" for name in names]
    joined = old.join(new, "path", "left").selectExpr("path", *fingerprint, FILE.name)
    files = {file.name: file for file in table.files()}
    reader = Reader(table.location, table.schema, table.partition)

    def refresh(batches: Batches) -> Iterator[pa.RecordBatch]:
        of_file: defaultdict[str, list[pa.RecordBatch]] = defaultdict(list)
        for batch in batches:
            column = batch.column(FILE.name)
            for name in column.unique().to_pylist():
                of_file[name].append(batch.filter(pc.equal(column, name)))
        for name, known in of_file.items():
            fingerprints = pa.Table.from_batches(known).combine_chunks()
            for rows in reader.read(whole([files[name]])):
                order = pc.index_in(rows.column("path"), value_set=fingerprints["path"].chunk(0))
                columns = {column: rows.column(column) for column in rows.schema.names}
                columns |= {column: fingerprints[column].chunk(0).take(order) for column in names}
                yield pa.RecordBatch.from_pydict(columns, rows.schema)

    written = write(joined.repartition(FILE.name), refresh, table.location, table.partition)
    check_rows(written, sum(file.rows for file in files.values()))
    return written
