"""Small files of a table, merged into few by tasks: so a driver never reads what is merged."""

from collections import Counter
from collections.abc import Callable, Iterable
from itertools import groupby

from pyspark.sql import SparkSession

from verger.output.layout import DataFile
from verger.output.table import Table
from verger.spark.reading import Reader, Slice
from verger.spark.scan import Scan
from verger.spark.writing import check_rows, write

MERGED_ROWS = 10_000
"""About the rows of a file that others were merged into: of features 32 MB, and 51 MB in memory.
Files of half of it and more are left as they are. Bytes would not bound what a task reads: those of
images that are all alike are few."""


def merge_files(spark: Callable[[], SparkSession], table: Table, most: int) -> bool:
    """Merge small files where a partition has more than `most` of them.

    Args:
        spark: gives the session; asked only where there is something to merge.
        table: whose rows stay the same, in one commit.
        most: small files that a partition may have.

    Returns:
        Whether files were merged.

    Raises:
        DefectError: rows would be lost.
    """
    small = [file for file in table.files() if file.rows < MERGED_ROWS / 2]
    counts = Counter(file.part for file in small)
    groups = group_files(file for file in small if counts[file.part] > most)
    if not groups:
        return False
    merged = [file for group in groups for file in group]
    tasks = [[Slice(file, 0, file.rows) for file in group] for group in groups]
    scan = Scan(spark(), Reader(table.location, table.schema, table.partition), tasks)
    written = write(scan, iter, table.location, table.partition)
    check_rows(written, sum(file.rows for file in merged))
    table.commit(written, merged, same_rows=True)
    return True


def group_files(files: Iterable[DataFile]) -> list[list[DataFile]]:
    """Files of one partition each, as many as have `MERGED_ROWS`; none is alone."""
    groups: list[list[DataFile]] = []
    for _, of_part in groupby(files, key=lambda file: file.part):
        rows = MERGED_ROWS
        for file in of_part:
            if rows >= MERGED_ROWS:
                groups.append([])
                rows = 0
            groups[-1].append(file)
            rows += file.rows
    return [group for group in groups if len(group) > 1]
