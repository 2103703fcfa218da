"""Where a model's time goes: its operators on one runtime, beside what this machine can do."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchstone.core import machine
from torchstone.core.contracts import Operator
from torchstone.core.registry import profilers
from torchstone.core.values import Candidate
from torchstone.evaluate.peaks import Peaks, measure
from torchstone.runtimes import open_candidate

SECONDS = 1.0
"""That the calls of one measurement take, more or less."""
FEWEST, MOST = 8, 50
OUTSIDE = "(outside the layers)"


@dataclass(frozen=True, kw_only=True)
class Share:
    """Operators taken together: those of one kind, or of one layer."""

    name: str
    count: int
    ms: float
    share: float
    """Of the time of all operators, 0 to 1."""
    macs: int
    bytes: int
    precision: str
    """Of the operators that have MACs, the one that most of the time goes to; of all, where none has."""
    gflops: float
    """10⁹ operations a second while they run, two for each MAC."""
    intensity: float
    """Operations a byte."""
    roof: float
    """GFLOP/s that the machine allows at this intensity, from memory; 0 without MACs."""

    @property
    def reached(self) -> float:
        """Share of the roof; above 1 where the data was found in a cache."""
        return self.gflops / self.roof if self.roof else 0.0


@dataclass(frozen=True, kw_only=True)
class Profile:
    """One model on one runtime."""

    model: str
    architecture: str
    runtime: str
    precision: str
    threads: int
    batch: int
    crop: int
    call_ms: float
    """Of a call without the profiler: a quarter of the calls were faster. Where others use the machine, the slower ones
    tell of them."""
    operators: Sequence[Operator]
    peaks: Peaks
    processor: float = 1.0
    """Share of the calls' time in which this process had a processor; well below 1 where others use the machine."""

    @cached_property
    def ms(self) -> float:
        """Of all operators, one after the other."""
        return sum(one.ms for one in self.operators)

    @property
    def outside(self) -> float:
        """Share of an undisturbed call that no operator accounts for: Python, memory, what lies between them."""
        return max(0.0, 1 - self.ms / self.call_ms)

    @property
    def macs(self) -> int:
        return sum(one.macs for one in self.operators)

    @cached_property
    def kinds(self) -> list[Share]:
        """By kind of operator, the costliest first."""
        return self._grouped([one.kind for one in self.operators])

    @cached_property
    def layers(self) -> list[Share]:
        """By layer of the network, the costliest first."""
        return self._grouped([one.layer or (one.name if one.macs else OUTSIDE) for one in self.operators])

    @cached_property
    def singles(self) -> list[Share]:
        """Every operator on its own, in the order of execution."""
        return [self._share(one.layer or one.name, [one]) for one in self.operators]

    @property
    def convolutions(self) -> float:
        """Share of the operators' time that goes to convolutions."""
        return self.time_of(lambda one: is_convolution(one.kind))

    def time_of(self, wanted: Any) -> float:
        """Share of the time that goes to the operators for which ``wanted`` holds."""
        return sum(one.ms for one in self.operators if wanted(one)) / (self.ms or 1.0)

    def memory_bound(self, one: Operator) -> bool:
        """Whether moving its data from memory takes longer than its arithmetic."""
        return 2 * one.macs / max(1, one.bytes) * self.peaks.memory < self.peaks.arithmetic(one.precision)

    def summary(self) -> dict[str, Any]:
        """All of it, as JSON takes it."""
        names = ("model", "architecture", "runtime", "precision", "threads", "batch", "crop", "call_ms", "processor")
        return {
            **{name: getattr(self, name) for name in names},
            "operators_ms": self.ms,
            "outside": self.outside,
            "convolutions": self.convolutions,
            "macs": self.macs,
            "peaks": asdict(self.peaks),
            "kinds": [asdict(one) for one in self.kinds],
            "layers": [asdict(one) for one in self.layers],
            "operators": [asdict(one) for one in self.operators],
            "environment": machine.summary(),
        }

    def _grouped(self, names: Sequence[str]) -> list[Share]:
        groups: dict[str, list[Operator]] = {}
        for name, one in zip(names, self.operators, strict=True):
            groups.setdefault(name, []).append(one)
        return sorted((self._share(name, group) for name, group in groups.items()), key=lambda one: -one.ms)

    def _share(self, name: str, group: Sequence[Operator]) -> Share:
        ms, macs, moved = sum(one.ms for one in group), sum(one.macs for one in group), sum(one.bytes for one in group)
        intensity = 2 * macs / max(1, moved)
        weighty = [one for one in group if one.macs] or group
        precision = max(weighty, key=lambda one: one.ms).precision
        return Share(
            name=name,
            count=len(group),
            ms=ms,
            share=ms / (self.ms or 1.0),
            macs=macs,
            bytes=moved,
            precision=precision,
            gflops=2 * macs / (ms * 1e6) if ms else 0.0,
            intensity=intensity,
            roof=self.peaks.roof(precision, intensity),
        )


def is_convolution(kind: str) -> bool:
    return "conv" in kind.lower()


def profile(candidate: Candidate) -> Profile:
    """Time the candidate's operators on random pixels (what they show changes no operator's work), and the machine
    before and after.

    Raises as ``open_candidate``, and a MissingPackageError where the runtime or PyTorch, which measures the machine, is
    not installed.
    """
    profiler = profilers.ready(candidate.runtime, "torch")
    options, artifact = candidate.options, candidate.artifact
    side = artifact.preprocess.crop
    pixels = np.random.default_rng(0).integers(0, 256, (options.batch, side, side, 3), dtype=np.uint8)
    peaks = measure(options.threads)
    call_ms, processor, calls = _call(candidate, pixels)
    operators = profiler.profile(artifact, options, pixels, calls)
    return Profile(
        model=candidate.name,
        architecture=artifact.architecture,
        runtime=candidate.runtime,
        precision=options.precision,
        threads=options.threads,
        batch=options.batch,
        crop=side,
        call_ms=call_ms,
        operators=operators,
        processor=processor,
        peaks=peaks.better(measure(options.threads)),
    )


def _call(candidate: Candidate, pixels: NDArray[np.uint8]) -> tuple[float, float, int]:
    """Milliseconds of a call (the first quartile), the share of the calls' time that was spent on a processor, and how
    many calls fit into ``SECONDS``."""
    runner = open_candidate(candidate)
    runner(pixels)
    times: list[float] = []
    busy = time.process_time()
    while len(times) < FEWEST or (sum(times) < SECONDS and len(times) < MOST):
        begin = time.perf_counter()
        runner(pixels)
        times.append(time.perf_counter() - begin)
    busy = time.process_time() - busy
    return 1000 * statistics.quantiles(times, n=4)[0], min(1.0, busy / sum(times)), len(times)
