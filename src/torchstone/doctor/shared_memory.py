"""Is there room for the batches that worker processes hand over?"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from torchstone.core.values import Finding, Severity
from torchstone.doctor import Machine

PLACE = Path("/dev/shm")
MIB = 2**20
NEEDED = 1024
"""MiB. Four workers with three batches each on their way, of 128 images of 256 × 256 pixels in uint8, are 288; a batch
in float32 takes four times as much. Containers have 64 by default."""


class SharedMemory:
    """The size of ``/dev/shm``, through which batches come back: where it is full, a worker ends with 'bus error'."""

    requires: ClassVar[tuple[str, ...]] = ()

    def run(self, context: Machine) -> list[Finding]:
        try:
            room = context.free_bytes(PLACE) / MIB
        except OSError:
            return [_finding("info", "there is no /dev/shm here: batches come back in another way (0 MiB seen)", None)]
        message = f"{room:,.0f} MiB of shared memory for the batches of worker processes"
        if room >= NEEDED:
            return [_finding("info", message, room)]
        return [
            _finding(
                "warning",
                f"{message}: with several workers {NEEDED:,} are wanted, and where they are missing a worker ends with "
                "'bus error'",
                room,
                "docker run --shm-size 2g (or --ipc host); in Kubernetes an emptyDir with 'medium: Memory' there; or "
                "train with --workers 0",
            )
        ]


def _finding(severity: Severity, message: str, room: float | None, hint: str | None = None) -> Finding:
    return Finding(
        check="shared_memory", severity=severity, message=message, hint=hint, evidence={"mib": room and round(room)}
    )
