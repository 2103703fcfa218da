"""What a worker counts of itself, and all workers' counts as one page for Prometheus.

A count is one addition in the board's memory (``board.py``), on the path of every answer: what takes longer than that
does not belong here. Numbers that others keep (the log, the cache) are carried over once a second.
"""

from __future__ import annotations

import asyncio
import threading
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from torchstone.serve.board import Block, Board, Slot
from torchstone.serve.values import Answer, Role

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

    from torchstone.serve.model import Served

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
IMAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
STAGES = ("queue", "decode", "infer")
PULSE = 1.0
"""Seconds from one carrying over of what others count to the next."""


class Family(NamedTuple):
    """One name at ``/metrics``."""

    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()


FAMILIES: dict[str, Family] = {
    "torchstone_requests": Family("counter", "Requests by path and status", ("path", "status")),
    "torchstone_request_seconds": Family(
        "histogram", "Whole requests, from the headers to the reply", ("path",), SECONDS
    ),
    "torchstone_stage_seconds": Family(
        "histogram", "What an image waited for, and what was done with it; not those from the cache",
        ("model", "role", "stage"), SECONDS,
    ),
    "torchstone_batch_images": Family("histogram", "Images in a batch", ("model", "role"), IMAGES),
    "torchstone_predictions": Family("counter", "Answers by predicted class", ("model", "role", "class")),
    "torchstone_refused": Family("counter", "Images that were not answered, by reason", ("model", "code")),
    "torchstone_queue_images": Family("gauge", "Images accepted and not answered yet", ("model",)),
    "torchstone_shadows_dropped": Family("counter", "Images that a candidate in shadow had no room for", ("model",)),
    "torchstone_cache_hits": Family("counter", "Images whose answer was in the cache"),
    "torchstone_cache_misses": Family("counter", "Images whose answer was not in the cache"),
    "torchstone_cache_errors": Family("counter", "Failures of the cache; what was asked then counts as a miss"),
    "torchstone_log_rows_written": Family("counter", "Rows of the prediction log that are in the store"),
    "torchstone_log_rows_lost": Family("counter", "Rows of the prediction log that were lost"),
    "torchstone_log_rows_waiting": Family("gauge", "Rows of the prediction log that are not in the store yet"),
    "torchstone_workers": Family("gauge", "Workers that answer"),
    "torchstone_worker_deaths": Family("counter", "Workers that ended by themselves and were replaced"),
    "torchstone_rollout_running": Family("gauge", "1 while a rollout is running", ("model", "mode")),
    "torchstone_rollout_labels": Family("gauge", "Labelled observations of the running rollout", ("model",)),
    "torchstone_rollout_evidence": Family(
        "gauge", "Evidence of the running rollout as a share of what decides, on a logarithmic scale: 1 decides",
        ("model", "monitor", "against"),
    ),
    "torchstone_rollouts_ended": Family("counter", "Rollouts by how they ended", ("model", "status")),
    "torchstone_watch_failures": Family(
        "counter", "Looks of the threads that watch rollouts and drift that failed", ("thread",)
    ),
    "torchstone_drift_psi": Family("gauge", "Population stability index of the last window", ("model", "quantity")),
    "torchstone_drift_p_value": Family("gauge", "Two-sample test of the last window", ("model", "quantity")),
    "torchstone_drift_alarm": Family("gauge", "1 while the last window has drifted", ("model",)),
    "torchstone_drift_windows": Family("counter", "Windows that were compared with the reference", ("model",)),
    "torchstone_drift_alarms": Family("counter", "Windows that had drifted", ("model",)),
    "torchstone_build_info": Family("gauge", "Workers by the version they run", ("version",)),
    "torchstone_model_info": Family(
        "gauge", "Workers by what they answer with", ("model", "role", "bundle", "candidate", "runtime")
    ),
}  # fmt: skip


