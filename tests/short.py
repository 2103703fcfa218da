"""Timing sessions that are too short for a verdict and long enough for a test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from torchstone.evaluate import timing


@contextmanager
def sessions() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"SLOT_MS": 2.0, "WARMUP_MS": 2.0, "COPIES": 2, "THROUGHPUT_ROUNDS": 2}.items():
            patch.setattr(timing, name, value)
        yield
