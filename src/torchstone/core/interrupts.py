"""Ctrl-C, heard at once.

Python calls its handler between two instructions of the main thread. While that waits for a library (a compilation, a
batch on a slow machine), it hears nothing; the signal wakes a thread of ours all the same.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

INTERRUPTED = "interrupted; what was finished is kept, and the same command goes on from there"
CODE = 130
GRACE = 1.0
"""Seconds that a computation may take to end by itself."""
SHOW_CURSOR = "\x1b[?25h"
"""What a progress bar that was cut off owes to its terminal."""


@contextlib.contextmanager
def prompt() -> Iterator[None]:
    """A block that ends this process ``GRACE`` seconds after Ctrl-C, whatever it is doing: for work that leaves nothing
    half-written. Where it can, it ends by a KeyboardInterrupt, as ever."""
    left = threading.Event()

    def end() -> None:
        if not left.wait(GRACE):
            print(SHOW_CURSOR * sys.stderr.isatty() + INTERRUPTED, file=sys.stderr, flush=True)  # noqa: T201
            os._exit(CODE)

    with heard(end):
        try:
            yield
        finally:
            left.set()


@contextlib.contextmanager
def postponed(tell: Callable[[], None]) -> Iterator[Callable[[], bool]]:
    """A block that the first Ctrl-C does not break off: it calls ``tell`` at once, from another thread, and gives a
    function that says whether to stop. The second one is a KeyboardInterrupt."""
    asked = threading.Event()

    def note(number: int, frame: Any) -> None:
        if asked.is_set():
            signal.default_int_handler(number, frame)
        asked.set()

    if not _ours():
        yield asked.is_set
        return
    before = signal.signal(signal.SIGINT, note)
    try:
        with heard(tell):
            yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def heard(tell: Callable[[], None]) -> Iterator[None]:
    """Call ``tell`` in a thread of its own when the first Ctrl-C comes, at once. Outside of the main thread, and where
    others have taken the signal, the block is an ordinary one."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)  # as set_wakeup_fd asks for

    def listen() -> None:
        while number := os.read(reading, 1):
            if number[0] == signal.SIGINT:
                tell()
                return

    thread = threading.Thread(target=listen, name="interrupts", daemon=True)
    with contextlib.suppress(RuntimeError):  # no memory for one: then Ctrl-C is heard when Python hears it
        thread.start()
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writing)
        if thread.ident is not None:
            thread.join(GRACE)
        if not thread.is_alive():
            os.close(reading)


def _ours() -> bool:
    """Whether Ctrl-C is for this thread, and nobody has said otherwise."""
    main = threading.current_thread() is threading.main_thread()
    return main and signal.getsignal(signal.SIGINT) is signal.default_int_handler
