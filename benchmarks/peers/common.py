"""What all peers share: the images, their decoding, the network, and where features go.

It stands on Pillow, numpy, pyarrow and OpenVINO alone, so that each peer has an environment of its
own without verger. Decoding and engine are verger's: the same pixels, the same graph, one thread.
"""

import argparse
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

SIDE = 224
WIDTH = 1280
BATCH = 4
"""Images a call of the engine, as verger gives it."""


def arguments() -> argparse.Namespace:
    """What `bench.py` gives every peer."""
    parser = argparse.ArgumentParser()
    parser.add_argument("images", type=Path, help="a folder of JPEGs")
    parser.add_argument("output", type=Path, help="a folder that is not there yet")
    parser.add_argument("graph", type=Path, help="a folder with graph.xml and graph.bin")
    parser.add_argument("--precision", default="f32")
    parser.add_argument(
        "--processes", type=int, default=processors(), help="of the bare loop; the others take all"
    )
    return parser.parse_args()


def processors() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0))


def paths_of(images: Path) -> list[str]:
    """The files, in a fixed order."""
    return sorted(str(path) for path in images.iterdir())


def to_pixels(source: Any) -> np.ndarray:
    """A file, or an open stream of one, as (224, 224, 3) uint8."""
    with Image.open(source) as image:
        # Large photographs in full: no peer does otherwise unless it is told.
        rgb = image.convert("RGB")
        return np.asarray(rgb.resize((SIDE, SIDE), Image.Resampling.BICUBIC))


class Engine:
    """The network on one thread of this process, or on all with `threads`."""

    def __init__(self, graph: Path, precision: str, threads: int = 1, batch: int = BATCH) -> None:
        import openvino

        core = openvino.Core()
        model = core.read_model(graph / "graph.xml", graph / "graph.bin")
        self.batch = batch
        model.reshape([batch, SIDE, SIDE, 3])
        settings = {
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,
        }
        self.request = core.compile_model(model, "CPU", settings).create_infer_request()
        self.input = np.zeros((batch, SIDE, SIDE, 3), np.uint8)

    def __call__(self, pixels: Iterable[np.ndarray]) -> np.ndarray:
        """Features (n, 1280) float32 of n images."""
        pixels = list(pixels)
        found = np.empty((len(pixels), WIDTH), np.float32)
        for start in range(0, len(pixels), self.batch):
            part = pixels[start : start + self.batch]
            self.input[: len(part)] = part
            self.request.infer([self.input], share_inputs=True)
            found[start : start + len(part)] = self.request.get_output_tensor().data[: len(part)]
        return found


def write(output: Path, name: str, paths: list[str], features: np.ndarray) -> None:
    """Write features as Parquet."""
    output.mkdir(parents=True, exist_ok=True)
    rows = pa.table({"path": paths, "features": list(features)})
    pq.write_table(rows, output / f"{name}.parquet", compression="zstd")


def tell(**facts: Any) -> None:
    """What `bench.py` reads: the last line that is printed."""
    print(json.dumps(facts))  # noqa: T201 - the benchmark reads it
