"""The images that a recogniser is chosen by, out of all rows of features."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from verger.reduce.sample import Draw, Sample
from verger.spark.reduce import to_matrix
from verger.spark.scan import Batches, Rows, Scan, gather

SAMPLED = "path string, label string, features binary"
"""An image of a sample as a row; its features are float32, as in the table."""


def sample_images(rows: Rows, draw: Draw) -> Sample:
    """The images of a sample.

    Args:
        rows: with `path`, `label` and `features`; read once.
        draw: which of them.
    """

    def of_task(batches: Batches) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            paths, labels = (batch.column(name).to_pylist() for name in ("path", "label"))
            chosen = [n for n, path in enumerate(paths) if draw.has(path, labels[n])]
            if chosen:
                features = to_matrix(batch.column("features").take(pa.array(chosen)))
                columns = {
                    "path": [paths[n] for n in chosen],
                    "label": [labels[n] for n in chosen],
                    "features": [row.tobytes() for row in features.astype(np.float32)],
                }
                yield pa.RecordBatch.from_pydict(columns)

    if isinstance(rows, Scan) and draw.is_all:
        # All of it comes to the driver: through Java it would only take longer.
        found = [row for batch in of_task(rows.read()) for row in batch.to_pylist()]
    else:
        found = gather(rows, of_task, SAMPLED, large=True)
    found.sort(key=lambda row: str(row["path"]))
    paths, labels = ([row[name] for row in found] for name in ("path", "label"))
    width = len(found[0]["features"]) // np.float32().itemsize if found else 0
    features = np.empty((len(found), width), np.float32)
    for place, row in enumerate(found):
        # Each row's bytes go as they are copied: of 20,000 rows they are 100 MB.
        features[place] = np.frombuffer(row.pop("features"), np.float32)
    return Sample(paths, labels, features)
