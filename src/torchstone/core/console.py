"""What a person sees while work goes on: lines and progress bars on stderr. stdout belongs to the answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

ItemT = TypeVar("ItemT")
_quiet = False


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


def track(items: Iterable[ItemT], description: str, total: int | None = None) -> Iterator[ItemT]:
    """``items``, with a progress bar where a person watches and silence where nobody does."""
    console = stderr()
    if _quiet or not console.is_terminal:
        yield from items
        return
    from rich.progress import track as rich_track

    yield from rich_track(items, description, total=total, console=console, transient=True)
