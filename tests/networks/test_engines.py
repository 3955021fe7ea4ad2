"""Engines of several threads of a process."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np

from verger.networks.engines import Features, new_engine
from verger.networks.graph import load_backbone


def test_threads_may_make_their_engines_at_once() -> None:
    backbone = load_backbone()
    side = backbone.network.side
    pixels = np.full((4, side, side, 3), 99, np.uint8)
    together = Barrier(4)

    def compute(_: int) -> Features:
        together.wait(timeout=60)
        return new_engine(backbone).features(pixels)

    with ThreadPoolExecutor(4) as pool:
        first, *others = pool.map(compute, range(4))
    for other in others:
        np.testing.assert_array_equal(first, other)
