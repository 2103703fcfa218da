"""Paired speed from stored timings, with bounds that assume nothing about the noise of a clock.

Each quartet gives one log-ratio: the mean of log(ms) over the rival's two slots, less the candidate's, so that a ratio
above 1 means that the candidate is faster. Bounds of its median invert the exact sign test, which makes them order
statistics of the quartets: with n quartets, the k-th smallest is a lower bound at confidence 1 - P(Bin(n, ½) < k).

Why the sign test and not the signed-rank test: the latter assumes that the noise is symmetric, and a neighbour's burst
is not: the same few milliseconds weigh more in a fast model's logarithm than in a slow one's. Simulated (16 quartets,
true ratio 2, a nominal 2.5 % each side), bursts of 10 ms on average in 20 % of the slots put the signed-rank upper
bound below the truth in 4.6 % of the sessions, the sign test's in 2.1 %; in calm sessions the sign test's lower bound
is 1.970 where signed-rank says 1.978. We pay that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchstone.core.errors import ArtifactError
from torchstone.core.verdict import ControlResult, LatencyResult, SpeedResult

FAIR = (0.98, 1.02)
"""Where the ratio of two equal processes may lie: the place of a process's memory alone can cost a per cent."""
TOLERANCE = (0.95, 1.05)
"""An A/A control whose 95 % interval leaves this range comes from a session too noisy to decide anything."""
THROUGHPUT_BATCH = 32


@dataclass(frozen=True, kw_only=True)
class Quartets:
    """The quartets of one comparison, in the order in which they ran; milliseconds float64[n, 2] for each side."""

    candidate: NDArray[np.float64]
    rival: NDArray[np.float64]
    sessions: frozenset[str]

    def __len__(self) -> int:
        return len(self.candidate)

    @property
    def log_ratios(self) -> NDArray[np.float64]:
        """float64[n]; above 0 where the candidate is faster."""
        return np.log(self.rival).mean(axis=1) - np.log(self.candidate).mean(axis=1)

    @property
    def ratio(self) -> float:
        """How many times faster the candidate is: the median over the quartets, of which there must be some."""
        return math.exp(float(np.median(self.log_ratios)))


def quartets(table: Any, phase: str, rival: str, batch: int = 1) -> Quartets:
    """The quartets against ``rival`` (a candidate id) in one phase of a timings table; empty when it was not timed.

    Raises an ArtifactError when a quartet is incomplete or a time is not positive.
    """
    sides: dict[tuple[str, int], dict[str, list[float]]] = {}
    for row in sorted(zip(*(table[name].to_list() for name in _COLUMNS), strict=True), key=lambda row: row[:3]):
        session, quartet, _, row_phase, row_rival, row_batch, side, ms = row
        if (row_phase, row_rival, row_batch) != (phase, rival, batch):
            continue
        sides.setdefault((session, quartet), {}).setdefault(side, []).append(_positive(ms))
    for (_, quartet), both in sides.items():
        if {side: len(slots) for side, slots in both.items()} != {"candidate": 2, "rival": 2}:
            raise ArtifactError(f"quartet {quartet} of the timings is not complete", hint=_TIME_AGAIN)
    return Quartets(
        candidate=np.array([both["candidate"] for both in sides.values()], np.float64).reshape(-1, 2),
        rival=np.array([both["rival"] for both in sides.values()], np.float64).reshape(-1, 2),
        sessions=frozenset(session for session, _ in sides),
    )


def rank(count: int, level: float) -> int:
    """k such that the k-th smallest of ``count`` observations is a lower bound of their median at one-sided ``level``.

    0 when there are too few of them for any bound: P(Bin(count, ½) < k) ≤ 1 - level has no solution with k ≥ 1.
    """
    tail, k = 0.0, 0
    while k < count:
        tail += math.comb(count, k) / 2**count
        if tail > 1 - level + 1e-12:
            break
        k += 1
    return k


def compare(measured: Quartets, name: str, rival_id: str, level: float) -> SpeedResult | None:
    """How many times faster than the rival ``name``, with one-sided bounds at ``level``; None when it was not timed."""
    if not len(measured):
        return None
    lower, upper = _bounds(measured.log_ratios, level)
    return SpeedResult(
        rival=name,
        rival_id=rival_id,
        quartets=len(measured),
        ratio=measured.ratio,
        lower=None if lower is None else math.exp(lower),
        upper=None if upper is None else math.exp(upper),
    )


