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


def in_order(function: Callable[[ItemT], ResultT], items: Sequence[ItemT], description: str) -> Iterator[ResultT]:
    """``function`` of each item, in the items' order, from threads; a progress bar shows ``description``.

    Pillow and hashlib let go of the interpreter while they work. Only a few chunks are ever ahead of the consumer.
    """
    return track(_in_order(function, items), description, total=len(items))


def _in_order(function: Callable[[ItemT], ResultT], items: Sequence[ItemT]) -> Iterator[ResultT]:
    threads = usable_cores()
    chunks = (items[start : start + CHUNK] for start in range(0, len(items), CHUNK))
    with ThreadPoolExecutor(threads, thread_name_prefix="images") as pool:
        waiting: deque[Future[list[ResultT]]] = deque()
        try:
            for chunk in islice(chunks, 2 * threads):
                waiting.append(pool.submit(_each, function, chunk))
            while waiting:
                results = waiting.popleft().result()
                waiting.extend(pool.submit(_each, function, chunk) for chunk in islice(chunks, 1))
                yield from results
        finally:
            for future in waiting:
                future.cancel()


def _each(function: Callable[[ItemT], ResultT], items: Iterable[ItemT]) -> list[ResultT]:
    return [function(item) for item in items]
