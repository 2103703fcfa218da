"""One criterion of the budget at a time: pass, fail, or not to be told from this evidence.

A criterion passes when the unfavourable bound keeps to the budget and fails when even the favourable one does not; all
of them have to pass, so nothing is corrected between them.
"""

from __future__ import annotations

from collections.abc import Sequence

from torchstone.core.values import Budget, Outcome
from torchstone.core.verdict import AccuracyResult, ControlResult, Decision, LatencyResult, SpeedResult
from torchstone.judge import power

REASONABLE = 50
"""Times as many test images as there are, above which asking for more is no advice."""


def drop(result: AccuracyResult, budget: Budget, level: float) -> Decision:
    """The accuracy that is lost, against the margin; says how many images would decide it when these do not."""
    margin = budget.max_drop
    if result.drop_upper <= margin:
        outcome, reason = "pass", f"{at_most(result)}, {margin:g} allowed"
    elif result.drop_lower > margin:
        outcome, reason = "fail", f"loses at least {result.drop_lower:.2f} points, {margin:g} allowed"
    else:
        outcome = "undecided"
        more, at_best = images_needed(result, budget, level), _more_images(result, budget, 0.0, level)
        helps = f"no reasonable number of images helps if it really loses {result.drop:.2f}"
        if more is not None:
            helps = f"about {more:,} more test images would probably decide it"
            helps += f" ({at_best:,} if it really loses nothing)" if at_best is not None and 1 < at_best < more else ""
        observed = f"{'loses' if result.drop >= 0 else 'gains'} {abs(result.drop):.2f} points"
        reason = f"{observed}, but may lose {result.drop_upper:.2f}, {margin:g} allowed: {helps}"
    return Decision(criterion="drop", outcome=outcome, reason=reason)


def at_most(result: AccuracyResult) -> str:
    """The bound of the drop in words; a drop bounded below zero is a proven gain."""
    bound = result.drop_upper
    return f"loses at most {bound:.2f} points" if bound >= 0 else f"gains at least {-bound:.2f} points"


def images_needed(result: AccuracyResult, budget: Budget, level: float) -> int | None:
    """More test images that would probably show the margin, at the disagreement and the drop observed (a gain counts
    as no drop). None when the drop observed is as large as the margin."""
    return _more_images(result, budget, max(result.drop, 0.0), level)


def speedup(result: SpeedResult | None, wanted: float, clock: ControlResult | None) -> Decision:
    """Times faster than the baseline, against the least that is asked."""
    if result is None or result.lower is None or result.upper is None:
        return Decision(criterion="speedup", outcome="undecided", reason="speed: too few judged timings for a bound")
    if result.lower >= wanted:
        outcome, reason = "pass", f"at least {result.lower:.2f}× faster, {wanted:g}× asked"
    elif result.upper < wanted:
        outcome, reason = "fail", f"at most {result.upper:.2f}× faster, {wanted:g}× asked"
    else:
        outcome, reason = (
            "undecided",
            f"{result.ratio:.2f}× faster ({result.lower:.2f}-{result.upper:.2f}), {wanted:g}× asked",
        )
    return _by_the_clock(Decision(criterion="speedup", outcome=outcome, reason=reason), clock)


def latency(result: LatencyResult | None, limit: float, clock: ControlResult | None) -> Decision:
    """The median of one call at batch 1, against the most that is allowed."""
    if result is None or result.lower_ms is None or result.upper_ms is None:
        return Decision(criterion="latency", outcome="undecided", reason="latency: too few judged timings for a bound")
    if result.upper_ms <= limit:
        outcome, reason = "pass", f"takes at most {result.upper_ms:.2f} ms, {limit:g} allowed"
    elif result.lower_ms > limit:
        outcome, reason = "fail", f"takes at least {result.lower_ms:.2f} ms, {limit:g} allowed"
    else:
        outcome, reason = (
            "undecided",
            f"takes {result.median_ms:.2f} ms ({result.lower_ms:.2f}-{result.upper_ms:.2f}), {limit:g} allowed",
        )
    return _by_the_clock(Decision(criterion="latency", outcome=outcome, reason=reason), clock)


def size(megabytes: float, limit: float) -> Decision:
    """The model's files as shipped; exact, so never undecided."""
    outcome: Outcome = "pass" if megabytes <= limit else "fail"
    return Decision(criterion="size", outcome=outcome, reason=f"{megabytes:.2f} MB, {limit:g} MB allowed")


def together(decisions: Sequence[Decision]) -> tuple[Outcome, str]:
    """The candidate's outcome and the reasons that made it: all pass, else any fail, any void, else undecided."""
    for outcome in _GRAVEST_FIRST:
        if reasons := [decision.reason for decision in decisions if decision.outcome == outcome]:
            return outcome, "; ".join(reasons)
    raise ValueError("there is nothing to decide")


def _more_images(result: AccuracyResult, budget: Budget, drop: float, level: float) -> int | None:
    disagreement = (result.lost + result.gained) / result.images
    needed = power.images_needed(budget.max_drop / 100, disagreement, drop / 100, level)
    return None if needed is None or needed > REASONABLE * result.images else max(1, needed - result.images)


def _by_the_clock(decision: Decision, clock: ControlResult | None) -> Decision:
    """A decision about time is worth no more than the session's A/A control."""
    if clock is not None and clock.outcome == "clean":
        return decision
    outcome, why = ("void", "its session has no A/A control") if clock is None else (clock.outcome, clock.reason)
    return decision.model_copy(update={"outcome": outcome, "reason": f"its {decision.criterion} is not judged: {why}"})


_GRAVEST_FIRST: tuple[Outcome, ...] = ("fail", "void", "undecided", "pass")
