"""Is there memory for training and for four open models?"""

from __future__ import annotations

from typing import ClassVar

from torchstone.core import machine
from torchstone.core.values import Finding
from torchstone.doctor import Machine

GIB = 2**30
NEEDED, COMFORTABLE = 1.0, 3.0
"""GiB. torch, ONNX Runtime and OpenVINO imported together take 0.6; each timing worker opens one of them again."""


class Memory:
    """Memory available now: the host's and, in a container, the cgroup's."""

    requires: ClassVar[tuple[str, ...]] = ()

    def run(self, context: Machine) -> list[Finding]:
        found = machine.memory(context.proc, context.cgroup)
        if found is None:
            return [Finding(check="memory", severity="info", message="this system does not say how much memory it has")]
        total, available, limited = found
        whose = "the cgroup's limit" if limited else "the host's"
        message = f"{available / GIB:.1f} GiB available of {total / GIB:.1f} GiB ({whose})"
        evidence = {"available_gib": round(available / GIB, 2), "total_gib": round(total / GIB, 2), "cgroup": limited}
        if available >= COMFORTABLE * GIB:
            return [Finding(check="memory", severity="info", message=message, evidence=evidence)]
        return [
            Finding(
                check="memory",
                severity="error" if available < NEEDED * GIB else "warning",
                message=f"{message}: a run wants {COMFORTABLE:.0f} GiB, and below {NEEDED:.0f} GiB it may be killed",
                hint="see what holds it: ps aux --sort=-rss | head; in a container raise the limit (docker run -m 4g)",
                evidence=evidence,
            )
        ]
