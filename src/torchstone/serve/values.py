"""What crosses the parts of the server: an answer, and what it tells of itself to a log, a cache, a router, metrics."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Role = Literal["stable", "canary", "shadow"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One image answered."""

    id: str
    """Of the request's image, given back to the client: by it a label finds its prediction later."""
    bundle: str
    """The first 12 characters of the artifact's id."""
    probabilities: NDArray[np.float32]
    """float32[C]"""
    cached: bool
    milliseconds: Mapping[str, float]
    """``queue``, ``decode``, ``infer``: what the image waited for, and what was done with it."""


class Log(Protocol):
    """The prediction log. It never blocks and never raises: what it cannot keep, it counts."""

    def predicted(
        self, *, id: str, time: float, bundle: str, role: Role, key: str | None, image: str, label: int,
        confidence: float, milliseconds: float, error: str | None,
    ) -> None: ...  # fmt: skip

    def feedback(self, *, id: str, label: int, time: float) -> None: ...


class Cache(Protocol):
    """Answers by what was asked. It fails quietly, and counts that."""

    async def get(self, key: bytes) -> bytes | None: ...

    async def put(self, key: bytes, value: bytes) -> None: ...


class Route(NamedTuple):
    """Which model answers a request, and whether the candidate is asked as well."""

    answer: Literal["stable", "canary"]
    shadow: bool


class Router(Protocol):
    """Splits the traffic of a rollout. ``key`` is what the client is known by; the same key, the same model."""

    def route(self, id: str, key: str | None) -> Route: ...


class Observer(Protocol):
    """Is told what happens. All but ``inferred`` are called on the event loop, so each must be quick."""

    def answered(self, model: str, role: Role, answer: Answer) -> None: ...

    def refused(self, model: str, code: str) -> None:
        """An image that was not answered; ``code`` is one of ``refusals.CODES``."""
        ...

    def inferred(self, model: str, role: Role, pixels: NDArray[np.uint8], probabilities: NDArray[np.float32]) -> None:
        """A batch, uint8[n, crop, crop, 3] and float32[n, C]; called in the thread that computed it, after its answers
        have left."""
        ...


def new_id() -> str:
    """32 hexadecimal digits that sort by time (milliseconds), as UUID version 7 does, the rest of them random."""
    return f"{time.time_ns() // 1_000_000:012x}{os.urandom(10).hex()}"
