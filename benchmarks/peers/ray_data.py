"""Ray Data: binary files through a pool of actors, a processor each, as its pages have it."""

import io
from pathlib import Path
from typing import Any

import ray
from common import Engine, arguments, processors, tell, to_pixels

Batch = dict[str, Any]


class Featurize:
    """An actor with its own network."""

    def __init__(self, graph: Path, precision: str) -> None:
        self.engine = Engine(graph, precision)

    def __call__(self, batch: Batch) -> Batch:
        """Features of a batch of files."""
        pixels = (to_pixels(io.BytesIO(data)) for data in batch["bytes"])
        return {"path": batch["path"], "features": self.engine(pixels)}


if __name__ == "__main__":
    given = arguments()
    count = processors()
    ray.init(
        num_cpus=2 * count, include_dashboard=False, log_to_driver=False, logging_level="ERROR"
    )
    # Reading shares the processors with the actors: both would not get a whole one each.
    files = ray.data.read_binary_files(
        str(given.images), include_paths=True, ray_remote_args={"num_cpus": 0.5}
    )
    files.map_batches(
        Featurize,
        fn_constructor_args=(given.graph, given.precision),
        compute=ray.data.ActorPoolStrategy(size=count),
        num_cpus=1,
        batch_size=64,
    ).write_parquet(str(given.output))
    tell(versions={"ray": ray.__version__})
