"""What a training uses of its machine: cores, memory, GPU, temperatures.

A thread looks every second, and less often when looking costs more than a hundredth of the time or when the training
is long: the table never has more than a thousand rows. Watching it draws from no generator and changes no number.
"""

from __future__ import annotations

import contextlib
import math
import subprocess
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from torchstone.core import console, machine, tables
from torchstone.train.observe import Observer

if TYPE_CHECKING:
    from torchstone.train.job import Job

COLUMNS = (
    "seconds", "cores", "memory_gb", "cpu_celsius", "gpu_percent", "gpu_memory_gb", "gpu_celsius",
)  # fmt: skip
"""Seconds since the training began, without the time that it was not running; busy cores (1.5: one and a half) and
memory (10⁹ bytes) of the training and its worker processes; the rest as its name says. Missing where it is unknown."""
INTERVAL = 1.0
"""Seconds from one look to the next, at first."""
ROWS = 1000
"""When there are so many, pairs become one."""
COST = 0.01
"""Share of the time that looking may take."""
SENSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "cpu-thermal")
"""Of processors, as Linux calls them."""
QUERY = "utilization.gpu,memory.used,temperature.gpu"


class Resources(Observer):
    """Keeps ``path``, a Parquet file, up to date with what the training uses; its header has the ``cores`` and the
    ``memory_gb`` that there are."""

    name = "resources"

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows = np.zeros((0, len(COLUMNS)), np.float32)
        self._interval = INTERVAL
        self._before = 0.0
        """Seconds of earlier attempts."""
        self._started = time.monotonic()
        self._lock = threading.Lock()
        self._look: Callable[[], list[float]] | None = None
        self._close: Callable[[], object] = bool
        self._over = threading.Event()
        self._warned = False

    def begin(self, job: Job) -> None:
        self._over = threading.Event()
        self._started = time.monotonic()
        with self._guarded():
            gpu = None
            if job.device.type == "cuda":
                gpu = _Gpu(job.device)
                self._close = weakref.finalize(self, gpu.close)
            self._look = _Looker(gpu)
            weakref.finalize(self, self._over.set)
            threading.Thread(target=_watch, args=(weakref.ref(self), self._over), name="resources", daemon=True).start()

    def end(self, best_epoch: int, answers: NDArray[np.float32]) -> None:
        self._finish()

    def broken_off(self, error: BaseException) -> None:
        if self._look is not None:
            self._finish()

    def _finish(self) -> None:
        self._over.set()
        with self._guarded():
            self.look()
        with self._guarded():
            self._close()
        self._write()

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        """Inside, what fails is warned of once, and ends no training."""
        try:
            yield
        except Exception as error:
            if not self._warned:
                console.say(
                    f"warning: what the training uses is not kept any more ({type(error).__name__}: {error}); the "
                    "training goes on"
                )
            self._warned = True

    def state(self) -> dict[str, Any]:
        with self._lock:
            rows, interval = self._rows.copy(), self._interval
        seconds = self._before + time.monotonic() - self._started
        self._write()
        return {"rows": torch.from_numpy(rows), "interval": interval, "seconds": seconds}

    def restore(self, state: dict[str, Any]) -> None:
        with self._lock:
            now = self._rows
            now[:, 0] += state["seconds"]
            self._rows = np.concatenate([state["rows"].numpy().reshape(-1, len(COLUMNS)), now])
            self._interval, self._before = float(state["interval"]), float(state["seconds"])

    def look(self) -> float:
        """Take one look; returns the seconds until the next one."""
        if self._look is None:
            return self._interval
        with self._lock:
            started = time.monotonic()
            found = self._look()
            cost = time.monotonic() - started
            row = np.array([[self._before + started - self._started, *found]], np.float32)
            self._rows = np.concatenate([self._rows, row])
            if len(self._rows) >= ROWS:
                self._rows, self._interval = _halved(self._rows), 2 * self._interval
            return max(self._interval, cost / COST)

    def _write(self) -> None:
        with self._lock:
            rows = self._rows.copy()
        columns: dict[str, list[float | None]] = {
            name: [None if math.isnan(value) else float(value) for value in rows[:, at]]
            for at, name in enumerate(COLUMNS)
        }
        with self._guarded():
            header = {"cores": machine.usable_cores(), "memory_gb": _memory_limit() / 1e9}
            tables.write(self._path, tables.frame(columns, dict.fromkeys(COLUMNS, float)), header)


