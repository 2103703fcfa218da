"""Does something else take the processor while we measure?"""

from __future__ import annotations

import statistics
from typing import ClassVar

from torchstone.core.values import Finding
from torchstone.doctor import Machine

STOLEN = 0.02
"""Share of the processor's time that the host may give to other virtual machines."""
BUSY = 0.25
"""Share of the usable cores that other processes may keep busy."""
SPREAD = 1.25
"""By which the slowest tenth of equal pieces of work may exceed the quickest."""


class Neighbour:
    """Equal pieces of work, timed; beside them what the kernel says of stolen time and of other processes."""

    requires: ClassVar[tuple[str, ...]] = ()

    def run(self, context: Machine) -> list[Finding]:
        before = _ticks(context)
        took = sorted(context.spin())
        after = _ticks(context)
        spread = took[int(0.9 * len(took))] / took[0]
        evidence: dict[str, float] = {"spread": round(spread, 3), "median_ms": round(1e3 * statistics.median(took), 3)}
        said = [
            f"of {len(took)} equal pieces of work the slowest tenth took {spread:.2f} times as long as the quickest"
        ]
        noisy = spread > SPREAD
        if before and after and (passed := after[0] - before[0]):
            stolen, busy = ((after[place] - before[place]) / passed for place in (1, 2))
            # this check itself keeps one core busy
            others = max(0.0, busy * context.host_cores - 1) / context.usable_cores
            evidence |= {"stolen": round(stolen, 3), "others": round(others, 3)}
            said.append(f"other machines were given {stolen:.0%} of the processor, other processes {others:.0%}")
            noisy = noisy or stolen > STOLEN or others > BUSY
        if not noisy:
            return [Finding(check="neighbour", severity="info", message="; ".join(said), evidence=evidence)]
        return [
            Finding(
                check="neighbour",
                severity="warning",
                message=f"{'; '.join(said)}: timing sessions will be longer, and may end void",
                hint="end what else runs (top), or measure at another time; a machine with cores of its own is quiet",
                evidence=evidence,
            )
        ]


def _ticks(context: Machine) -> tuple[int, int, int] | None:
    """All ticks of all cores so far, the stolen, and the busy ones; None where the system does not say."""
    try:
        first = (context.proc / "stat").read_text().splitlines()[0]
    except (OSError, IndexError):
        return None
    name, *rest = first.split()
    if name != "cpu" or len(rest) < 8:
        return None
    user, nice, system, idle, wait, hard, soft, steal = map(int, rest[:8])
    return user + nice + system + idle + wait + hard + soft + steal, steal, user + nice + system + hard + soft
