"""The values and contracts that cross the parts of the server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from torchstone.serve.rollout.plan import Route

Role = Literal["stable", "canary", "shadow"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One image, answered."""

    id: str
    """Of this image in this request; feedback names it."""
    bundle: str
    """The first 12 digits of the artifact's id."""
    probabilities: NDArray[np.float32]
    """[C]"""
    cached: bool
    milliseconds: Mapping[str, float]
    """queue, decode, infer"""


class Log(Protocol):
    """The prediction log. It never blocks and never raises."""

    def predicted(
        self,
        *,
        id: str,
        time: float,
        bundle: str,
        role: Role,
        key: str | None,
        image: str,
        label: int,
        confidence: float,
        milliseconds: float,
        error: str | None,
    ) -> None: ...

    def feedback(self, *, id: str, label: int, time: float) -> None: ...


class Router(Protocol):
    """Who answers a request."""

    def route(self, id: str, key: str | None) -> Route: ...
