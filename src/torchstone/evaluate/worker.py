"""One candidate in a process of its own, which computes when it is told to: ``python -m torchstone.evaluate.worker``.

Requests and replies are lines of JSON on stdin and stdout. The process ends when stdin does, so that it never outlives
the one that asked, however that one ended. It imports what its candidate's runtime needs, and nothing else.

    {"do": "open", "candidate": {…}, "directory": "…", "pixels": "x.npy", "batch": 1, "cores": [1], "copies": 16}
        → {"seconds": s, "copies": n}
    {"do": "slot", "batch": 1, "copy": 3, "ms": 50, "calls": 3}
        → {"ms": median of a call, "calls": n, "busy": s computing}
    {"do": "calls", "batch": 1, "ms": 250, "calls": 3}
        → {"ms": [of each call]}
    {"do": "requests", "files": "…", "ms": 250, "calls": 3}
        → {"prepare": [ms of each], "infer": [ms of each]}: an encoded image from its bytes to the logits
    {"do": "memory"}
        → {"peak_mb": 10⁶ bytes that the process has held at most}

A request that the user can mend is answered by ``{"error": {"kind", "message", "hint"}}``.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import queue
import resource
import statistics
import sys
import threading
import time
from pathlib import Path
from typing import IO, Any

import numpy as np

from torchstone.core.contracts import Runner
from torchstone.core.errors import TorchstoneError
from torchstone.core.registry import runtimes
from torchstone.core.values import Candidate, Preprocess
from torchstone.data.preprocess import prepare
from torchstone.runtimes import open_candidate

MOST_BATCHES = 16
COPIES_SECONDS = 1.0
COPIES_MB = 64.0


class Bench:
    """A candidate with real images, compiled for one or more batch sizes."""

    def __init__(self) -> None:
        self._runners: dict[int, list[Runner]] = {}
        self._batches: dict[int, list[np.ndarray]] = {}
        self._encoded: list[bytes] | None = None
        self._preprocess: Preprocess | None = None

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
        self._preprocess = artifact.preprocess
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

    def calls(self, request: dict[str, Any]) -> dict[str, Any]:
        """Single calls, one untimed before them, until both the time and the number asked for are reached."""
        runner, batches = self._runners[request["batch"]][0], self._batches[request["batch"]]
        runner(batches[-1])
        start, spent = time.perf_counter(), list[float]()
        while _goes_on(request, start, len(spent)):
            batch = batches[len(spent) % len(batches)]
            before = time.perf_counter()
            runner(batch)
            spent.append(1e3 * (time.perf_counter() - before))
        return {"ms": spent}

    def requests(self, request: dict[str, Any]) -> dict[str, Any]:
        """Images from their bytes in memory to the logits, one at a time: what a server does with each."""
        if self._encoded is None:
            self._encoded = [path.read_bytes() for path in sorted(Path(request["files"]).iterdir())]
        assert self._preprocess is not None
        runner, encoded = self._runners[1][0], self._encoded
        runner(prepare(encoded[-1], self._preprocess)[None])
        start, made, answered = time.perf_counter(), list[float](), list[float]()
        while _goes_on(request, start, len(made)):
            content = encoded[len(made) % len(encoded)]
            before = time.perf_counter()
            pixels = prepare(content, self._preprocess)[None]
            between = time.perf_counter()
            runner(pixels)
            made.append(1e3 * (between - before))
            answered.append(1e3 * (time.perf_counter() - between))
        return {"prepare": made, "infer": answered}

    def memory(self, request: dict[str, Any]) -> dict[str, Any]:
        """The largest resident set so far, libraries and images included.

        Linux's ``ru_maxrss`` begins with that of the process that started this one; VmHWM begins at nothing.
        """
        status = Path("/proc/self/status")
        if status.exists():
            line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
            return {"peak_mb": int(line.split()[1]) * 1024 / 1e6}
        unit = 1 if sys.platform == "darwin" else 1024
        return {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6}


def _goes_on(request: dict[str, Any], start: float, done: int) -> bool:
    return time.perf_counter() - start < request["ms"] / 1e3 or done < request["calls"]


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
    actions = {one.__name__: one for one in (bench.open, bench.slot, bench.calls, bench.requests, bench.memory)}
    while True:
        request = json.loads(lines.get())
        try:
            reply = actions[request["do"]](request)
        except TorchstoneError as error:
            reply = {"error": {"kind": type(error).__name__, "message": error.message, "hint": error.hint}}
        replies.write(json.dumps(reply) + "\n")


if __name__ == "__main__":
    main()
