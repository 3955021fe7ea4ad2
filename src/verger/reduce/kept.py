"""The statistics of a table's features, kept on disk with the names of the files they are of."""

import io
import json
import zipfile
from dataclasses import asdict, dataclass

import numpy as np

from verger.output.layout import DataFile
from verger.reduce.moments import ClassMeans, Moments, Statistics
from verger.store import storage
from verger.store.location import Location

MOST_REMOVED = 0.5
"""The share of rows, and of scatter, that is subtracted at most: what is left loses a bit of its
53 to rounding. Beyond it the rows are read again."""


@dataclass(frozen=True)
class Kept:
    """Statistics, and the data files whose rows they are of."""

    statistics: Statistics
    files: tuple[DataFile, ...]

    def write(self, file: Location) -> None:
        """Put them on disk, whole: 13 MB where there are 1280 features."""
        moments, classes = self.statistics.moments, self.statistics.classes
        stream = io.BytesIO()
        np.savez(
            stream,
            count=moments.count,
            mean=moments.mean,
            scatter=moments.scatter,
            labels=json.dumps(classes and classes.labels),
            counts=classes.counts if classes else (),
            means=classes.means if classes else (),
            files=json.dumps([asdict(data_file) for data_file in self.files]),
        )
        storage.write_bytes(file, stream.getvalue())

    @classmethod
    def read(cls, file: Location) -> "Kept | None":
        """What was kept, or None: they can be had again from the features."""
        try:
            with np.load(io.BytesIO(storage.read_bytes(file))) as arrays:
                files = tuple(
                    DataFile(**data_file) for data_file in json.loads(str(arrays["files"]))
                )
                moments = Moments(int(arrays["count"]), arrays["mean"], arrays["scatter"])
                labels = json.loads(str(arrays["labels"]))
                classes = labels and ClassMeans(tuple(labels), arrays["counts"], arrays["means"])
        except (FileNotFoundError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile):
            return None
        return cls(Statistics(moments, classes), files)


def subtract(whole: Statistics, removed: Statistics) -> Statistics | None:
    """The statistics without some rows, or None where too little would be left to be exact."""
    if removed.moments.count > MOST_REMOVED * whole.moments.count:
        return None
    left = whole.without(removed)
    kept, all_of_it = np.trace(left.moments.scatter), np.trace(whole.moments.scatter)
    return left if kept >= (1 - MOST_REMOVED) * all_of_it else None
