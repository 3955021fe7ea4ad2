"""The limit: a process a processor, each decoding and computing its share, and nothing else."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import openvino
from common import BATCH, Engine, arguments, paths_of, tell, to_pixels, write


def work(  # noqa: PLR0917 - as a pool calls it
    paths: list[str], graph: Path, precision: str, output: Path, name: str, ready: Any
) -> tuple[float, float]:
    """A process' share; when it began, all being ready, and when it ended."""
    engine = Engine(graph, precision)
    engine([to_pixels(paths[0])])
    ready.wait(timeout=300)
    began = monotonic()
    found = [
        engine(map(to_pixels, paths[start : start + BATCH]))
        for start in range(0, len(paths), BATCH)
    ]
    ended = monotonic()
    write(output, name, paths, np.concatenate(found))
    return began, ended


if __name__ == "__main__":
    given = arguments()
    paths, count = paths_of(given.images), given.processes
    spawn = multiprocessing.get_context("spawn")
    with spawn.Manager() as manager, ProcessPoolExecutor(count, mp_context=spawn) as pool:
        ready = manager.Barrier(count)
        futures = [
            pool.submit(
                work, paths[n::count], given.graph, given.precision, given.output, str(n), ready
            )
            for n in range(count)
        ]
        begun, ended = zip(*(future.result() for future in futures), strict=True)
    tell(versions={"openvino": openvino.__version__}, seconds=max(ended) - min(begun))
