"""One candidate in a process of its own, which computes when it is told to: ``python -m torchstone.evaluate.worker``.

Requests and replies are lines of JSON on stdin and stdout. The process ends when stdin does, so that it never outlives
the one that asked, however that one ended. It imports what its candidate's runtime needs, and nothing else.

    {"do": "open", "candidate": {…}, "directory": "…", "pixels": "x.npy", "batch": 1, "cores": [1]}  → {"seconds": s}
    {"do": "slot", "batch": 1, "ms": 50, "calls": 3}  → {"ms": median of a call, "calls": n, "busy": s computing}

A request that the user can mend is answered by ``{"error": {"kind", "message", "hint"}}``.
"""

from __future__ import annotations

import gc
import json
import os
import queue
import statistics
import sys
import threading
import time
from pathlib import Path
from typing import IO, Any

import numpy as np

from torchstone.core.contracts import Runner
from torchstone.core.errors import TorchstoneError
from torchstone.core.values import Candidate
from torchstone.runtimes import open_candidate

MOST_BATCHES = 16


class Bench:
    """A candidate with real images, compiled for one or more batch sizes."""

    def __init__(self) -> None:
        self._runners: dict[int, Runner] = {}
        self._batches: dict[int, list[np.ndarray]] = {}

    def open(self, request: dict[str, Any]) -> dict[str, Any]:
        """Load and compile for one batch size, then stay on the given cores."""
        begin = time.perf_counter()
        candidate = Candidate.model_validate(request["candidate"])
        batch: int = request["batch"]
        options = candidate.options.model_copy(update={"batch": batch})
        artifact = candidate.artifact.model_copy(update={"directory": Path(request["directory"])})
        self._runners[batch] = open_candidate(candidate.model_copy(update={"artifact": artifact, "options": options}))
        self._batches[batch] = _batches(np.load(request["pixels"], allow_pickle=False), batch)
        _pin(request["cores"])
        gc.collect()
        gc.freeze()
        gc.disable()
        return {"seconds": time.perf_counter() - begin}

    def slot(self, request: dict[str, Any]) -> dict[str, Any]:
        """One untimed call, then calls until both the time and the number asked for are reached."""
        runner, batches = self._runners[request["batch"]], self._batches[request["batch"]]
        clock = time.perf_counter
        begin = clock()
        runner(batches[-1])
        start = clock()
        spent: list[float] = []
        while clock() - start < request["ms"] / 1e3 or len(spent) < request["calls"]:
            batch = batches[len(spent) % len(batches)]
            before = clock()
            runner(batch)
            spent.append(clock() - before)
        return {"ms": statistics.median(spent) * 1e3, "calls": len(spent), "busy": clock() - begin}


def _batches(pixels: np.ndarray, batch: int) -> list[np.ndarray]:
    """Up to 16 batches of real images, taken in turn and repeated where there are too few."""
    count = min(MOST_BATCHES, max(1, len(pixels) // batch))
    rows = np.arange(count * batch) % len(pixels)
    return [np.ascontiguousarray(pixels[part]) for part in np.split(rows, count)]


def _pin(cores: list[int]) -> None:
    """All threads of this process onto ``cores``; those made later inherit it. Nothing where the system cannot."""
    if not cores or not hasattr(os, "sched_setaffinity"):
        return
    for task in Path("/proc/self/task").iterdir():
        try:
            os.sched_setaffinity(int(task.name), cores)
        except ProcessLookupError:  # a thread that has just ended
            continue


def _requests(stream: IO[bytes]) -> queue.Queue[bytes]:
    """The lines of ``stream``, read by a thread that ends the process at their end, even amid a computation."""
    lines: queue.Queue[bytes] = queue.Queue()

    def read() -> None:
        for line in stream:
            lines.put(line)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    return lines


def main() -> None:
    """Serve requests until stdin ends."""
    # Libraries print on stdout when it pleases them: the protocol gets a descriptor of its own.
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    lines = _requests(sys.stdin.buffer)
    bench = Bench()
    actions = {"open": bench.open, "slot": bench.slot}
    while True:
        request = json.loads(lines.get())
        try:
            reply = actions[request["do"]](request)
        except TorchstoneError as error:
            reply = {"error": {"kind": type(error).__name__, "message": error.message, "hint": error.hint}}
        replies.write(json.dumps(reply) + "\n")


if __name__ == "__main__":
    main()
