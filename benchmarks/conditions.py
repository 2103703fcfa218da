"""What the machine was like while something was measured."""

from __future__ import annotations

import os

from torchstone.core import machine


def conditions() -> str:
    """One line: processor, cores, load and the versions that matter."""
    versions = machine.versions()
    named = ", ".join(f"{name} {versions[name]}" for name in ("torch", "onnxruntime", "openvino") if name in versions)
    return f"{machine.cpu_name()}, {machine.usable_cores()} cores, load {os.getloadavg()[0]:.1f}; {named}"
