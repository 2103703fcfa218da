"""Work on many images: on all usable cores, in order, with memory that does not grow."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, NamedTuple, TypeVar

from torchstone.core.console import track
from torchstone.core.machine import usable_cores

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

CHUNK = 16
"""Items a task: handing over a single small image would cost as much as decoding it."""

QUICK = 0.8e-3
"""Seconds of the processor an item below which threads lose: what lets go of the interpreter is then so short that they
only wait for it. Pictures of 32 pixels take 0.28 ms in one thread and 0.54 in two, both busy all the time."""

_threads: int | None = None


def use_threads(threads: int | None) -> None:
    """Of this process, from now on; None: as many as there are usable cores. One of several workers takes 1."""
    global _threads
    _threads = threads


def in_order(
    function: Callable[[ItemT], ResultT], items: Sequence[ItemT], description: str, chunk: int = CHUNK
) -> Iterator[ResultT]:
    """``function`` of each item, in the items' order, from threads; a progress bar shows ``description``.

    ``chunk`` is the items a task: 1 where each is much work.

    Pillow and hashlib let go of the interpreter while they work. Only a few chunks are ever ahead of the consumer.
    While items are ``QUICK``, and need not be waited for as on a slow disk, this thread does them itself.
    """
    return track(mapped(function, items, chunk), description, total=len(items))


def mapped(function: Callable[[ItemT], ResultT], items: Sequence[ItemT], chunk: int = CHUNK) -> Iterator[ResultT]:
    """``in_order`` without a progress bar."""
    threads = _threads or usable_cores()
    if threads == 1 or len(items) == 1:
        yield from map(function, items)
        return
    chunks = (items[start : start + chunk] for start in range(0, len(items), chunk))
    with ThreadPoolExecutor(threads, thread_name_prefix="images") as pool:
        waiting: deque[Future[_Done[ResultT]]] = deque()
        quick = slow_disk = False
        try:
            for some in chunks:
                if quick:
                    while waiting:
                        yield from waiting.popleft().result().results
                    done = _each(function, some)
                    slow_disk = done.waited > 0.5
                else:
                    waiting.append(pool.submit(_each, function, some))
                    if len(waiting) < 2 * threads:
                        continue
                    done = waiting.popleft().result()
                quick = chunk > 1 and not slow_disk and done.seconds < QUICK * len(some)
                yield from done.results
            while waiting:
                yield from waiting.popleft().result().results
        finally:
            for future in waiting:
                future.cancel()


class _Done(NamedTuple, Generic[ResultT]):
    results: list[ResultT]
    seconds: float
    """Of the processor."""
    waited: float
    """Share of the time in which this thread did nothing."""


def _each(function: Callable[[ItemT], ResultT], items: Iterable[ItemT]) -> _Done[ResultT]:
    wall, used = time.perf_counter(), time.thread_time()
    results = [function(item) for item in items]
    wall, used = time.perf_counter() - wall, time.thread_time() - used
    return _Done(results, used, 1 - used / wall if wall else 0.0)
