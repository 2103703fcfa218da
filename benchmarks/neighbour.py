"""A process that takes a core's time from what is measured there: ``python neighbour.py drift CORE``.

``drift`` takes a share that grows, so that the machine gets slower as time goes by; ``bursts`` works and rests at
random. It ends with the process that started it.

``drift`` needs the right to take precedence (root): at equal rank the scheduler lets it run seldom and long, which hits
a few calls hard and leaves their median as it was. Whoever measures should look whether it got slower.
"""

from __future__ import annotations

import contextlib
import os
import random
import sys
import time

GROWTH, MOST = 0.05, 0.6
"""Of the core: what ``drift`` takes more each second, and in all."""
PERIOD = 1e-3
"""Seconds in which ``drift`` takes its share: less than a call of the network takes, so that each call is slowed."""
BURST, REST = 0.020, 0.060
"""Seconds that ``bursts`` works and rests, on average."""


def main(kind: str, core: int) -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, [core])
    if kind == "drift":
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, 0, -20)
    clock, parent = time.monotonic, os.getppid()
    begin = clock()
    while os.getppid() == parent:
        share = min(MOST, GROWTH * (clock() - begin))
        busy, idle = share * PERIOD, (1 - share) * PERIOD
        if kind == "bursts":
            busy, idle = random.expovariate(1 / BURST), random.expovariate(1 / REST)
        until = clock() + busy
        while clock() < until:
            pass
        time.sleep(idle)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
