"""The verdict on stored answers alone, from whichever tool: paired accuracy, and nothing about speed.

The candidates meet the test set in the order given, each at the full level, until the first that does not pass, or all
of them at levels split by Holm, as those of a run do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field

from torchstone.core.values import METRICS, Budget, Metric, Outcome, Value
from torchstone.core.verdict import AccuracyResult, Decision, Draws, MetricResult, Procedure, SliceResult
from torchstone.judge import accuracy, bootstrap, decide, family, ledger, slices
from torchstone.judge.matching import Answers, Case
from torchstone.judge.stored_metrics import Measured

FLIPS = 50
"""Lost items that a verdict names."""


class Flip(Value):
    """An item that the baseline gets right and the candidate wrong."""

    item: str
    label: str
    answer: str = Field(description="what the candidate takes it for")


class EvidenceRow(Value):
    """One file of answers."""

    name: str = Field(description="as typed")
    file: str
    sha256: str
    answers_id: str = Field(description="digest of what is answered for each item: the same answers, the same id")
    level: float = Field(description="one-sided confidence of this row's bounds")
    accuracy: AccuracyResult | None = None
    metric: MetricResult | None = Field(
        default=None,
        description="what the margin is about, where that is not top-1; None, too, where these items do not define it",
    )
    slices: tuple[SliceResult, ...] = Field(
        default=(), description="by class and by the columns that were asked for; within one the largest drop first"
    )
    decision: Decision | None = None
    outcome: Outcome | Literal["baseline", "not tested"]
    reason: str
    images_needed: int | None = Field(default=None, description="more test images that would probably decide it")
    lost: tuple[Flip, ...] = Field(default=(), description=f"the first {FLIPS} by item")


class EvidenceVerdict(Value):
    """What the judge says of these answers. Speed, size and latency are not in them."""

    budget: Budget
    test_fingerprint: str
    test_images: int
    classes: tuple[str, ...]
    look: int = Field(description="how many times this test set has now been looked at; 1 is the first")
    level: float = Field(description="one-sided confidence that this look may spend")
    procedure: Procedure
    slices: tuple[str, ...] = Field(default=(), description="columns that were asked for, beside 'class'")
    draws: Draws | None = Field(default=None, description="None: no bound was drawn")
    rows: tuple[EvidenceRow, ...] = Field(description="the baseline first, then as named")
    sentence: str
    evidence: dict[str, str] = Field(
        default={}, description="file of the evidence directory: sha256; empty where none was written"
    )

    @property
    def outcome(self) -> Outcome:
        """Of all together: pass if any passes, else undecided if any is, else fail."""
        outcomes = [row.outcome for row in self.rows[1:]]
        return "pass" if "pass" in outcomes else "undecided" if "undecided" in outcomes else "fail"


def question(found: Case, budget: Budget, procedure: Procedure) -> dict[str, Any]:
    """What the ledger remembers of a look: whose answers were compared, in which order, for which budget."""
    first, *others = (answers.id for answers in found.answers)
    return ledger.entry_of_ids(first, others, budget, procedure)


def judge(
    found: Case,
    names: Sequence[str],
    budget: Budget,
    look: int,
    procedure: Procedure = "fixed-order",
    *,
    drawn: Sequence[EvidenceRow] | None = None,
) -> EvidenceVerdict:
    """The verdict at this ``look`` (``ledger.look``); ``names`` are what the files are called, the baseline first.
    ``drawn`` are rows whose bootstrap bounds are taken as they are, where they cannot be drawn again."""
    assert found.metric == budget.metric, "the case was made for another metric"
    level = ledger.level(budget.confidence, look)
    candidates = dict(enumerate(names[1:], start=1))
    stored = None if drawn is None else {number: (row.level, row.metric) for number, row in enumerate(drawn)}
    likely = [one.likely for one in found.answers if one.likely is not None]
    measured = Measured(found.metric, found.answers, likely or None, found.groups, stored)

    def test(number: int, own_level: float) -> EvidenceRow:
        return _judged(found, number, candidates[number], budget, own_level, measured)

    judged = family.judged(procedure, list(candidates), level, test)
    last = list(judged.values())[-1].name
    rows = [
        _baseline_row(found, names[0], level, measured),
        *(judged.get(number) or _untested_row(found, number, name, last, level) for number, name in candidates.items()),
    ]
    return EvidenceVerdict(
        budget=budget,
        test_fingerprint=found.fingerprint,
        test_images=found.images,
        classes=found.classes,
        look=look,
        level=level,
        procedure=procedure,
        slices=tuple(one.name for one in found.sliced),
        draws=bootstrap.draws() if bootstrap.are_drawn([row.metric for row in rows if row.metric]) else None,
        rows=tuple(rows),
        sentence=_sentence(rows, found.metric),
    )


def _untested_row(found: Case, number: int, name: str, last: str, level: float) -> EvidenceRow:
    return _row(name, found.answers[number], level=level, outcome="not tested", reason=family.ended_by(last))


def _baseline_row(found: Case, name: str, level: float, measured: Measured) -> EvidenceRow:
    baseline = found.answers[0]
    same = accuracy.compare("test", baseline, baseline, found.classes, level, found.groups)
    return _row(
        name,
        baseline,
        level=level,
        accuracy=accuracy.of_itself(same),
        metric=measured.of(0, level, same),
        outcome="baseline",
        reason="what the candidates are compared with",
    )


def _judged(found: Case, number: int, name: str, budget: Budget, level: float, measured: Measured) -> EvidenceRow:
    """A candidate whose turn it is, at this one-sided level."""
    baseline, answers = found.answers[0], found.answers[number]
    result = accuracy.compare("test", baseline, answers, found.classes, level, found.groups)
    metric = measured.of(number, level, result)
    decision = decide.drop(result, budget, level, metric)
    outcome, reason = decide.together([decision])
    columns = (slices.classes(baseline.labels, found.classes), *found.sliced)
    lost = np.flatnonzero((baseline.predicted == baseline.labels) & (answers.predicted != answers.labels))
    flips = [
        Flip(
            item=str(answers.items[row]),
            label=found.classes[answers.labels[row]],
            answer=found.classes[answers.predicted[row]],
        )
        for row in lost[:FLIPS]
    ]
    return _row(
        name,
        answers,
        level=level,
        accuracy=result,
        metric=metric,
        slices=slices.compare(baseline, answers, columns, level, found.groups),
        decision=decision,
        outcome=outcome,
        reason=reason,
        images_needed=decide.images_needed(result, budget, level, metric) if outcome == "undecided" else None,
        lost=tuple(flips),
    )


def _row(name: str, answers: Answers, **found: Any) -> EvidenceRow:
    told = answers.told
    return EvidenceRow(name=name, file=str(told.path), sha256=told.sha256, answers_id=answers.id, **found)


def _sentence(rows: Sequence[EvidenceRow], metric: Metric) -> str:
    """The answer that a manager can read."""
    said = []
    for row in rows[1:]:
        sure = f"{100 * row.level:.4g} % confidence"
        if row.outcome == "pass":
            said.append(f"'{row.name}' passes: {row.reason} ({sure}).")
        elif row.outcome == "fail":
            said.append(f"'{row.name}' fails: {row.reason} ({sure}).")
        elif row.outcome == "undecided":
            said.append(f"Cannot tell yet of '{row.name}' ({sure}): {row.reason}.")
    what = "accuracy" if metric == "top1" else METRICS[metric]
    return " ".join([*said, f"{what[0].upper()}{what[1:]} alone was judged: stored answers say nothing of speed."])