def _watch(resources: weakref.ref[Resources], over: threading.Event) -> None:
    """Look until it is over, or until nobody has the observer any more."""
    pause = INTERVAL
    while not over.wait(pause):
        watched = resources()
        if watched is None:
            return
        try:
            pause = watched.look()
        except Exception as error:
            console.say(f"warning: what the training uses is not watched any more ({type(error).__name__}: {error})")
            return
        del watched


def _halved(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each pair's mean; what is unknown in one of the two is the other's."""
    pairs = rows[: len(rows) // 2 * 2].reshape(-1, 2, rows.shape[1])
    known = np.isfinite(pairs)
    sums = np.where(known, pairs, 0).sum(1)
    counts = known.sum(1)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan).astype(np.float32)


class _Looker:
    """One look at this process, its children, the processor's sensors and the GPU: all columns but ``seconds``."""

    def __init__(self, gpu: _Gpu | None) -> None:
        import psutil

        self._psutil: Any = psutil
        self._me = psutil.Process()
        self._gpu = gpu
        self._at = time.monotonic()
        self._used = self._uses()[0]

    def __call__(self) -> list[float]:
        at = time.monotonic()
        used, memory = self._uses()
        busy = sum(seconds - self._used.get(process, 0.0) for process, seconds in used.items())
        cores = busy / max(at - self._at, 1e-3)
        self._at, self._used = at, used
        gpu = self._gpu.latest if self._gpu else (math.nan, math.nan, math.nan)
        return [max(0.0, cores), memory / 1e9, self._temperature(), *gpu]

    def _uses(self) -> tuple[dict[tuple[int, float], float], float]:
        """Seconds of CPU by process, and bytes: worker processes share what they had when they were forked."""
        used, memory = {}, 0.0
        for process in [self._me, *self._me.children(recursive=True)]:
            with contextlib.suppress(self._psutil.Error), process.oneshot():
                times, held = process.cpu_times(), process.memory_info()
                used[process.pid, process.create_time()] = times.user + times.system
                memory += held.rss - (getattr(held, "shared", 0) if process is not self._me else 0)
        return used, memory

    def _temperature(self) -> float:
        """Of the processor, where the system shows it: containers and virtual machines do not."""
        try:
            sensors = self._psutil.sensors_temperatures()
        except (AttributeError, OSError):
            return math.nan
        found = [entry.current for name in SENSORS for entry in sensors.get(name, ()) if entry.current]
        return max(found, default=math.nan)


class _Gpu:
    """The newest line of one ``nvidia-smi`` that runs beside: starting it for every look would cost more."""

    def __init__(self, device: torch.device) -> None:
        self.latest = (math.nan, math.nan, math.nan)
        self._process: subprocess.Popen[str] | None = None
        command = ["nvidia-smi", "-i", _identity(device), f"--query-gpu={QUERY}", "--format=csv,noheader,nounits"]
        with contextlib.suppress(OSError):
            self._process = subprocess.Popen(
                [*command, "-lms", str(int(INTERVAL * 1000))],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            threading.Thread(target=_read, args=(weakref.ref(self), self._process), daemon=True).start()

    def close(self) -> None:
        """Stop it."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()


def _read(gpu: weakref.ref[_Gpu], process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        target = gpu()
        if target is None:
            return
        target.latest = gpu_values(line)
        del target


def gpu_values(line: str) -> tuple[float, float, float]:
    """Per cent, 10⁹ bytes and °C of a line of nvidia-smi (``97, 10240, 61``; MiB); what it does not know is nan."""
    values = []
    for text in line.split(","):
        try:
            values.append(float(text))
        except ValueError:
            values.append(math.nan)  # [N/A]
    busy, memory, celsius = [*values, math.nan, math.nan, math.nan][:3]
    return busy, memory * 2**20 / 1e9, celsius


def _identity(device: torch.device) -> str:
    """What nvidia-smi calls it: it counts GPUs that this process may not see."""
    uuid = getattr(torch.cuda.get_device_properties(device), "uuid", None)
    return f"GPU-{uuid}" if uuid else str(device.index or 0)


def _memory_limit() -> float:
    """Bytes that may be used: the machine's or, in a container, the cgroup's."""
    import psutil

    most, _ = machine.memory_limits()
    total = float(psutil.virtual_memory().total)
    return total if most is None else min(total, float(most))
