"""Would a training of this model with this batch fit into the memory at hand, and if not, which batch would?"""

from __future__ import annotations

import subprocess
from typing import NamedTuple

from torchstone.core import machine
from torchstone.core.values import Finding
from torchstone.doctor import Machine

GIB = 2**30
RESERVED = 0.75 * GIB
"""Bytes that torch takes for itself beside the tensors: its libraries, and on a GPU CUDA's context."""
SLACK = 1.15
"""By which memory is fragmented, and layers want room to work in."""
FREE = ("nvidia-smi", "--query-gpu=memory.free", "--format=csv,noheader,nounits")


class Room(NamedTuple):
    where: str
    bytes: float


def fits(model: str, batch: int, crop: int | None, context: Machine, classes: int = 1000) -> Finding:
    """What a training takes, by what its layers keep, against what is free: on the first GPU that torch uses, else in
    this machine's memory. Raises a ConfigError for a model that does not exist."""
    from torchstone.models import zoo
    from torchstone.models.cost import training_bytes

    architecture = zoo.resolve(model)
    side = crop or zoo.native_input(architecture).crop
    fixed, one = training_bytes(architecture, classes=classes, crop=side, batch=2)
    each = one / 2
    room = _room(context)
    needed = RESERVED + SLACK * (fixed + batch * each)
    most = int((room.bytes - RESERVED - SLACK * fixed) / (SLACK * each))
    evidence = {
        "needed_gib": round(needed / GIB, 2), "free_gib": round(room.bytes / GIB, 2), "largest_batch": max(0, most),
    }  # fmt: skip
    said = (
        f"a training of {model} with {batch} images of {side} pixels takes about {needed / GIB:.1f} GiB "
        f"({fixed / GIB:.2f} for weights, gradients and AdamW, {1e3 * each / GIB:.0f} MiB an image); "
        f"{room.bytes / GIB:.1f} are free {room.where}"
    )
    if needed <= room.bytes:
        message = f"{said}: it fits, as {most:,} images would"
        return Finding(check="fits", severity="info", message=message, evidence=evidence)
    if most < 2:
        hint = "a smaller model, fewer pixels, or more memory: not even 2 images fit"
        return Finding(check="fits", severity="error", message=f"{said}: it does not fit", hint=hint, evidence=evidence)
    smaller = 1 << (most.bit_length() - 1)
    return Finding(
        check="fits",
        severity="error",
        message=f"{said}: it does not fit, {most:,} images would",
        hint=f"--batch {batch} --set accumulate={-(-batch // smaller)} takes {smaller} at once, with the same steps; "
        "--set precision=bf16 takes less",
        evidence=evidence,
    )


def _room(context: Machine) -> Room:
    build = context.torch_build()
    if build is not None and build.devices:
        try:
            return Room(f"on {build.devices[0][0]}", float(context.command(*FREE).split()[0]) * 2**20)
        except (OSError, subprocess.SubprocessError, ValueError, IndexError):
            pass
    found = machine.memory(context.proc, context.cgroup)
    return Room("in memory", float(found[1]) if found else 0.0)
