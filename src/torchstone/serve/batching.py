"""From single images to batches, without a queue that grows.

All decisions are made on the event loop, so that no state needs a lock: decoding threads and model threads are given
work and give it back. An image is decoded as soon as it comes; decoded images wait together until the batch is full,
until the first of them has waited for its share of time (counted from its arrival, decoding included), or until no
other image is on its way: then waiting would gain nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from torchstone.core.errors import DataError
from torchstone.serve.decoding import Decoding, Job
from torchstone.serve.model import Served
from torchstone.serve.refusals import Refusal

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Result(NamedTuple):
    """What one image comes back with."""

    probabilities: NDArray[np.float32]
    """float32[C]"""
    label: int
    confidence: float
    milliseconds: dict[str, float]


@dataclass(slots=True, eq=False)
class Item(Job):
    """A job with somebody who waits for its answer."""

    arrival: float = 0.0
    future: asyncio.Future[Result] | None = None
    timer: asyncio.TimerHandle | None = None


@dataclass(slots=True, eq=False)
class Batch:
    """Items on their way through the model."""

    items: list[Item]
    session: int
    pixels: NDArray[np.uint8] | None = None
    probabilities: NDArray[np.float32] | None = None
    labels: list[int] = field(default_factory=list)
    confidences: list[float] = field(default_factory=list)
    error: Exception | None = None
    started: float = 0.0
    seconds: float = 0.0


Inferred = Callable[[Batch], None]
PACES = 15
"""Batches whose pace is looked at. The median is taken, so that a pause of the machine is not taken for its pace."""
BURST, CALM = 1.0, 10.0
"""Seconds for which the queue may be longer than it should, which is a burst or a pause; and seconds without a refusal
after which it may be so again."""


class Batcher:
    """One model's images. Its methods are called on the event loop."""

    def __init__(
        self,
        served: Served,
        decoding: Decoding,
        *,
        queue: int,
        max_delay: float,
        max_wait: float = math.inf,
        inferred: Inferred | None = None,
    ) -> None:
        """``queue`` images are accepted at once; where those that are there will take more than ``max_wait`` seconds,
        and that has been so for a moment (BURST), no more are. A batch waits for ``max_delay`` seconds. ``inferred`` is
        called in the model's thread after each batch."""
        self.served = served
        self.closed = False
        """Nothing more may be submitted."""
        self._decoding = decoding
        self._limit = queue
        self._max_delay = max_delay
        self._max_wait = max_wait
        self._inferred = inferred
        self._loop = asyncio.get_running_loop()
        self._items: set[Item] = set()
        self._coming = 0
        self._ready: deque[Item] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._long_since = math.inf
        self._refused = -math.inf
        self._pace = 0.0
        """Seconds from one answered image to the next, while there is work."""
        self._paces: deque[float] = deque(maxlen=PACES)
        self._busy_since = 0.0
        """When the last batch was finished, or, if there was nothing left to do then, when an image came again."""
        self._unusable = 0
        """Images since then that took time and were none."""
        sessions = len(next(iter(served.runners.values())))
        self._idle = list(range(sessions))
        self._batches: list[SimpleQueue[Batch | None]] = [SimpleQueue() for _ in range(sessions)]
        self._threads = [
            threading.Thread(target=self._work, args=(number,), name=f"model-{number}", daemon=True)
            for number in range(sessions)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Images that were accepted and are not answered."""
        return len(self._items)

    def check_room(self, images: int) -> None:
        """Raise the Refusal of ``images`` more than there is room for, or time."""
        waiting = len(self._items)
        seconds = self._pace * waiting
        if waiting + images <= self._limit and not self._stands(seconds):
            return
        why = (
            f"the queue takes {self._limit}"
            if waiting + images > self._limit
            else f"that takes {seconds:.2g} s, and an image should wait {self._max_wait:g} s for others at most"
        )
        raise Refusal(
            "full", f"{waiting} images are being answered; {why}", hint="try again later, or more slowly",
            retry_after=max(1, round(seconds)),
        )  # fmt: skip

    def submit(
        self, images: Sequence[bytes], deadline: float, looks: Mapping[int, str] | None = None
    ) -> list[asyncio.Future[Result]]:
        """Accept encoded images, all or none. Each future gets its Result, or a Refusal: ``unusable`` for what is no
        image, ``late`` for what was not answered by ``deadline`` (in the loop's time). ``looks`` has the ids of those
        that are looked at closely, by their place. Raises the Refusal ``full``."""
        self.check_room(len(images))
        if not looks:
            return [self._accept(content, None, deadline) for content in images]
        return [self._accept(content, None, deadline, looks.get(place, "")) for place, content in enumerate(images)]

    def submit_pixels(self, pixels: NDArray[np.uint8], deadline: float) -> list[asyncio.Future[Result]]:
        """The same for images that are pixels already: uint8[n, crop, crop, 3]."""
        self.check_room(len(pixels))
        futures = [self._accept(b"", image, deadline) for image in pixels]
        self._dispatch()
        return futures

    async def close(self) -> None:
        """Answer what was accepted, then end the threads."""
        self.closed = True
        while self._items:
            await asyncio.wait([item.future for item in self._items if item.future is not None])
        for batches in self._batches:
            batches.put(None)
        for thread in self._threads:
            await asyncio.to_thread(thread.join)

    def _stands(self, seconds: float) -> bool:
        """Whether the queue, which will take so long, is too long and stays so. A queue that is only full answers as
        much as an empty one, and later; when the load ends, it would still be late."""
        now = self._loop.time()
        if seconds <= self._max_wait:
            self._long_since = math.inf
            return False
        if self._long_since == math.inf:
            self._long_since = now if now - self._refused > CALM else -math.inf
        if now - self._long_since < BURST:
            return False
        self._refused = now
        return True

    def _accept(
        self, content: bytes, pixels: NDArray[np.uint8] | None, deadline: float, look: str = ""
    ) -> asyncio.Future[Result]:
        future: asyncio.Future[Result] = self._loop.create_future()
        item = Item(
            content=content, preprocess=self.served.preprocess, done=self._decoded, pixels=pixels,
            arrival=time.perf_counter(), future=future, look=look,
        )  # fmt: skip
        item.timer = self._loop.call_at(deadline, self._expire, item)
        if not self._items:
            self._busy_since, self._unusable = item.arrival, 0
        self._items.add(item)
        if pixels is None:
            self._coming += 1
            self._decoding.submit(item)
        else:
            self._ready.append(item)
        return future

    def _expire(self, item: Item) -> None:
        """Nobody waits for it any more. What it holds goes with it: its room in the queue and among the bodies is given
        to others now, while it may still lie for long behind those before it."""
        item.given_up = True
        item.content = b""
        with contextlib.suppress(ValueError):  # it is being decoded, or computed
            self._ready.remove(item)
        waited = time.perf_counter() - item.arrival
        self._refuse(item, Refusal("late", f"the image was not answered within {waited:.3g} s", hint="try again later"))

    def _decoded(self, jobs: list[Job]) -> None:
        self._coming -= len(jobs)
        for job in jobs:
            if not isinstance(job, Item) or job.given_up:
                continue
            if job.error is None:
                self._ready.append(job)
            elif isinstance(job.error, DataError):
                self._unusable += 1
                self._refuse(job, Refusal("unusable", job.error.message, hint=job.error.hint))
            else:
                self._refuse(job, job.error)
        self._dispatch()

    def _dispatch(self) -> None:
        """Give idle sessions what is worth running now."""
        while self._idle and self._ready:
            now = time.perf_counter()
            left = self._ready[0].arrival + self._max_delay - now
            if self._coming and left > 0 and len(self._ready) < self.served.largest:
                if self._timer is None:
                    self._timer = self._loop.call_later(left, self._time_is_up)
                return
            session = self._idle.pop()
            self._batches[session].put(Batch(items=self._taken(), session=session, started=now))

    def _time_is_up(self) -> None:
        self._timer = None
        self._dispatch()

    def _taken(self) -> list[Item]:
        """The next batch."""
        return [self._ready.popleft() for _ in range(self.served.take(len(self._ready)))]

    def _work(self, session: int) -> None:
        """A model's thread: one batch after another."""
        while (batch := self._batches[session].get()) is not None:
            batch.started = time.perf_counter()
            try:
                batch.pixels = np.stack([item.pixels for item in batch.items if item.pixels is not None])
                batch.probabilities = self.served.answer(batch.pixels, session)
                batch.labels = batch.probabilities.argmax(axis=1).tolist()
                batch.confidences = batch.probabilities.max(axis=1).tolist()
            except Exception as error:  # the thread must go on for the others
                batch.error = error
            batch.seconds = time.perf_counter() - batch.started
            self._loop.call_soon_threadsafe(self._finished, batch)
            if self._inferred is not None and batch.probabilities is not None:
                with contextlib.suppress(Exception):  # who watches must not end what is watched
                    self._inferred(batch)

    def _finished(self, batch: Batch) -> None:
        self._idle.append(batch.session)
        now = time.perf_counter()
        self._paces.append((now - self._busy_since) / (len(batch.items) + self._unusable))
        self._pace = sorted(self._paces)[len(self._paces) // 2]
        self._busy_since, self._unusable = now, 0
        infer = batch.seconds * 1e3
        for row, item in enumerate(batch.items):
            if batch.probabilities is None:
                self._refuse(item, batch.error or RuntimeError("the model gave no answer"))
                continue
            decode = item.seconds * 1e3
            waited = max(0.0, (batch.started - item.arrival) * 1e3 - decode)
            times = {"queue": waited, "decode": decode, "infer": infer}
            result = Result(batch.probabilities[row], batch.labels[row], batch.confidences[row], times)
            self._settle(item)
            if item.future is not None and not item.future.done():
                item.future.set_result(result)
        self._dispatch()

    def _refuse(self, item: Item, error: Exception) -> None:
        self._settle(item)
        if item.future is not None and not item.future.done():
            item.future.set_exception(error)

    def _settle(self, item: Item) -> None:
        self._items.discard(item)
        if item.timer is not None:
            item.timer.cancel()
