"""What OpenVINO does to the process that it runs in."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import pytest

pytestmark = pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")

PROCESS = """
import gc, signal, subprocess
import numpy as np
from torchstone.runtimes.openvino import core, import_openvino, signal_stack_kept
openvino = import_openvino()
from openvino import opset13

def compiled(core):
    image = opset13.parameter([1, 4], np.float32)
    return core.compile_model(openvino.Model([opset13.relu(image)], [image]), "CPU")

signal.signal(signal.SIGCHLD, lambda *_: None)
{open}
del first
gc.collect()
del second
gc.collect()
subprocess.run(["true"])
print("alive")
"""


@pytest.mark.parametrize(
    ("opened", "lives"),
    [
        ("first, second = compiled(openvino.Core()), compiled(openvino.Core())", False),
        ("first, second = compiled(core()), compiled(core())", True),
        (
            "mine = compiled(core())\n"
            "with signal_stack_kept():\n"
            "    first, second = compiled(openvino.Core()), compiled(openvino.Core())",
            True,
        ),
    ],
    ids=["as it is", "one core", "cores of others"],
)
@pytest.mark.skipif(sys.platform != "linux", reason="OpenVINO changes the stack for signals on Linux alone")
def test_a_signal_may_come_after_two_models_have_gone(opened: str, lives: bool) -> None:
    """Their cores would end in the order of their beginning. The first case is why there is one core a process: once
    it lives as well, OpenVINO has mended it, and ``core`` may go."""
    done = subprocess.run(
        [sys.executable, "-c", PROCESS.format(open=opened)], capture_output=True, text=True, check=False
    )
    assert ("alive" in done.stdout) is lives, done.stderr
