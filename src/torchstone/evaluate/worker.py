"""One candidate in a process of its own, which computes when it is told to: ``python -m torchstone.evaluate.worker``.

Requests and replies are lines of JSON on stdin and stdout. The process ends when stdin does, so that it never outlives
the one that asked, however that one ended. It imports what its candidate's runtime needs, and nothing else.

    {"do": "open", "candidate": {…}, "directory": "…", "pixels": "x.npy", "batch": 1, "cores": [1], "copies": 16}
        → {"seconds": s, "copies": n}
    {"do": "slot", "batch": 1, "copy": 3, "ms": 50, "calls": 3}
        → {"ms": median of a call, "calls": n, "busy": s computing}

A request that the user can mend is answered by ``{"error": {"kind", "message", "hint"}}``.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import queue
import statistics
import threading
import time
from pathlib import Path
from typing import IO, Any

import numpy as np

from torchstone.core.contracts import Runner
from torchstone.core.errors import TorchstoneError
from torchstone.core.registry import runtimes
from torchstone.core.values import Candidate
from torchstone.runtimes import open_candidate

MOST_BATCHES = 16
COPIES_SECONDS = 1.0
COPIES_MB = 64.0


class Bench:
    """A candidate with real images, compiled for one or more batch sizes."""

    def __init__(self) -> None:
        self._runners: dict[int, list[Runner]] = {}
        self._batches: dict[int, list[np.ndarray]] = {}

    def open(self, request: dict[str, Any]) -> dict[str, Any]:
        """Load and compile for one batch size, on the given cores and, where that is cheap, several times over.

        Where its memory happens to lie makes one copy of a small model 1 % slower or faster than the next for as long
        as it lives (measured: 28 µs a call, ±0.8 %). A single copy a side would turn that accident into a finding.
        """
        begin = time.perf_counter()
        candidate = Candidate.model_validate(request["candidate"])
        batch: int = request["batch"]
        options = candidate.options.model_copy(update={"batch": batch})
        artifact = candidate.artifact.model_copy(update={"directory": Path(request["directory"])})
        candidate = candidate.model_copy(update={"artifact": artifact, "options": options})
        for package in runtimes.ready(candidate.runtime).requires:
            importlib.import_module(package)  # on any core; what follows, on those that will be timed
        if request["cores"] and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, request["cores"])
        begin_copies = time.perf_counter()
        copies = [open_candidate(candidate)]
        most = min(request["copies"], int(COPIES_MB / artifact.size_mb))
        while len(copies) < most and time.perf_counter() - begin_copies < COPIES_SECONDS:
            copies.append(open_candidate(candidate))
        self._runners[batch] = copies
        self._batches[batch] = _batches(np.load(request["pixels"], allow_pickle=False), batch)
        gc.collect()
        gc.freeze()
        gc.disable()
        return {"seconds": time.perf_counter() - begin, "copies": len(copies)}

    def slot(self, request: dict[str, Any]) -> dict[str, Any]:
        """One untimed call, then calls until both the time and the number asked for are reached."""
        copies, batches = self._runners[request["batch"]], self._batches[request["batch"]]
        runner = copies[request["copy"] % len(copies)]
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
    # Unbuffered: the lock of a buffered stdin, held by the waiting reader, turns an ordinary exit into an abort.
    lines = _requests(open(0, "rb", buffering=0, closefd=False))  # noqa: SIM115
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
