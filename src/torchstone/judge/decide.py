"""One criterion of the budget at a time: pass, fail, or not to be told from this evidence.

A criterion passes when the unfavourable bound keeps to the budget and fails when even the favourable one does not; all
of them have to pass, so nothing is corrected between them. Bounds are compared as they are, and printed rounded to the
side on which they still hold.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torchstone.core.numbers import rounded_down, rounded_up
from torchstone.core.values import LESS_IS_BETTER, METRICS, Budget, Outcome
from torchstone.core.verdict import AccuracyResult, ControlResult, Decision, LatencyResult, MetricResult, SpeedResult
from torchstone.judge import bootstrap, power

REASONABLE = 50
"""Times as many test images as there are, above which asking for more is no advice."""


def drop(result: AccuracyResult, budget: Budget, level: float, measured: MetricResult | None = None) -> Decision:
    """What is lost of the budget's metric, against the margin; says how many images would decide it when these do not.

    ``measured`` is the metric, where it is another than top-1."""
    margin, found = budget.max_drop, _measured(result, budget, measured)
    if found is None or found.lower is None or found.upper is None:
        reason = f"{METRICS[budget.metric]}: these test images do not bound it"
        return Decision(criterion="drop", outcome="undecided", reason=reason)
    if found.upper <= margin:
        outcome, reason = "pass", f"{at_most(found)}, {margin:g} allowed"
    elif found.lower > margin:
        outcome, reason = "fail", f"{lost(found, rounded_down(found.lower, 2), how='at least ')}, {margin:g} allowed"
    else:
        outcome = "undecided"
        more, at_best = images_needed(result, budget, level, found), _more_images(result, found, budget, 0.0, level)
        helps = f"no reasonable number of images helps if it really loses {found.difference:.2f}"
        if more is not None:
            helps = f"about {more:,} more test images would probably decide it"
            helps += f" ({at_best:,} if it really loses nothing)" if at_best is not None and 1 < at_best < more else ""
        most = f"may lose {rounded_up(found.upper, 2):.2f}, {margin:g} allowed"
        reason = f"{lost(found, found.difference)}, but {most}: {helps}"
    return Decision(criterion="drop", outcome=outcome, reason=reason + _in_groups(result, budget))


def at_most(found: MetricResult) -> str:
    """The bound of the drop in words; a drop bounded below zero is a proven gain."""
    bound = rounded_up(found.upper or 0.0, 2)
    return lost(found, bound, how="at most " if bound >= 0 else "at least ")


def lost(found: MetricResult, points: float, digits: int = 2, how: str = "") -> str:
    """So many points of the metric in words; negative ones are a gain."""
    verb = "loses" if points >= 0 else "gains"
    of = ""
    if found.name in LESS_IS_BETTER:
        verb = "worsens by" if points >= 0 else "improves by"
    if found.name != "top1":
        of = f" of {METRICS[found.name]}"
    return f"{verb} {how}{abs(points):.{digits}f} points{of}"


def images_needed(
    result: AccuracyResult, budget: Budget, level: float, measured: MetricResult | None = None
) -> int | None:
    """More test images that would probably show the margin, at the spread and the drop observed (a gain counts as no
    drop). None when the drop observed is as large as the margin."""
    found = _measured(result, budget, measured)
    return None if found is None else _more_images(result, found, budget, max(found.difference, 0.0), level)


def _measured(result: AccuracyResult, budget: Budget, measured: MetricResult | None) -> MetricResult | None:
    """The result in the budget's metric."""
    return bootstrap.top1(result) if budget.metric == "top1" else measured


def _in_groups(result: AccuracyResult, budget: Budget) -> str:
    """What the bound owes to the groups that the images come in."""
    if result.groups is None:
        return ""
    if budget.metric != "top1":
        return f" ({result.groups:,} groups drawn as wholes)"
    if result.design_effect == 1:
        return ""
    return (
        f" ({result.images:,} images in {result.groups:,} groups count as {result.images / result.design_effect:,.0f})"
    )


