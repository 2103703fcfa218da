"""The times in a row of the verdict: with bounds where a session was judged, the estimate alone where it was not."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np

from torchstone.core.values import Candidate
from torchstone.core.verdict import LatencyResult, SpeedResult
from torchstone.judge import select, speed

TimeT = TypeVar("TimeT", SpeedResult | None, LatencyResult | None)


def against(table: Any, phase: str, rival: Candidate | None, level: float) -> SpeedResult | None:
    """The speed against a rival in one phase of a candidate's timings; None where it was not timed."""
    if table is None or rival is None:
        return None
    return speed.compare(speed.quartets(table, phase, rival.id), rival.name, rival.id, level)


def latency(table: Any, phase: str, level: float) -> LatencyResult | None:
    """Over all of the candidate's slots at batch 1 in this phase, whichever rival they alternated with."""
    if table is None:
        return None
    rivals = sorted({rival for rival in table["rival"].to_list() if rival is not None})
    slots = [speed.quartets(table, phase, rival).candidate for rival in rivals]
    return speed.latency(np.concatenate(slots), level) if slots else None


def unclaimed_speed(table: Any, rival: Candidate | None) -> SpeedResult | None:
    """The ratio of the screening session; its few quartets order candidates and bound nothing."""
    return without_bounds(against(table, "screening", rival, select.SCREENING_LEVEL))


def unclaimed_latency(table: Any) -> LatencyResult | None:
    """The latency of the screening session."""
    return without_bounds(latency(table, "screening", select.SCREENING_LEVEL))


def unclaimed_baseline(tables: list[Any], baseline: Candidate) -> LatencyResult | None:
    """The baseline as it was timed in the screening session, as the rival of every candidate. ``tables`` are the
    candidates'."""
    slots = [speed.quartets(table, "screening", baseline.id).rival for table in tables if table is not None]
    return without_bounds(speed.latency(np.concatenate(slots), select.SCREENING_LEVEL)) if slots else None


def without_bounds(found: TimeT) -> TimeT:
    """The estimate alone: what was not judged, or by a clock that cannot be trusted, bounds nothing."""
    if isinstance(found, SpeedResult):
        return found.model_copy(update={"lower": None, "upper": None})
    if isinstance(found, LatencyResult):
        return found.model_copy(update={"lower_ms": None, "upper_ms": None})
    return found
