"""Which candidate to ship, whether compressing was worth it, and the answer in one sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torchstone.core.numbers import rounded_down
from torchstone.core.values import Budget
from torchstone.core.verdict import CandidateVerdict, ControlResult, SpeedResult, Verdict
from torchstone.judge import decide

MATERIAL = 1.05
"""How much faster than a rival that costs nothing a compression has to be, at least, to be worth it."""


@dataclass(frozen=True)
class Choice:
    """``worth_compressing`` is None when nothing passed, or when the test set or the clock cannot tell."""

    winner: str | None
    worth_compressing: bool | None


def choose(rows: Sequence[CandidateVerdict], control: ControlResult | None, budget: Budget) -> Choice:
    """The fastest candidate that passed, unless a free one that passed is not proven to be 5 % slower: then that one.

    Where the clock cannot be trusted, those are equally fast that differ by no more than the baseline does from itself,
    and of them it is the one that may lose least.

    ``rows`` has the baseline first. A compression that is not proven faster than the baseline either, and not needed
    for the size, is not worth it, though it stays the winner: it is the best of what passed.
    """
    passed = [row for row in rows[1:] if row.outcome == "pass"]
    if not passed:
        return Choice(None, None)
    fastest = max(passed, key=_ratio)
    if fastest.free:
        open_question = any(row.outcome in ("undecided", "void") and not row.free for row in rows[1:])
        return Choice(fastest.candidate_id, None if open_question else False)
    if control is None or control.outcome != "clean":
        return Choice(_safest(passed, control, budget).candidate_id, None)
    rivals = [row for row in passed if row.free and not _proven_faster(fastest, row)]
    if rivals:
        return Choice(max(rivals, key=_ratio).candidate_id, False)
    needed_for_size = budget.max_size_mb is not None and rows[0].size_mb > budget.max_size_mb
    beats_baseline = fastest.speed is not None and (fastest.speed.lower or 0.0) > 1
    return Choice(fastest.candidate_id, beats_baseline or needed_for_size)


def _safest(passed: Sequence[CandidateVerdict], control: ControlResult | None, budget: Budget) -> CandidateVerdict:
    """Of those that may be the fastest, the one with the lowest bound of the drop that the margin is about."""
    low, high = (1.0, 1.0) if control is None else control.interval95
    noise = max(1 / low, high)
    near = [row for row in passed if noise * _ratio(row) >= max(map(_ratio, passed))]

    def bound(row: CandidateVerdict) -> float:
        found = (one.upper for one in row.metrics if one.name == budget.metric and one.upper is not None)
        return next(found, math.inf)

    return min(near, key=bound)


def _ratio(row: CandidateVerdict) -> float:
    return row.speed.ratio if row.speed is not None else 0.0


def _proven_faster(row: CandidateVerdict, rival: CandidateVerdict) -> bool:
    """By their own quartets where they were timed against each other, else by bounds against the baseline that do not
    overlap (wider than a direct comparison, so never proven too easily)."""
    for direct in (row.free_rival, row.same_runtime):
        if direct is not None and direct.rival_id == rival.candidate_id:
            return (direct.lower or 0.0) > MATERIAL
    if row.speed is None or rival.speed is None or row.speed.lower is None or rival.speed.upper is None:
        return False
    return row.speed.lower > MATERIAL * rival.speed.upper


def sentence(verdict: Verdict) -> str:
    """The answer that a manager can read; every number in it is of the verdict."""
    if verdict.winner is not None:
        return _passed(verdict, verdict.row(verdict.winner))
    if not verdict.shortlist and verdict.selection == "named":
        why = ", ".join(f"'{row.name}' ({row.reason})" for row in verdict.rows[1:])
        return f"None of the named candidates can meet the budget; the test set was not touched: {why}."
    if not verdict.shortlist:
        return "No candidate can meet the budget, as val and the screening session show; the test set was not touched."
    last = next((row for row in _met(verdict) if row.outcome != "pass"), None)
    if last is None:
        return "Nothing has met the test set yet."
    said = {
        "fail": f"Nothing passed (at {100 * last.level:g} % confidence)",
        "void": "Nothing is claimed, for the clock of this session cannot be trusted",
    }.get(last.outcome, "Cannot tell yet")
    return f"{said}. '{last.name}': {last.reason}."


def _met(verdict: Verdict) -> list[CandidateVerdict]:
    """The shortlisted rows that met the test set, in their order."""
    rows = {row.candidate_id: row for row in verdict.rows[1:]}
    return [rows[key] for key in verdict.shortlist if rows[key].outcome != "not tested"]


def _passed(verdict: Verdict, row: CandidateVerdict) -> str:
    assert row.accuracy is not None
    baseline = verdict.rows[0]
    found = verdict.metric(row)
    assert found is not None  # what passed was measured
    of = " of top-1" if found.name == "top1" else ""
    facts = [
        f"{decide.at_most(found)}{of} ({found.difference:z.2f} observed on {row.accuracy.images:,} test images, "
        f"{100 * row.level:g} % confidence)"
    ]
    if row.speed is not None and row.speed.lower is not None:
        facts.append(f"{_times(row.speed)} as '{baseline.name}'")
    if row.free_rival is not None and verdict.worth_compressing:
        facts.append(f"{_times(row.free_rival)} as '{row.free_rival.rival}', which costs nothing")
    size, before = f"{row.size_mb:.2f} MB", f"{baseline.size_mb:.2f}"
    facts.append(f"{size} as before" if size.startswith(before) else f"{size} instead of {before}")
    said = f"'{row.name}': " + "; ".join(facts)
    if verdict.worth_compressing is False and row.free:
        return f"Not worth compressing, take the weights as they are in {said}."
    if verdict.worth_compressing is False:
        return f"Not worth it: what passes is not proven faster than '{baseline.name}'. {said}."
    if verdict.worth_compressing is None:
        left = next((other for other in _met(verdict) if other.outcome in ("undecided", "void")), None)
        doubt = f"'{left.name}' {left.reason}" if left is not None else "the clock cannot tell how fast it is"
        return f"Ship {said}. Open: {doubt}."
    return f"Ship {said}."


def _times(found: SpeedResult) -> str:
    least = "" if found.lower is None else f" (at least {rounded_down(found.lower, 2):.2f}×)"
    return f"{found.ratio:.2f}×{least} as fast"
