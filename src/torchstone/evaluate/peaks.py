"""What this machine can do at its best: arithmetic by precision, and moving memory. A roofline's two lines.

Each value is the fastest of many short calls: load on the machine only ever makes a call slower, and a call of a
millisecond often runs between two interruptions where one of a second never does.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from torchstone.core import machine

SIZES = (256, 512)
"""Sides of the square matrices, which fit into the caches near the core."""
SECONDS = 0.15
"""Spent on each size at the least."""
CALLS = 5
WORTH = 0.75
"""Of float32's products a second, below which BF16 is not chosen by itself."""
LARGE, SMALL = 64 << 20, 128 << 10
"""Bytes of a copied array: beyond a share of the last cache, and within a core's own."""


@dataclass(frozen=True, kw_only=True)
class Peaks:
    """Measured with so many threads. ``gflops``: 10⁹ operations a second by precision, two for a multiply-accumulate.
    Bandwidths are 10⁹ bytes a second, read and written together. A precision that the processor has no instructions for
    is missing."""

    threads: int
    gflops: dict[str, float]
    memory: float
    cache: float

    def roof(self, precision: str, intensity: float) -> float:
        """GFLOP/s that an operator of this intensity (operations a byte) can reach with its data in memory."""
        return min(self.arithmetic(precision), intensity * self.memory)

    def arithmetic(self, precision: str) -> float:
        """The peak of a precision; of f32 where it was not measured."""
        return self.gflops.get(precision, self.gflops["f32"])

    def better(self, other: Peaks) -> Peaks:
        """The faster of two measurements, value by value."""
        return Peaks(
            threads=self.threads,
            gflops={name: max(self.gflops[name], other.gflops.get(name, 0.0)) for name in self.gflops},
            memory=max(self.memory, other.memory),
            cache=max(self.cache, other.cache),
        )


def measure(threads: int) -> Peaks:
    """The peaks with ``threads`` threads, by PyTorch's matrix products (oneDNN, MKL) and copies. About two seconds."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            return Peaks(
                threads=threads,
                gflops={name: _products(multiply) for name, multiply in _multiplications().items()},
                memory=_copies(LARGE, 4 * SECONDS),
                cache=_copies(SMALL),
            )
    finally:
        torch.set_num_threads(before)


@cache
def bf16_pays() -> bool:
    """Whether this processor multiplies BF16 itself, and not much slower than float32. Not all that have the
    instructions gain by them: with AMX it is many times as fast, on a Xeon whose AMX is hidden from its virtual machine
    0.53 times. 0.6 s, once a process.

    ``WORTH`` lies where no processor is known to: the answer has to be the same each time, since what was begun in one
    arithmetic cannot go on in another."""
    import torch

    if not machine.native_bf16():
        return False
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            products = _multiplications()
            return _products(products["bf16"]) > WORTH * _products(products["f32"])
    finally:
        torch.set_num_threads(before)


def _multiplications() -> dict[str, Callable[[int], Callable[[], Any]]]:
    """precision: from the side of two square matrices to a call that multiplies them. BF16 and INT8 are left out where
    the processor has no instructions for them: they would be emulated."""
    import torch

    def floating(kind: Any) -> Callable[[int], Callable[[], Any]]:
        def make(side: int) -> Callable[[], Any]:
            left, right = torch.ones(side, side, dtype=kind), torch.ones(side, side, dtype=kind)
            out = torch.empty(side, side, dtype=kind)
            return lambda: torch.mm(left, right, out=out)

        return make

    def integers(side: int) -> Callable[[], Any]:
        left, right = torch.ones(side, side, dtype=torch.int8), torch.ones(side, side, dtype=torch.int8)
        return lambda: torch._int_mm(left, right)  # pyright: ignore[reportPrivateImportUsage]

    found: dict[str, Callable[[int], Callable[[], Any]]] = {"f32": floating(torch.float32)}
    if machine.native_bf16():
        found["bf16"] = floating(torch.bfloat16)
    if machine.cpu_flags() & {"avx512_vnni", "avx_vnni", "amx_int8"}:
        found["int8"] = integers
    return found


def _products(make: Callable[[int], Callable[[], Any]]) -> float:
    """GFLOP/s of the best size."""
    return max(2 * side**3 / _best(make(side)) / 1e9 for side in SIZES)


def _copies(size: int, seconds: float = SECONDS) -> float:
    """GB/s of copying an array of so many bytes to another: it is read once and written once."""
    import torch

    source = torch.ones(size // 4)
    target = torch.empty_like(source)
    return 2 * size / _best(lambda: target.copy_(source), seconds) / 1e9


def _best(call: Callable[[], Any], seconds: float = SECONDS) -> float:
    """Seconds of the fastest call."""
    call()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < CALLS or time.perf_counter() < end:
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return min(times)
