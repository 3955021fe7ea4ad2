"""Where photographs wait for their turn: few workers, a short queue, and an end to patience."""

import asyncio
import os
import pickle
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from threading import local
from typing import TypeVar

import numpy as np

from verger.images.decoding import Picture, at_full_size, decode
from verger.images.guard import Guard
from verger.networks.engines import Pixels
from verger.output.layout import Rejection
from verger.recognise.photo import Photographer
from verger.recognise.recogniser import Answer, Recogniser

T = TypeVar("T")


class BusyError(Exception):
    """The queue is full."""


class LateError(Exception):
    """An answer took too long."""


class Desk:
    """Answers on a few threads, each with its own network and its own process that decodes.

    A file that hangs or kills its decoder costs that process, which is replaced, and nothing else.

    Args:
        recogniser: whose answers.
        photographer: turns pixels into features.
        queue: how many photographs may wait besides those that are worked on.
        seconds: what an answer may take, its time in the queue included.
    """

    def __init__(
        self,
        recogniser: Recogniser,
        photographer: Photographer,
        *,
        queue: int,
        seconds: float,
    ) -> None:
        self.recogniser = recogniser
        self.photographer = photographer
        self.workers = os.cpu_count() or 1
        self.most = self.workers + queue
        self.seconds = seconds
        self.taken = 0
        self._pool = ThreadPoolExecutor(self.workers, thread_name_prefix="desk")
        self._of_thread = local()
        self._guards: list[Guard] = []

    async def answer(self, data: bytes) -> Answer | Rejection:
        """What a photograph shows, or why it cannot be read.

        Raises:
            BusyError, LateError: it was not looked at, or not in time.
        """
        return await self._in_turn(partial(self._answer, data))

    async def pixels(self, data: bytes) -> Pixels | Rejection:
        """The pixels of a photograph at its full size; raises as above."""
        return await self._in_turn(partial(self._decode, "whole", data))

    def warm_up(self) -> None:
        """Start all workers with their networks and decoders, so that nobody waits for that.

        Raises:
            SetupError: the engine is not installed, or no process can be started.
        """
        side = self.photographer.backbone.network.side
        blank = np.zeros((side * self.photographer.views, side, 3), np.uint8)

        def prepare(_: int) -> None:
            self._decode("views", b"")
            self._decode("whole", b"")
            self.photographer.reduce(blank)

        list(self._pool.map(prepare, range(self.workers)))

    def close(self) -> None:
        """Let the workers finish, and end their decoders."""
        self._pool.shutdown(cancel_futures=True)
        for guard in self._guards:
            guard.close()

    async def _in_turn(self, work: Callable[[], T]) -> T:
        if self.taken >= self.most:
            raise BusyError
        self.taken += 1
        future: Future[T] = self._pool.submit(work)
        loop = asyncio.get_running_loop()
        # The place is free when the work has ended, not when its client has lost patience.
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._free))
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), self.seconds)
        except asyncio.TimeoutError as error:
            raise LateError from error

    def _free(self) -> None:
        self.taken -= 1

    def _answer(self, data: bytes) -> Answer | Rejection:
        pixels = self._decode("views", data)
        if isinstance(pixels, Rejection):
            return pixels
        return self.recogniser.answer(self.photographer.reduce(pixels))

    def _decode(self, size: str, data: bytes) -> Pixels | Rejection:
        """Decode in the process of this thread for views, or for pictures as they are."""
        guards = self._of_thread.__dict__
        if size not in guards:
            by = self.photographer
            resize = by.resize if size == "views" else at_full_size
            rules = by.rules if size == "views" else replace(by.rules, least=None)
            decoder = partial(decode, resize=resize, rules=rules)
            guards[size] = Guard(pickle.dumps(decoder), self.seconds)
            self._guards.append(guards[size])
        found: Picture | Rejection = guards[size](data)
        return found if isinstance(found, Rejection) else found.pixels
