"""How long a model takes beside a reference that takes turns with it, so that a busy machine slows both."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torchstone.core.values import Precision
from torchstone.models.families import Member

ROUNDS = 7
SLOT_SECONDS = 0.05


@dataclass(frozen=True, kw_only=True)
class Relative:
    """Of one call."""

    ms: float
    """Median of the slots."""
    ratio: float
    """Times as long as the reference: the median over pairs of neighbouring slots."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How the networks are timed."""

    runtime: str = "openvino"
    threads: int = 1
    precision: Precision = "f32"


@dataclass(frozen=True, kw_only=True)
class Row:
    """A network and, where it was timed, how long one image takes."""

    member: Member
    speed: Relative | None = None


def relative(call: Callable[[], Any], reference: Callable[[], Any]) -> Relative:
    """Slots of at least 50 ms in the order call, reference, reference, call …, after one each that is not counted."""
    for warming in (call, reference):
        _slot(warming)
    own, ratios = [], []
    for number in range(ROUNDS):
        first, second = (call, reference) if number % 2 == 0 else (reference, call)
        times = {first: _slot(first), second: _slot(second)}
        own.append(times[call])
        ratios.append(times[call] / times[reference])
    return Relative(ms=1000 * statistics.median(own), ratio=statistics.median(ratios))


def _slot(call: Callable[[], Any]) -> float:
    """Median seconds of the calls of one slot."""
    times: list[float] = []
    while not times or sum(times) < SLOT_SECONDS:
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)
