"""The verdict, from stored evidence alone: nothing is run here, and the same files give the same verdict.

The shortlist meets the test set in its order, each candidate at the full level, until the first that does not pass.
A set without an order meets it whole, at levels split by Holm. The caller predicts only what is asked for, one at a
time:

    evidence = Evidence(run)
    verdict = judge(run, candidates, shortlist, budget, look, evidence=evidence)
    while (candidate_id := next_to_test(verdict)) is not None:
        predict(...)  # on test, into run.predictions(candidate, "test")
        verdict = judge(run, candidates, shortlist, budget, look, evidence=evidence)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchstone.core.errors import ArtifactError
from torchstone.core.run import Run
from torchstone.core.values import Budget, Candidate, Part
from torchstone.core.verdict import (
    AccuracyResult,
    CandidateVerdict,
    ControlResult,
    Decision,
    MetricResult,
    Portrait,
    SliceResult,
    Verdict,
)
from torchstone.evaluate.predict import Predictions
from torchstone.judge import accuracy, bootstrap, decide, family, ledger, portrait, select, slices, speed, times, winner
from torchstone.judge.evidence import Evidence
from torchstone.judge.select import Shortlist

NOT_PREDICTED = "it has not met the test set yet"


@dataclass(frozen=True)
class _Shared:
    """What the catalog says of the images of a part: their groups, and the columns to slice by."""

    groups: NDArray[np.int64] | None
    columns: tuple[slices.Column, ...]


@dataclass(frozen=True, kw_only=True)
class _Case:
    """All that the rows are made of."""

    evidence: Evidence
    candidates: Sequence[Candidate]
    shortlist: Shortlist
    budget: Budget
    level: float
    control: ControlResult | None
    control_sessions: frozenset[str]
    columns: tuple[str, ...]
    drawn: Mapping[str, CandidateVerdict] | None
    """Rows by candidate id whose drawn bounds are taken as they are; None: they are drawn."""
    shared: dict[Part, _Shared] = field(default_factory=dict)

    @property
    def baseline(self) -> Candidate:
        return self.candidates[0]


def judge(
    run: Run,
    candidates: Sequence[Candidate],
    shortlist: Shortlist,
    budget: Budget,
    look: int,
    columns: Sequence[str] = (),
    *,
    drawn: Sequence[CandidateVerdict] | None = None,
    evidence: Evidence | None = None,
) -> Verdict:
    """The verdict on ``candidates``, the baseline first, at this ``look`` at the test set.

    ``shortlist`` comes from ``select.shortlist`` or ``select.named``, ``look`` from ``ledger.look``; ``columns`` are
    those of the catalog to slice by, beside the class. Candidates whose test predictions do not exist yet stay 'not
    tested'. ``drawn`` are rows whose bootstrap bounds are taken as they are, where they cannot be drawn again. Who asks
    again gives the same ``evidence``, so that what was read is not read again, nor drawn again what was drawn. Raises
    an ArtifactError when evidence is missing, damaged, or not of these candidates and this split.
    """
    level = ledger.level(budget.confidence, look)
    case = _case(evidence or Evidence(run), candidates, shortlist, budget, level, tuple(columns), drawn)
    rows = [_baseline_row(case), *_candidate_rows(case)]
    chosen = winner.choose(rows, case.control, budget)
    partial = Verdict(
        budget=budget,
        test_fingerprint=case.evidence.split.test_fingerprint,
        test_images=case.evidence.split.sizes["test"],
        look=look,
        level=case.level,
        procedure=shortlist.procedure,
        slices=case.columns,
        control=case.control,
        draws=bootstrap.draws() if any(bootstrap.are_drawn(row.metrics) for row in rows) else None,
        rows=tuple(rows),
        shortlist=shortlist.order,
        selection=shortlist.selection,
        free_rival=shortlist.free_rival,
        winner=chosen.winner,
        worth_compressing=chosen.worth_compressing,
        sentence="",
        evidence=dict(sorted(case.evidence.digests.items())),
    )
    return partial.model_copy(update={"sentence": winner.sentence(partial)})


def next_to_test(verdict: Verdict) -> str | None:
    """Id of the candidate whose test predictions are needed next (the baseline's first); None when the look is over."""
    tested = {row.candidate_id: row for row in verdict.rows[1:]}
    for candidate_id in verdict.shortlist:
        row = tested[candidate_id]
        if row.outcome == "not tested":
            baseline = verdict.rows[0]
            met = baseline.accuracy is not None and baseline.accuracy.part == "test"
            return candidate_id if met else baseline.candidate_id
        if row.outcome != "pass" and verdict.procedure == "fixed-order":
            return None
    return None


def _case(
    evidence: Evidence,
    candidates: Sequence[Candidate],
    shortlist: Shortlist,
    budget: Budget,
    level: float,
    columns: tuple[str, ...],
    drawn: Sequence[CandidateVerdict] | None,
) -> _Case:
    unknown = {*shortlist.order, shortlist.free_rival or candidates[0].id} - {one.id for one in candidates}
    if unknown:
        raise ArtifactError(
            f"the shortlist names {', '.join(sorted(unknown))}, which is no candidate of this run",
            hint="type the command that judged it again",
        )
    for candidate in candidates:
        evidence.artifact(candidate)
        evidence.predictions(candidate, "val")  # the shortlist came from these, whether a row shows them or not
    baseline = candidates[0]
    # With nobody to time, a judged session that is there belongs to an earlier verdict.
    table = evidence.timings(baseline) if shortlist.order else None
    measured = None if table is None else speed.quartets(table, "judged", baseline.id)
    return _Case(
        evidence=evidence,
        candidates=candidates,
        shortlist=shortlist,
        budget=budget,
        level=level,
        control=None if measured is None else speed.control(measured),
        control_sessions=frozenset() if measured is None else measured.sessions,
        columns=columns,
        drawn=None if drawn is None else {row.candidate_id: row for row in drawn},
    )


def _baseline_row(case: _Case) -> CandidateVerdict:
    part: Part = "test"
    if not case.shortlist.order or case.evidence.predictions(case.baseline, "test") is None:
        part = "val"
    table = case.evidence.timings(case.baseline)
    result = _accuracy(case, case.baseline, part, case.level)
    latency = times.latency(table, "judged", case.level) if case.shortlist.order else None
    if case.control is None or case.control.outcome != "clean":
        latency = times.without_bounds(latency)
    return _row(
        case.baseline,
        shortlisted=False,
        level=case.level,
        accuracy=None if result is None else accuracy.of_itself(result),
        metrics=_metrics(case, case.baseline, part, case.level, None),
        portrait=_portrait(case, case.baseline, case.level),
        latency=latency
        or times.unclaimed_baseline([case.evidence.timings(one) for one in case.candidates[1:]], case.baseline),
        throughput=None if table is None else speed.throughput(table),
        outcome="baseline",
        reason="what the candidates are compared with",
    )


def _candidate_rows(case: _Case) -> list[CandidateVerdict]:
    """Rows in the order of the candidates; the shortlisted ones are judged by their procedure."""
    by_id = {candidate.id: candidate for candidate in case.candidates[1:]}
    judged = family.judged(
        case.shortlist.procedure,
        case.shortlist.order,
        case.level,
        lambda candidate_id, level: _judged_row(case, by_id[candidate_id], level),
    )
    reasons = dict(case.shortlist.left_out)
    if len(judged) < len(case.shortlist.order):
        last = list(judged.values())[-1]
        why = f"'{last.name}' comes first" if last.outcome == "not tested" else family.ended_by(last.name)
        reasons |= dict.fromkeys(case.shortlist.order, why)
    return [
        judged.get(candidate.id)
        or _untested_row(
            case,
            candidate,
            reasons.get(candidate.id, "it was not shortlisted"),
            shortlisted=candidate.id in case.shortlist.order,
        )
        for candidate in case.candidates[1:]
    ]


def _judged_row(case: _Case, candidate: Candidate, level: float) -> CandidateVerdict:
    """A shortlisted candidate whose turn it is, at this one-sided level."""
    result = _accuracy(case, candidate, "test", level)
    if result is None:
        return _untested_row(case, candidate, NOT_PREDICTED, shortlisted=True)
    table, budget = case.evidence.timings(candidate), case.budget
    metrics = _metrics(case, candidate, "test", level, result)
    measured = next((one for one in metrics if one.name == budget.metric), None)
    clock = _clock(case, table)
    faster, latency = times.against(table, "judged", case.baseline, level), times.latency(table, "judged", level)
    decisions: list[Decision] = [decide.drop(result, budget, level, measured)]
    if budget.min_speedup is not None:
        decisions.append(decide.speedup(faster, budget.min_speedup, clock))
    if budget.max_latency_ms is not None:
        decisions.append(decide.latency(latency, budget.max_latency_ms, clock))
    if budget.max_size_mb is not None:
        decisions.append(decide.size(candidate.artifact.size_mb, budget.max_size_mb))
    outcome, reason = decide.together(decisions)
    rivals = {
        "speed": case.baseline,
        "same_runtime": select.same_runtime_rival(case.candidates, candidate),
        "free_rival": _free_rival(case, candidate),
    }
    speeds: dict[str, Any] = {name: times.against(table, "judged", rival, level) for name, rival in rivals.items()}
    if clock is None or clock.outcome != "clean":
        speeds = {name: times.without_bounds(found) for name, found in speeds.items()}
        latency = times.without_bounds(latency)
    return _row(
        candidate,
        shortlisted=True,
        level=level,
        accuracy=result,
        metrics=metrics,
        slices=_slices(case, candidate, level),
        portrait=_portrait(case, candidate, level),
        **{name: found or times.unclaimed_speed(table, rivals[name]) for name, found in speeds.items()},
        latency=latency or times.unclaimed_latency(table),
        throughput=None if table is None else speed.throughput(table),
        decisions=tuple(decisions),
        outcome=outcome,
        reason=reason,
        images_needed=decide.images_needed(result, budget, level, measured)
        if decisions[0].outcome == "undecided"
        else None,
    )


def _untested_row(case: _Case, candidate: Candidate, reason: str, *, shortlisted: bool = False) -> CandidateVerdict:
    """A candidate that does not meet the test set: val and screening describe it, without a claim about its speed."""
    table = case.evidence.timings(candidate)
    return _row(
        candidate,
        shortlisted=shortlisted,
        level=case.level,
        accuracy=_accuracy(case, candidate, "val", case.level),
        metrics=_metrics(case, candidate, "val", case.level, None),
        speed=times.unclaimed_speed(table, case.baseline),
        same_runtime=times.unclaimed_speed(table, select.same_runtime_rival(case.candidates, candidate)),
        free_rival=times.unclaimed_speed(table, _free_rival(case, candidate)),
        latency=times.unclaimed_latency(table),
        throughput=None if table is None else speed.throughput(table),
        outcome="not tested",
        reason=reason,
    )


def _portrait(case: _Case, candidate: Candidate, level: float) -> Portrait | None:
    found = case.evidence.portrait(candidate)
    return None if found is None else portrait.summarised(*found, level)


def _clock(case: _Case, table: Any) -> ControlResult | None:
    """The A/A control of the session in which a candidate was judged: a control speaks for no other session."""
    measured = None if table is None else speed.quartets(table, "judged", case.baseline.id)
    return case.control if measured is not None and measured.sessions <= case.control_sessions else None


def _row(candidate: Candidate, **found: Any) -> CandidateVerdict:
    return CandidateVerdict(
        candidate_id=candidate.id,
        slug=candidate.slug,
        name=candidate.name,
        runtime=candidate.runtime,
        options=candidate.options,
        free=candidate.free,
        size_mb=candidate.artifact.size_mb,
        **found,
    )


def _free_rival(case: _Case, candidate: Candidate) -> Candidate | None:
    """The free rival, seen from another candidate."""
    if case.shortlist.free_rival in (None, candidate.id):
        return None
    return next(one for one in case.candidates if one.id == case.shortlist.free_rival)


def _answers(case: _Case, candidate: Candidate, part: Part) -> tuple[Predictions, Predictions] | None:
    """The baseline's and the candidate's answers, where both are there."""
    truth = case.evidence.predictions(case.baseline, part)
    answers = None if truth is None else case.evidence.predictions(candidate, part)
    return None if truth is None or answers is None else (truth, answers)


def _accuracy(case: _Case, candidate: Candidate, part: Part, level: float) -> AccuracyResult | None:
    pair = _answers(case, candidate, part)
    if pair is None:
        return None
    return accuracy.compare(part, *pair, case.baseline.artifact.classes, level, _shared(case, part).groups)


def _metrics(
    case: _Case, candidate: Candidate, part: Part, level: float, result: AccuracyResult | None
) -> tuple[MetricResult, ...]:
    """All metrics; bounded by ``result``'s evidence where there is one, and claiming nothing without."""
    pair = _answers(case, candidate, part)
    plain = result or _accuracy(case, candidate, part, level)
    if pair is None or plain is None:
        return ()
    groups = _shared(case, part).groups
    if result is None:
        return bootstrap.compare(*pair, groups, resamples=None).at(level, plain)
    if case.drawn is not None:
        row = case.drawn.get(candidate.id)
        found = bootstrap.compare(*pair, groups, resamples=None).at(level, plain)[1:]
        stored = () if row is None or not math.isclose(row.level, level) else row.metrics
        return bootstrap.top1(result), *bootstrap.as_drawn(found, stored)
    drawn = case.evidence.drawn
    if candidate.id not in drawn:
        drawn[candidate.id] = bootstrap.compare(*pair, groups)
    return drawn[candidate.id].at(level, plain)


def _slices(case: _Case, candidate: Candidate, level: float) -> tuple[SliceResult, ...]:
    pair = _answers(case, candidate, "test")
    if pair is None:
        return ()
    shared = _shared(case, "test")
    every = (slices.classes(pair[0].labels, case.baseline.artifact.classes), *shared.columns)
    return slices.compare(*pair, every, level, shared.groups)


def _shared(case: _Case, part: Part) -> _Shared:
    """Read once for a part: all candidates answer the same images in the same order."""
    if part not in case.shared:
        truth = case.evidence.predictions(case.baseline, part)
        assert truth is not None  # who asks has the answers
        wanted = case.columns if part == "test" else ()
        case.shared[part] = _Shared(case.evidence.groups(truth.items), case.evidence.sliced(wanted, truth.items))
    return case.shared[part]