def latency(slots: NDArray[np.float64], level: float) -> LatencyResult | None:
    """The median of a candidate's slots, float64[n, 2] milliseconds with a row for each quartet; None when n = 0.

    The two slots of a quartet share their moment, so the bounds take the rank of n observations, not of 2n, counted
    twice. Simulated with slow spells of four slots, that misses the median in 2 % of the sessions a side (nominal
    2.5 %), where the rank of 2n independent slots misses it in 8 %.
    """
    if not len(slots):
        return None
    ordered = np.sort(slots.ravel())
    k = rank(len(slots), level)
    return LatencyResult(
        median_ms=float(np.median(ordered)),
        lower_ms=float(ordered[2 * k - 2]) if k else None,
        upper_ms=float(ordered[len(ordered) - 2 * k + 1]) if k else None,
    )


def throughput(table: Any) -> float | None:
    """Images a second at batch 32: the median over the candidate's slots of the last phase in which it was timed so."""
    columns = zip(*(table[name].to_list() for name in ("batch", "side", "phase", "ms")), strict=True)
    slots: dict[str, list[float]] = {}
    for batch, side, phase, ms in columns:
        if batch == THROUGHPUT_BATCH and side == "candidate":
            slots.setdefault(phase, []).append(_positive(ms))
    last = slots.get("judged") or slots.get("screening")
    return 1000 * THROUGHPUT_BATCH / float(np.median(last)) if last else None


def control(measured: Quartets) -> ControlResult | None:
    """What the baseline against itself says of the session; None with fewer than six quartets (no 95 % interval).

    Void when the two-sided 99.9 % interval lies outside ``FAIR``: the clock prefers one of two equal processes.
    Undecided when the 95 % interval leaves ``TOLERANCE``: too noisy to tell. Less than 2 % is no reason to throw a
    session away: where a process's memory happens to lie makes it that much slower for life (docs/adr).
    """
    low95, high95 = _bounds(measured.log_ratios, 0.975)
    if low95 is None or high95 is None:
        return None
    interval95 = (math.exp(low95), math.exp(high95))
    low999, high999 = _bounds(measured.log_ratios, 0.9995)
    interval999 = None if low999 is None or high999 is None else (math.exp(low999), math.exp(high999))
    printed = f"{interval95[0]:.3f}-{interval95[1]:.3f}"
    if interval999 is not None and (interval999[0] > FAIR[1] or interval999[1] < FAIR[0]):
        outcome, reason = (
            "void",
            (
                f"the baseline timed against itself came out different: 99.9 % interval "
                f"{interval999[0]:.3f}-{interval999[1]:.3f} lies outside {FAIR[0]}-{FAIR[1]}"
            ),
        )
    elif interval95[0] < TOLERANCE[0] or interval95[1] > TOLERANCE[1]:
        allowed = f"{TOLERANCE[0]}-{TOLERANCE[1]}"
        outcome, reason = "undecided", f"the machine is too noisy: A/A interval {printed} leaves {allowed}"
    else:
        outcome, reason = "clean", f"the baseline against itself: {printed} (95 %)"
    return ControlResult(
        quartets=len(measured),
        ratio=measured.ratio,
        interval95=interval95,
        interval999=interval999,
        outcome=outcome,
        reason=reason,
    )


def _bounds(values: NDArray[np.float64], level: float) -> tuple[float | None, float | None]:
    """One-sided lower and upper bound of the median, each at ``level``; None where there are too few values."""
    k = rank(len(values), level)
    if not k:
        return None, None
    ordered = np.sort(values)
    return float(ordered[k - 1]), float(ordered[-k])


def _positive(ms: float | None) -> float:
    if ms is None or not 0 < ms < math.inf:
        raise ArtifactError(f"the timings hold a slot of {ms} ms", hint=_TIME_AGAIN)
    return ms


_COLUMNS = ("session", "quartet", "slot", "phase", "rival", "batch", "side", "ms")
_TIME_AGAIN = "delete the timings and type the same command again"
