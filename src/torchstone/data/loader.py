"""Batches for a training loop, in the order of a plan whatever the number of worker processes.

Worker processes are forked, so that the decoded cache and the plan are shared, not copied. They pay only where making a
batch keeps one core busy for longer than handing it over takes: a cached image is a copy of a few milliseconds a batch,
and decoding on demand uses all cores from threads already. So unless a number is given, the first batches are made in
place, and what they cost decides.
"""

from __future__ import annotations

import os
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from torchstone.core import console
from torchstone.core.contracts import ImageSet
from torchstone.core.errors import ConfigError, DataError, StorageError, UserError
from torchstone.core.machine import usable_cores
from torchstone.data import parallel

if TYPE_CHECKING:
    from numpy.typing import NDArray

Make = Callable[["NDArray[np.uint8]", "NDArray[np.intp]"], "NDArray[np.uint8]"]
"""uint8[n, s, s, 3] as stored and the images' rows → uint8[n, crop, crop, 3]. It runs in a worker."""

AHEAD = 2
"""Batches that each worker may have ready before they are asked for."""
TRIED = 2
"""Batches made in place before the number of workers is chosen; the first one also pays for imports and cold pages."""
WORTH_SECONDS = 0.01
"""Of one batch: what is made faster than this is not worth handing over."""
WORTH_TOTAL = 2.0
"""Seconds of work that have to lie ahead before processes are started."""
SHARED_MEMORY = "/dev/shm"
SHARE = 0.8
"""Of the free shared memory, through which batches come back. Where it is full, a process dies without a message."""


class Batch(NamedTuple):
    """What one training step takes."""

    rows: NDArray[np.intp]
    pixels: torch.Tensor
    """uint8[n, crop, crop, 3]; in pinned memory where there is a GPU."""
    labels: torch.Tensor
    """int64[n]"""


def batches(
    images: ImageSet, plan: Sequence[NDArray[np.intp]], make: Make | None = None, *, workers: int | None = None
) -> Iterator[Batch]:
    """The batches of ``plan``, the rows of each, in that order.

    ``make`` turns stored pixels into those that are trained on; without it they are what evaluation sees. Its result
    may depend on the rows alone, not on who calls it or when: then all that comes out is the same for 0, 1 or 20
    ``workers``. None chooses their number by the machine and the cost of the first batches; 0 works in this process.

    Raises what ``images`` and ``make`` raise, wherever they ran, and a StorageError when a worker was killed.
    """
    if workers is not None and workers < 0:
        raise ConfigError(f"workers = {workers} is refused: it cannot be negative", hint="0 works in this process")
    work = _Work(images, plan, make)
    done = 0
    if workers is None:
        cost = Cost()
        for done in range(1, min(TRIED, len(plan)) + 1):
            pixels, cost = _timed(work, done - 1)
            yield _batch(images, plan[done - 1], pixels)
        workers = choose_workers(cost, len(plan) - done, usable_cores(), gpu=torch.cuda.is_available())
    rest = range(done, len(plan))
    workers = min(workers, len(rest))
    if workers:
        workers = _fitting(workers, images, plan)
    made = _from_workers(work, rest, workers) if workers else map(work.__getitem__, rest)
    for number, pixels in zip(rest, made, strict=True):
        if isinstance(pixels, UserError):
            raise pixels
        yield _batch(images, plan[number], pixels)


@dataclass(frozen=True)
class Cost:
    """Of one batch, made in this process: seconds on the clock, and of all cores together."""

    wall: float = 0.0
    cpu: float = 0.0


def choose_workers(cost: Cost, remaining: int, cores: int, *, gpu: bool) -> int:
    """How many processes are worth starting for ``remaining`` more batches.

    On a GPU machine the loader's work runs beside the training: every core can take a share. Where the training runs on
    the CPU as well, all cores are taken already, and half as many processes fill its gaps; what is done from threads
    has used those cores itself.
    """
    if cost.wall < WORTH_SECONDS or cost.wall * remaining < WORTH_TOTAL:
        return 0
    if gpu:
        return max(1, cores - 1)
    single_threaded = cost.cpu < 1.5 * cost.wall
    return cores // 2 if single_threaded else 0


class _Work(Dataset[torch.Tensor]):
    """What a worker does for the batch of a number."""

    def __init__(self, images: ImageSet, plan: Sequence[NDArray[np.intp]], make: Make | None) -> None:
        self._images = images
        self._plan = plan
        self._make = make

    def __getitem__(self, number: int) -> torch.Tensor:
        """uint8[n, crop, crop, 3]"""
        rows = self._plan[number]
        made = self._images.images(rows) if self._make is None else self._make(self._images.stored(rows), rows)
        return torch.from_numpy(np.ascontiguousarray(made))


class _Guarded(Dataset["torch.Tensor | UserError"]):
    """A UserError comes back as a value: raised in a worker, it would arrive as a traceback without its hint."""

    def __init__(self, work: _Work) -> None:
        self._work = work

    def __getitem__(self, number: int) -> torch.Tensor | UserError:
        try:
            return self._work[number]
        except UserError as error:
            return DataError(error.message, hint=error.hint)


def _timed(work: _Work, number: int) -> tuple[torch.Tensor, Cost]:
    wall, cpu = time.perf_counter(), time.process_time()
    pixels = work[number]
    return pixels, Cost(time.perf_counter() - wall, time.process_time() - cpu)


def _batch(images: ImageSet, rows: NDArray[np.intp], pixels: torch.Tensor) -> Batch:
    labels = torch.from_numpy(images.labels[rows])
    if torch.cuda.is_available():
        pixels, labels = pixels.pin_memory(), labels.pin_memory()  # what is pinned already is not copied
    return Batch(rows, pixels, labels)


def _from_workers(work: _Work, numbers: range, workers: int) -> Iterator[torch.Tensor | UserError]:
    with warnings.catch_warnings():
        # Torch warns of more workers than cores, and Python 3.12 of every fork beside threads.
        warnings.filterwarnings("ignore", message="This DataLoader will create", category=UserWarning)
        warnings.filterwarnings("ignore", message=".*multi-threaded, use of fork", category=DeprecationWarning)
        loader = DataLoader(
            _Guarded(work),
            batch_size=None,
            sampler=numbers,
            num_workers=workers,
            prefetch_factor=AHEAD,
            collate_fn=_as_it_is,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=_alone,
            multiprocessing_context="fork",
            generator=torch.Generator(),  # it draws a seed for its workers: not from the training's generator
        )
        made = iter(loader)
    try:
        yield from made
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise StorageError(
            f"a process that prepares images was killed: {error}",
            hint="was there not enough memory? try --workers 0, or a smaller --batch",
        ) from None


def _as_it_is(made: Any) -> Any:
    return made


def _alone(_: int) -> None:
    """In a worker: it is one of several, so that it uses one core. Ctrl-C in a terminal reaches all of them; it is for
    the training to say when their work is over."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parallel.use_threads(1)


def _fitting(workers: int, images: ImageSet, plan: Sequence[NDArray[np.intp]]) -> int:
    """As many of ``workers`` as the shared memory has room for: containers often grant 64 MB of it."""
    try:
        place = os.statvfs(SHARED_MEMORY)
    except OSError:
        return workers  # another system: it has no such limit
    batch = images.images(slice(0, 1)).nbytes * max(len(rows) for rows in plan)
    room = int(SHARE * place.f_bavail * place.f_frsize / max(1, batch * (AHEAD + 1)))
    if room < workers:
        console.say(f"note: '{SHARED_MEMORY}' has room for the batches of {room} of {workers} worker processes")
    return min(workers, room)
