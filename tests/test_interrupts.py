"""Ctrl-C ends a command within about a second, whatever a library is busy with."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading

import pytest

from torchstone.core import interrupts

PROGRAM = """
import ctypes, signal, sys, threading
from torchstone.core import interrupts
interrupts.GRACE = 0.2
with interrupts.prompt():
    if sys.argv[1] == "deaf":  # the signal goes to another thread, and this one sleeps on in C
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    threading.Timer(0.5, print, ("ready",), {"flush": True}).start()
    ctypes.CDLL(None).sleep(60)
"""

pytestmark = pytest.mark.usefixtures("ctrl_c")


@pytest.mark.parametrize(
    ("kind", "code", "said"), [("deaf", 130, interrupts.INTERRUPTED), ("awake", -2, "KeyboardInt")]
)
def test_a_computation_that_hears_nothing_ends_all_the_same(kind: str, code: int, said: str) -> None:
    command = [sys.executable, "-c", PROGRAM, kind]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=30)
    assert process.returncode == code
    assert said in told
    assert kind == "awake" or told.count("\n") == 1, "one line"


def test_a_thread_that_gets_no_signals_works_as_ever() -> None:
    found = []

    def work() -> None:
        with interrupts.prompt(), interrupts.postponed(lambda: None) as stopping:
            found.append(stopping())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [False]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
