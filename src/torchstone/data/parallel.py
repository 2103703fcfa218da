"""Work on many images: on all usable cores, in order, with memory that does not grow."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from torchstone.core.console import track
from torchstone.core.machine import usable_cores

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

CHUNK = 16
"""Items a task: handing over a single small image would cost as much as decoding it."""

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
        waiting: deque[Future[list[ResultT]]] = deque()
        try:
            waiting.extend(pool.submit(_each, function, some) for some in islice(chunks, 2 * threads))
            while waiting:
                results = waiting.popleft().result()
                waiting.extend(pool.submit(_each, function, some) for some in islice(chunks, 1))
                yield from results
        finally:
            for future in waiting:
                future.cancel()


def _each(function: Callable[[ItemT], ResultT], items: Iterable[ItemT]) -> list[ResultT]:
    return [function(item) for item in items]
