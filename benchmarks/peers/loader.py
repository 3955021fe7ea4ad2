"""Loading in processes, as PyTorch's DataLoader does it: they decode, this process computes.

The network has all processors' threads; the decoding processes are as many as processors.
"""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import openvino
from common import Engine, arguments, paths_of, processors, tell, to_pixels, write

BATCH = 32
"""A usual batch of a loader."""


def load(paths: list[str]) -> np.ndarray:
    """The pixels of a batch."""
    return np.stack([to_pixels(path) for path in paths])


if __name__ == "__main__":
    given = arguments()
    paths, count = paths_of(given.images), processors()
    engine = Engine(given.graph, given.precision, threads=count, batch=BATCH)
    batches = [paths[start : start + BATCH] for start in range(0, len(paths), BATCH)]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, mp_context=spawn) as pool:
        features = [engine(pixels) for pixels in pool.map(load, batches)]
    write(given.output, "features", paths, np.concatenate(features))
    tell(versions={"openvino": openvino.__version__})
