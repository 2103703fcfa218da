"""A thread's work: to look at something again and again, and to end only when it is told to."""

from __future__ import annotations

import threading
from collections.abc import Callable

from torchstone.core import console
from torchstone.core.errors import TorchstoneError


def keep_looking(
    look: Callable[[], object],
    stop: threading.Event,
    *,
    pause: float,
    what: str,
    failed: Callable[[], None],
) -> None:
    """Call ``look`` until ``stop`` is set: at once again where it returns True, else after ``pause`` seconds.

    What it raises is counted by ``failed``, said (with ``what`` is not done meanwhile; the same reason once), and tried
    again: a thread that watches must not end in silence.
    """
    said: str | None = None
    while not stop.is_set():
        busy = False
        try:
            busy = look() is True
        except Exception as error:
            failed()
            reason = str(error) if isinstance(error, TorchstoneError) else repr(error)
            if reason != said:
                console.say(f"{what}: {reason}; it is tried again")
            said = reason
        else:
            if said is not None:
                console.say(f"{what}: that is over")
            said = None
        if not busy:
            stop.wait(pause)
