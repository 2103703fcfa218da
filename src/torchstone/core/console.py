"""What a person sees while work goes on: lines and progress bars on stderr. stdout belongs to the answer."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

ItemT = TypeVar("ItemT")
_quiet = False

LOG_SECONDS = 30.0
"""From one line to the next, where progress goes to a log."""
LOG = "TORCHSTONE_LOG"
"""Variable that names a file to which all lines are added, besides: of a container, what it said outlives it there."""


def be_quiet(quiet: bool = True) -> None:
    """Print nothing while working."""
    global _quiet
    _quiet = quiet


def stderr() -> Any:
    """A rich console on stderr."""
    from rich.console import Console

    return Console(stderr=True, quiet=_quiet, highlight=False)


def say(message: str) -> None:
    """A line about what is being done or was decided."""
    stderr().print(message, soft_wrap=True, markup=False)
    if path := os.environ.get(LOG):
        with contextlib.suppress(OSError), Path(path).open("a") as log:  # no reason to stop working
            log.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {message}\n")


def track(items: Iterable[ItemT], description: str, total: int | None = None, *, done: int = 0) -> Iterator[ItemT]:
    """``items``, with a progress bar in a terminal, and a line now and then (LOG_SECONDS) in a log. Of ``total``,
    ``done`` were done before."""
    console = stderr()
    if _quiet or not console.is_terminal:
        yield from _logged(items, description, total, done)
        return
    from rich.progress import track as rich_track

    yield from rich_track(items, description, total=total, completed=done, console=console, transient=True)


def _logged(items: Iterable[ItemT], description: str, total: int | None, before: int) -> Iterator[ItemT]:
    """``items``, and how far it is, where that takes long."""
    last = time.monotonic()
    for done, item in enumerate(items, start=before):
        if time.monotonic() - last > LOG_SECONDS:
            say(f"{description}: {done:,}" + (f" of {total:,}" if total else ""))
            last = time.monotonic()
        yield item
