"""Many images at once: in order whatever each takes, by threads where they help, and never too far ahead."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator

import pytest

from torchstone.data import parallel
from torchstone.data.parallel import CHUNK, mapped

BUSY = bytes(20_000_000)
"""What is hashed for some 10 ms, without the interpreter."""


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    parallel.use_threads(2)
    yield
    parallel.use_threads(None)


def whose(item: int) -> tuple[int, str]:
    """The item, and the thread that did it; some items are much work, some are waited for, most are nothing."""
    if 200 <= item < 260:
        hashlib.sha256(BUSY).digest()
    if 600 <= item < 700:
        time.sleep(0.002)
    return item, threading.current_thread().name


def test_the_order_is_kept_whatever_each_takes() -> None:
    done = list(mapped(whose, range(1_000)))
    assert [item for item, _ in done] == list(range(1_000))
    names = [name for _, name in done]
    assert any(name.startswith("images") for name in names[200:260]), "much work goes to threads"
    assert "MainThread" in names[:200], "what is nothing is done here"
    assert "MainThread" in names[300:600], "and again, when the much work is over"
    assert all(name.startswith("images") for name in names[700 - CHUNK :]), "once items were waited for, threads do all"


def test_an_error_arrives_behind_what_came_before_it() -> None:
    def fails(item: int) -> int:
        if item == 500:
            raise ValueError(item)
        return item

    seen: list[int] = []
    with pytest.raises(ValueError, match="500"):
        seen.extend(mapped(fails, range(1_000)))
    assert seen == list(range(500 - 500 % CHUNK))


def test_only_a_few_chunks_are_ahead_of_who_takes_them() -> None:
    begun: list[int] = []

    def notes(item: int) -> int:
        begun.append(item)
        time.sleep(0.001)
        return item

    it = mapped(notes, range(1_000))
    next(it)
    time.sleep(0.2)
    assert len(begun) <= 5 * CHUNK
    it.close()  # pyright: ignore[reportAttributeAccessIssue]
