"""Threads that make pixels of encoded images, by ``data.preprocess.prepare`` and nothing else."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from torchstone.core.errors import DataError
from torchstone.core.values import Preprocess
from torchstone.data.appearance import side_of
from torchstone.data.preprocess import prepare

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TOGETHER = 0.001
"""Seconds for which finished images are collected while small ones wait: waking the event loop costs more than decoding
one of them does."""
SMALL = 16_384
"""Bytes of an image before which finished ones need not be handed over first."""


@dataclass(slots=True, eq=False)
class Job:
    """One image on its way to pixels."""

    content: bytes
    preprocess: Preprocess
    done: Callable[[list[Job]], None]
    """Called on the event loop, with jobs that have the same ``done``."""
    pixels: NDArray[np.uint8] | None = None
    error: Exception | None = None
    """A DataError for an image that is not usable."""
    seconds: float = 0.0
    given_up: bool = False
    """Nobody waits for it any more: it is not decoded."""
    look: str = ""
    """The id of an image that is to be looked at closely; empty: it is not."""
    side: float = math.nan
    """``data.appearance.side_of`` it, where it is looked at."""


class Decoding:
    """A pool of threads on one event loop, shared by all models of a process."""

    def __init__(self, threads: int, max_pixels: int, loop: asyncio.AbstractEventLoop) -> None:
        self._max_pixels = max_pixels
        self._loop = loop
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, name=f"decode-{number}", daemon=True) for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, job: Job) -> None:
        self._jobs.put(job)

    def close(self) -> None:
        """End the threads, after what they have been given."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        finished: list[Job] = []
        since = 0.0
        while True:
            try:
                job = self._jobs.get_nowait() if finished else self._jobs.get()
            except Empty:
                finished = self._hand_over(finished)
                continue
            if job is None:
                self._hand_over(finished)
                return
            if finished and len(job.content) > SMALL:
                finished = self._hand_over(finished)
            before = time.perf_counter()
            self._decode(job)
            now = time.perf_counter()
            job.seconds = now - before
            since = since if finished else before
            finished.append(job)
            if now - since > TOGETHER:
                finished = self._hand_over(finished)

    def _decode(self, job: Job) -> None:
        if job.given_up:
            return
        try:
            job.pixels = prepare(job.content, job.preprocess, max_pixels=self._max_pixels)
        except DataError as error:  # anew: this one knows the frames that know the image, and this job, which knows it
            job.error = DataError(error.message, hint=error.hint)
        except Exception as error:  # the thread must go on for the others
            job.error = error
        if job.look and job.error is None:
            job.side = side_of(job.content)
        job.content = b""

    def _hand_over(self, jobs: list[Job]) -> list[Job]:
        """Give ``jobs`` back to whoever asked for them; an empty list to go on with."""
        by_receiver: dict[Callable[[list[Job]], None], list[Job]] = {}
        for job in jobs:
            by_receiver.setdefault(job.done, []).append(job)
        for receive, theirs in by_receiver.items():
            self._loop.call_soon_threadsafe(receive, theirs)
        return []