def speedup(result: SpeedResult | None, wanted: float, clock: ControlResult | None) -> Decision:
    """Times faster than the baseline, against the least that is asked."""
    if result is None or result.lower is None or result.upper is None:
        return Decision(criterion="speedup", outcome="undecided", reason="speed: too few judged timings for a bound")
    least, most = rounded_down(result.lower, 2), rounded_up(result.upper, 2)
    if result.lower >= wanted:
        outcome, reason = "pass", f"at least {least:.2f}× faster, {wanted:g}× asked"
    elif result.upper < wanted:
        outcome, reason = "fail", f"at most {most:.2f}× faster, {wanted:g}× asked"
    else:
        outcome, reason = (
            "undecided",
            f"{result.ratio:.2f}× faster ({least:.2f}-{most:.2f}), {wanted:g}× asked",
        )
    return _by_the_clock(Decision(criterion="speedup", outcome=outcome, reason=reason), clock)


def latency(result: LatencyResult | None, limit: float, clock: ControlResult | None) -> Decision:
    """The median of one call at batch 1, against the most that is allowed."""
    if result is None or result.lower_ms is None or result.upper_ms is None:
        return Decision(criterion="latency", outcome="undecided", reason="latency: too few judged timings for a bound")
    least, most = rounded_down(result.lower_ms, 2), rounded_up(result.upper_ms, 2)
    if result.upper_ms <= limit:
        outcome, reason = "pass", f"takes at most {most:.2f} ms, {limit:g} allowed"
    elif result.lower_ms > limit:
        outcome, reason = "fail", f"takes at least {least:.2f} ms, {limit:g} allowed"
    else:
        outcome, reason = (
            "undecided",
            f"takes {result.median_ms:.2f} ms ({least:.2f}-{most:.2f}), {limit:g} allowed",
        )
    return _by_the_clock(Decision(criterion="latency", outcome=outcome, reason=reason), clock)


def size(megabytes: float, limit: float) -> Decision:
    """The model's files as shipped; exact, so never undecided."""
    outcome: Outcome = "pass" if megabytes <= limit else "fail"
    said = f"{megabytes:.2f}"
    if outcome == "fail" and float(said) <= limit:
        said = f"{megabytes:.6f}"  # a byte more is too much
    return Decision(criterion="size", outcome=outcome, reason=f"{said} MB, {limit:g} MB allowed")


def together(decisions: Sequence[Decision]) -> tuple[Outcome, str]:
    """The candidate's outcome and the reasons that made it: all pass, else any fail, any void, else undecided."""
    for outcome in _GRAVEST_FIRST:
        if reasons := [decision.reason for decision in decisions if decision.outcome == outcome]:
            return outcome, "; ".join(reasons)
    raise ValueError("there is nothing to decide")


def _more_images(result: AccuracyResult, found: MetricResult, budget: Budget, drop: float, level: float) -> int | None:
    margin, images = budget.max_drop / 100, result.images
    if found.name == "top1":
        needed = power.images_needed(margin, (result.lost + result.gained) / images, drop / 100, level)
        needed = None if needed is None else math.ceil(needed * result.design_effect)
    elif found.upper is None:
        needed = None
    else:
        needed = power.images_by_spread(images, (found.upper - found.difference) / 100, margin, drop / 100, level)
    return None if needed is None or needed > REASONABLE * images else max(1, needed - images)


def _by_the_clock(decision: Decision, clock: ControlResult | None) -> Decision:
    """A decision about time is worth no more than the session's A/A control."""
    if clock is not None and clock.outcome == "clean":
        return decision
    outcome, why = ("void", "its session has no A/A control") if clock is None else (clock.outcome, clock.reason)
    return decision.model_copy(update={"outcome": outcome, "reason": f"its {decision.criterion} is not judged: {why}"})


_GRAVEST_FIRST: tuple[Outcome, ...] = ("fail", "void", "undecided", "pass")