class Histogram:
    """One histogram's cells: a count for each bound, one for what lies above all, and the sum."""

    __slots__ = ("_bounds", "_cells")

    def __init__(self, slot: Slot, name: str, **labels: str) -> None:
        self._bounds = FAMILIES[name].bounds
        self._cells = slot.cells(len(self._bounds) + 2, name=name, kind="histogram", labels=labels)

    def add(self, value: float) -> None:
        self._cells[bisect_left(self._bounds, value)] += 1.0
        self._cells[-1] += value


def cell(slot: Slot, name: str, **labels: str) -> memoryview[float]:
    """The one cell of a counter or gauge."""
    return slot.cells(1, name=name, kind=FAMILIES[name].kind, labels=labels)


@dataclass(slots=True)
class Carried:
    """A number that somebody else keeps."""

    cell: memoryview[float]
    ask: Callable[[], float]
    grows: bool
    before: float = 0.0

    def over(self) -> None:
        now = float(self.ask())
        self.cell[0] = self.cell[0] + now - self.before if self.grows else now
        self.before = now


class Meter(NamedTuple):
    """What is counted of one model in one role."""

    predictions: memoryview[float]
    stages: tuple[tuple[str, Histogram], ...]


class Metrics:
    """The counts of one worker. All but ``inferred`` are called on its event loop."""

    def __init__(self, slot: Slot, version: str) -> None:
        self._slot = slot
        self._classes: dict[tuple[str, str], tuple[str, ...]] = {}
        self._meters: dict[tuple[str, Role, str], Meter] = {}
        self._batches: dict[tuple[str, Role], Histogram] = {}
        self._replies: dict[tuple[str, int], tuple[memoryview[float], Histogram]] = {}
        self._infos: dict[tuple[str, Role], memoryview[float]] = {}
        self._refusals: dict[tuple[str, str], memoryview[float]] = {}
        self._carried: list[Carried] = []
        self._lock = threading.Lock()
        self._timer: asyncio.TimerHandle | None = None
        slot.clear_gauges()
        cell(slot, "torchstone_build_info", version=version)[0] = 1.0

    def opened(self, model: str, role: Role, served: Served) -> None:
        """This worker answers with that model from now on."""
        self._classes[model, served.bundle] = served.labels
        self.ended(model, role)
        candidate = served.candidate
        info = cell(
            self._slot, "torchstone_model_info", model=model, role=role, bundle=served.bundle, candidate=candidate.name,
            runtime=candidate.runtime,
        )  # fmt: skip
        info[0] = 1.0
        self._infos[model, role] = info

    def ended(self, model: str, role: Role) -> None:
        """Nothing answers in that role any more."""
        before = self._infos.pop((model, role), None)
        if before is not None:
            before[0] = 0.0

    def answered(self, model: str, role: Role, answer: Answer) -> None:
        place = (model, role, answer.bundle)
        meter = self._meters.get(place) or self._meter(*place)
        meter.predictions[answer.label] += 1.0
        if not answer.cached:
            times = answer.milliseconds
            for stage, histogram in meter.stages:
                histogram.add(times[stage] * 1e-3)

    def refused(self, model: str, code: str) -> None:
        known = self._refusals.get((model, code))
        if known is None:
            known = self._refusals[model, code] = cell(self._slot, "torchstone_refused", model=model, code=code)
        known[0] += 1.0

    def inferred(self, model: str, role: Role, images: int) -> None:
        """Called in the model's threads, of which there may be several."""
        with self._lock:
            histogram = self._batches.get((model, role))
            if histogram is None:
                histogram = Histogram(self._slot, "torchstone_batch_images", model=model, role=role)
                self._batches[model, role] = histogram
            histogram.add(images)

    def replied(self, path: str, status: int, seconds: float) -> None:
        """A request was answered, with whatever status."""
        known = self._replies.get((path, status))
        if known is None:
            count = cell(self._slot, "torchstone_requests", path=path, status=str(status))
            known = self._replies[path, status] = (
                count,
                Histogram(self._slot, "torchstone_request_seconds", path=path),
            )
        known[0][0] += 1.0
        known[1].add(seconds)

    def carry(self, name: str, ask: Callable[[], float], **labels: str) -> None:
        """Show what somebody else counts. A counter of a worker that came in a killed one's place begins at 0 again:
        what it grows by is added."""
        grows = FAMILIES[name].kind == "counter"
        self._carried.append(Carried(cell=cell(self._slot, name, **labels), ask=ask, grows=grows))

    def pulse(self) -> None:
        """Carry over now what others count."""
        for one in self._carried:
            one.over()

    def beat(self, loop: asyncio.AbstractEventLoop) -> None:
        """Carry it over once a second."""
        self.pulse()
        self._timer = loop.call_later(PULSE, self.beat, loop)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.pulse()
        self._slot.clear_gauges()

    def _meter(self, model: str, role: Role, bundle: str) -> Meter:
        classes = self._classes[model, bundle]
        what: dict[str, Any] = {"name": "torchstone_predictions", "kind": "counter", "each": ["class", list(classes)]}
        meter = Meter(
            self._slot.cells(len(classes), labels={"model": model, "role": role}, **what),
            tuple(
                (stage, Histogram(self._slot, "torchstone_stage_seconds", model=model, role=role, stage=stage))
                for stage in STAGES
            ),
        )
        self._meters[model, role, bundle] = meter
        return meter


