"""Is there room where runs go, may files be written there, and how fast?"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import ClassVar

from torchstone.core.values import Finding
from torchstone.doctor import Machine

GB = 10**9
NEEDED, COMFORTABLE = 0.5, 5.0
"""GB. The demo leaves 0.01; a decoded photograph takes 0.2 MB (256 × 256 × 3), a checkpoint with AdamW's state three
times the model, and each candidate is a model, too."""
BLOCK = bytes(2**20)
SLOW = 50.0
"""MB a second below which checkpoints and the cache of decoded images hold the training up: a disk that turns does
100, a network's share often less than 20."""


class Disk:
    """Free space and a real write, for the folder of the runs and for temporary files."""

    requires: ClassVar[tuple[str, ...]] = ()

    def run(self, context: Machine) -> list[Finding]:
        return [
            self._place(context, "runs", context.runs, "torchstone run DATA --runs /another/disk/runs"),
            self._place(context, "temporary files", context.temporary, "export TMPDIR=/another/disk"),
        ]

    def _place(self, context: Machine, purpose: str, wanted: Path, elsewhere: str) -> Finding:
        place = _existing(wanted)
        try:
            _write(place)
            free = context.free_bytes(place) / GB
            speed = context.write_speed(place) / 1e6 if free >= COMFORTABLE else None
        except OSError as error:
            return Finding(
                check="disk",
                severity="error",
                message=f"a file of {len(BLOCK)} bytes cannot be written to '{place}', where {purpose} go: "
                f"{error.strerror or error}",
                hint=elsewhere,
                evidence={"place": str(place), "errno": error.errno},
            )
        evidence = {"place": str(place), "free_gb": round(free, 2)}
        if speed is not None:
            evidence["mb_a_second"] = round(speed)
            message = (
                f"{free:.1f} GB free for {purpose} in '{place}', and files are written at {speed:,.0f} MB a second"
            )
            if speed >= SLOW:
                return Finding(check="disk", severity="info", message=message, evidence=evidence)
            return Finding(
                check="disk",
                severity="warning",
                message=f"{message}: that holds up what writes checkpoints and decoded images",
                hint=f"a disk of this machine's own: {elsewhere}",
                evidence=evidence,
            )
        return Finding(
            check="disk",
            severity="error" if free < NEEDED else "warning",
            message=f"{free:.1f} GB free for {purpose} in '{place}': a run wants {COMFORTABLE:.0f} GB, and below "
            f"{NEEDED} GB it will stop half-way (what is finished is kept)",
            hint=f"free some space, or: {elsewhere}",
            evidence=evidence,
        )


def _existing(place: Path) -> Path:
    """``place`` or the nearest parent that exists: where its folder would be made."""
    place = place.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    return place


def _write(place: Path) -> None:
    """Write one block, force it to the disk, read it back. Raises an OSError."""
    with tempfile.NamedTemporaryFile(dir=place, prefix=".torchstone-") as file:
        file.write(BLOCK)
        file.flush()
        os.fsync(file.fileno())
        file.seek(0)
        if file.read() != BLOCK:
            raise OSError(None, "what was read back differs from what was written")
