"""Daft: files through a class with state, in batches and in processes of their own."""

import io
from pathlib import Path

import daft
from common import WIDTH, Engine, arguments, paths_of, processors, tell, to_pixels
from daft import DataType

FEATURES = DataType.fixed_size_list(DataType.float32(), WIDTH)


@daft.cls(use_process=True, max_concurrency=processors())
class Featurize:
    """A process with its own network."""

    def __init__(self, graph: str, precision: str) -> None:
        self.engine = Engine(Path(graph), precision)

    @daft.method.batch(return_dtype=FEATURES, batch_size=64)
    def features(self, contents: daft.Series) -> list:
        """Features of a batch of files."""
        return list(self.engine(to_pixels(io.BytesIO(data)) for data in contents.to_pylist()))


if __name__ == "__main__":
    given = arguments()
    featurize = Featurize(str(given.graph), given.precision)
    files = daft.from_pydict({"path": paths_of(given.images)})
    files = files.into_batches(256)
    files = files.with_column("content", daft.col("path").download())
    rows = files.select("path", featurize.features(daft.col("content")).alias("features"))
    rows.write_parquet(str(given.output))
    tell(versions={"daft": daft.__version__})
