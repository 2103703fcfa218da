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

    from torchstone.serve.model import Served

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
    label: int
    """The most probable class, and its probability."""
    confidence: float
    labels: tuple[str, ...]
    """The model's names of its classes: by the time an answer is read, another model may stand in its place."""
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

    hits: int
    misses: int
    errors: int

    async def get(self, key: bytes) -> bytes | None: ...

    async def put(self, key: bytes, value: bytes) -> None: ...

    async def close(self) -> None: ...


class Route(NamedTuple):
    """Which model answers a request, and whether the candidate is asked as well."""

    answer: Literal["stable", "canary"]
    shadow: bool


class Router(Protocol):
    """Splits the traffic of a rollout. ``key`` is what the client is known by; the same key, the same model."""

    def route(self, id: str, key: str | None) -> Route: ...


class Look(NamedTuple):
    """One image of the stable model's that is looked at closely."""

    id: str
    label: int
    confidence: float
    side: float
    """``data.appearance.side_of`` its file; NaN where it was not read, like ``pixels`` that are None: the answer came
    from the cache."""
    pixels: NDArray[np.uint8] | None


class Observer(Protocol):
    """Is told what happens. All but ``inferred`` and ``looked`` are called on the event loop, so each must be quick;
    these two are called in the thread that computed a batch, after its answers have left (``looked`` on the loop, too,
    for an answer from the cache)."""

    def opened(self, model: str, role: Role, served: Served) -> None:
        """From now on ``served`` answers in that role; a shadow is opened as a canary."""
        ...

    def ended(self, model: str, role: Role) -> None:
        """Nothing answers in that role any more."""
        ...

    def answered(self, model: str, role: Role, answer: Answer) -> None: ...

    def refused(self, model: str, code: str) -> None:
        """An image that was not answered; ``code`` is one of ``refusals.CODES``."""
        ...

    def inferred(self, model: str, role: Role, images: int) -> None:
        """A batch."""
        ...

    def wanted(self, model: str) -> bool:
        """Whether an image that comes now is to be looked at closely."""
        ...

    def looked(self, model: str, bundle: str, look: Look) -> None: ...


def new_id() -> str:
    """32 hexadecimal digits that sort by time (milliseconds), as UUID version 7 does, the rest of them random."""
    return f"{time.time_ns() // 1_000_000:012x}{os.urandom(10).hex()}"
