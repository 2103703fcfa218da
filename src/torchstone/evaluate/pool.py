"""The worker processes of a timing session, seen from the process that asks."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from torchstone.core import errors
from torchstone.core.errors import ArtifactError
from torchstone.core.machine import check_threads
from torchstone.core.values import Candidate

TIMEOUT = 300.0
"""Seconds after which a worker that has not answered is given up. The slowest answer known: a compilation of 20 s."""

IDLE = {
    "OMP_WAIT_POLICY": "PASSIVE",
    "GOMP_SPINCOUNT": "0",
    "KMP_BLOCKTIME": "0",
    "OMP_PROC_BIND": "FALSE",
    "KMP_AFFINITY": "disabled",
    "OPENBLAS_NUM_THREADS": "1",
}
"""Threads that wait must sleep: one that spins takes the core from the worker whose turn it is."""


class Worker:
    """A candidate in its own process; see worker.py for the protocol. ``close`` it, whatever happens."""

    def __init__(self, candidate: Candidate, pixels: Path, cores: list[int]) -> None:
        self.candidate = candidate
        self._common = {"directory": str(candidate.artifact.directory.resolve()), "pixels": str(pixels), "cores": cores}
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        threads = str(candidate.options.threads)
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "torchstone.evaluate.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env={**os.environ, **IDLE, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads},
            start_new_session=True,  # Ctrl-C goes to the one who asks, who then ends the workers
        )
        self._rest = b""

    def start_opening(self, batch: int, copies: int) -> None:
        """Ask it to load and compile for ``batch``, up to ``copies`` times; ``answer`` then waits for it."""
        candidate = self.candidate.model_dump(mode="json")
        self._send({"do": "open", "candidate": candidate, "batch": batch, "copies": copies, **self._common})

    def slot(self, batch: int, copy: int, ms: float, calls: int) -> dict[str, Any]:
        """One slot of the copy (counted round and round): {ms: median of a call, calls, busy: seconds}."""
        self._send({"do": "slot", "batch": batch, "copy": copy, "ms": ms, "calls": calls})
        return self.answer()

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        """The answer to any other request of the protocol."""
        self._send({"do": do, **request})
        return self.answer()

    def answer(self, timeout: float = TIMEOUT) -> dict[str, Any]:
        """The reply to the last request. Raises the error that the worker met, or an ArtifactError that names the
        candidate and quotes the worker's stderr when it died or does not answer."""
        line = self._line(time.monotonic() + timeout)
        if line is None:
            raise self._failure(f"has not answered for {timeout:.0f} s")
        if not line:
            raise self._failure(_cause_of_death(self.process.wait()))
        reply = json.loads(line)
        if "error" in reply:
            kind = getattr(errors, reply["error"]["kind"], ArtifactError)
            error = kind.__new__(kind)
            errors.TorchstoneError.__init__(error, reply["error"]["message"], hint=reply["error"]["hint"])
            raise error
        return reply

    def close(self) -> None:
        """End the process now, if it has not ended, and wait for it."""
        self.process.kill()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()
        self.process.wait()
        self._stderr.close()

    def _send(self, request: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # the answer will be its death
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()

    def _line(self, deadline: float) -> bytes | None:
        """One line of stdout without its end; b"" when the process has closed it, None when time is over."""
        assert self.process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._rest:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    return None
                more = os.read(self.process.stdout.fileno(), 65536)
                if not more:
                    return b""
                self._rest += more
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def _failure(self, what: str) -> ArtifactError:
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        said = "; its last words:\n" + "\n".join(lines[-8:]) if lines else ""
        return ArtifactError(
            f"the worker of '{self.candidate.name}' {what}{said}",
            hint="is there enough memory? the other candidates can be timed without it",
        )


@contextmanager
def workers(
    candidates: dict[str, Candidate], pixels: Path | Mapping[int, Path], copies: dict[int, int]
) -> Iterator[dict[str, Worker]]:
    """A worker for each key, compiled up to ``copies`` times for each batch size; all of them have ended when the
    block is left. ``pixels`` is the file of the images, or one for each side that a candidate takes.

    All start at once: what they import and compile fills the cores better than one after the other.
    """
    made: dict[str, Worker] = {}
    try:
        for key, candidate in candidates.items():
            file = pixels if isinstance(pixels, Path) else pixels[candidate.artifact.preprocess.crop]
            made[key] = Worker(candidate, file, cores_for(candidate.options.threads))
        for batch, most in copies.items():
            for worker in made.values():
                worker.start_opening(batch, most)
            for worker in made.values():
                worker.answer()
        yield made
    finally:
        for worker in made.values():
            worker.close()


def cores_for(threads: int) -> list[int]:
    """The last ``threads`` of the cores that this process may use; empty where threads cannot be pinned."""
    check_threads(threads)
    if not hasattr(os, "sched_getaffinity"):
        return []
    return sorted(os.sched_getaffinity(0))[-threads:]


def _cause_of_death(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