def page(board: Board, accept: str = "") -> tuple[bytes, str]:
    """All that all processes have counted, and its Content-Type: Prometheus' text, or OpenMetrics where ``accept`` asks
    for it."""
    from prometheus_client.exposition import choose_encoder
    from prometheus_client.registry import CollectorRegistry

    class Collected:
        def collect(self) -> Iterable[Metric]:
            return families(block for _, block in board.blocks())

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collected())  # pyright: ignore[reportArgumentType]
    encode, kind = choose_encoder(accept)
    return encode(registry), kind


def families(blocks: Iterable[Block]) -> list[Metric]:
    """Blocks with the same name and labels added up, in the order of ``FAMILIES``."""
    from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

    sums: defaultdict[str, dict[tuple[str, ...], list[float]]] = defaultdict(dict)
    for block in blocks:
        if (name := block.what.get("name")) in FAMILIES:
            for labels, values in _values(block, FAMILIES[name]):
                before = sums[name].setdefault(labels, [0.0] * len(values))
                before[:] = [one + other for one, other in zip(before, values, strict=True)]
    found: list[Metric] = []
    for name, family in FAMILIES.items():
        if family.kind == "histogram":
            metric = HistogramMetricFamily(name, family.help, labels=family.labels)
            for labels, values in sums[name].items():
                metric.add_metric(labels, _cumulated(family.bounds, values[:-1]), sum_value=values[-1])
        else:
            kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
            metric = kind(name, family.help, labels=family.labels)
            for labels, values in sums[name].items():
                metric.add_metric(labels, values[0])
        found.append(metric)
    return found


def _values(block: Block, family: Family) -> Iterable[tuple[tuple[str, ...], list[float]]]:
    """Labels in the family's order, with the cells that belong to them. Classes that were never predicted, and gauges
    that stand at nothing because they speak of what is no more, are left out."""
    labels: dict[str, str] = block.what["labels"]
    cells: list[float] = [*block.room.cast("d")]
    if "each" in block.what:
        label, values = block.what["each"]
        for value, cell in zip(values, cells, strict=True):
            if cell:
                yield tuple({**labels, label: value}[one] for one in family.labels), [cell]
    elif not (family.kind == "gauge" and "info" in block.what["name"] and not cells[0]):
        yield tuple(labels[one] for one in family.labels), cells


def _cumulated(bounds: Sequence[float], counts: Sequence[float]) -> list[tuple[str, float]]:
    total = 0.0
    found = []
    for bound, count in zip([*(str(float(one)) for one in bounds), "+Inf"], counts, strict=True):
        total += count
        found.append((bound, total))
    return found
