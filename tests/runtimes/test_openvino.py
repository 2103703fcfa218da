"""What OpenVINO does to the process that it runs in."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import pytest

pytestmark = [
    pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed"),
    pytest.mark.skipif(sys.platform != "linux", reason="OpenVINO changes the stack for signals on Linux alone"),
]

BEGIN = """
import ctypes, gc, signal, subprocess
import numpy as np
from torchstone.runtimes.openvino import core, import_openvino, signal_stack_kept
openvino = import_openvino()
from openvino import opset13

def compiled(core):
    image = opset13.parameter([1, 4], np.float32)
    return core.compile_model(openvino.Model([opset13.relu(image)], [image]), "CPU")

def stack():
    found = (ctypes.c_void_p * 3)()
    assert ctypes.CDLL(None).sigaltstack(None, found) == 0
    return found[0]

"""
END = """
del first
gc.collect()
del second
gc.collect()
"""
SIGNAL = """
signal.signal(signal.SIGCHLD, lambda *_: None)
subprocess.run(["true"])
print("alive")
"""


def told(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "opened",
    [
        "first, second = compiled(core()), compiled(core())",
        "mine = compiled(core())\n"
        "with signal_stack_kept():\n"
        "    first, second = compiled(openvino.Core()), compiled(openvino.Core())",
    ],
    ids=["one core", "cores of others"],
)
def test_a_signal_may_come_after_two_models_have_gone(opened: str) -> None:
    assert told(BEGIN + opened + END + SIGNAL) == "alive\n"


def test_two_cores_that_end_as_they_began_leave_a_freed_stack() -> None:
    """Why there is one core a process: once this fails, OpenVINO has mended it, and ``core`` may go."""
    opened = "first = compiled(openvino.Core())\nfreed = stack()\nsecond = compiled(openvino.Core())"
    assert told(BEGIN + opened + END + "print(freed is not None and stack() == freed)") == "True\n"
