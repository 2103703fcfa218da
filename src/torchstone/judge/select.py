"""Who may meet the test set: at most three, chosen on val and screening timings alone, in a fixed order.

The order runs from the safest to the boldest, and each is tested at full α until the first that does not pass. So a
place is worth something, and is given to those that can win: what cannot is left out by its bound, not by noise; what
is likely to miss the budget gets only the places that remain. Of the rest, the Pareto front of safety and speed
supplies the safest, the fastest and one between, and that one is the fastest free rival, which any compression has to
beat before it is worth anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal

from torchstone.core.errors import ArtifactError
from torchstone.core.run import Run
from torchstone.core.values import METRICS, Budget, Candidate
from torchstone.core.verdict import AccuracyResult, LatencyResult, MetricResult, Procedure, SpeedResult
from torchstone.judge import accuracy, bootstrap, decide, pareto, speed
from torchstone.judge.evidence import Evidence
from torchstone.judge.speed import Quartets

MOST = 3
"""Candidates that may meet the test set in one look."""
SCREENING_LEVEL = 0.9
"""One-sided level of the bounds of the screening's times, low enough that four quartets give one."""
NEAR = 0.8
"""Of the fastest's speed: on a busy machine, screening ratios of a few quartets are each off by 5 to 10 %."""


@dataclass(frozen=True, kw_only=True)
class Shortlist:
    """Candidate ids from the safest to the boldest; ``left_out`` says of each other candidate why it is not tested."""

    order: tuple[str, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)
    free_rival: str | None = None
    """A candidate that costs nothing, beside which the others are timed as well: what a compression must beat. Chosen
    on val, it is the fastest of those that look as if they met the budget (of all, where none does); named, the first
    that is free."""
    selection: Literal["val", "named"] = "val"
    procedure: Procedure = "fixed-order"
    """In which order and at which levels they are tested (``Verdict.procedure``)."""


@dataclass(frozen=True, kw_only=True)
class Screened:
    """What val and the screening session say of one candidate."""

    candidate: Candidate
    accuracy: MetricResult
    """In the metric that the margin is about, with both bounds."""
    speed: SpeedResult
    latency: LatencyResult
    risk: float
    """Bound of the drop on val in that metric, as a fraction; the smaller the safer. The unchanged weights in FP32 have
    none, and a net gain counts as none: one image won by luck must not make a model safer than one that never
    differs."""
    noise: str | None = None
    """Why its times cannot be trusted; None: they can, or nobody asked the clock about itself."""

    @property
    def at_most(self) -> float:
        """Times as fast as the baseline: the upper bound."""
        return self.speed.ratio if self.speed.upper is None else self.speed.upper

    def beats(self, other: Screened) -> bool:
        """Pareto: as safe and as fast, and better in one of them.

        Size does not count here. It is known exactly, so that what is larger than wished for is out already; of the
        rest the fastest that passes is shipped, and one that is smaller yet and slower cannot win."""
        return pareto.beats((self.risk, -self.speed.ratio), (other.risk, -other.speed.ratio))


def front(found: Sequence[Screened]) -> list[Screened]:
    """Those that no other one beats in safety, speed and size together, the fastest first: what there is to choose
    from for who has other wishes than the budget says."""
    kept = pareto.front([(one.risk, -one.speed.ratio, one.candidate.artifact.size_mb) for one in found])
    return sorted((found[place] for place in kept), key=lambda one: -one.speed.ratio)


@dataclass(frozen=True)
class Doubt:
    """Why a candidate may miss the budget. ``impossible``: even the favourable bound misses it."""

    kind: Literal["drop", "cost"]
    impossible: bool
    reason: str


def shortlist(
    run: Run, candidates: Sequence[Candidate], budget: Budget, noisy: Mapping[str, str] = MappingProxyType({})
) -> Shortlist:
    """At most three of ``candidates[1:]`` against the baseline ``candidates[0]``; the test part is never touched.

    ``noisy`` says, by id, why the times of a candidate cannot be trusted, where they were noted in a session whose
    control is not kept any more.
    Bounds of the drop on val are taken at the budget's confidence: they order and exclude, and claim nothing.
    """
    left_out: dict[str, str] = {}
    likely: list[Screened] = []
    unlikely: list[tuple[Screened, Doubt]] = []
    for candidate, seen in screen(Evidence(run), candidates, budget):
        if isinstance(seen, str):
            left_out[candidate.id] = seen
            continue
        screened = replace(seen, noise=seen.noise or noisy.get(candidate.id))
        found = doubt(screened, budget)
        if found is None:
            likely.append(screened)
        elif found.impossible:
            left_out[candidate.id] = found.reason
        else:
            unlikely.append((screened, found))
    pool = likely or [screened for screened, _ in unlikely]
    rival = max((one for one in pool if one.candidate.free), key=lambda one: one.speed.ratio, default=None)
    chosen = sorted(_choose(pool, rival), key=lambda one: (one.risk, not one.candidate.free, one.speed.ratio))
    _use_spare_places(chosen, pool, [one for one, why in unlikely if likely and why.kind == "drop"])
    taken = {one.candidate.id for one in chosen}
    left_out |= {one.candidate.id: _beaten(one, pool) for one in pool if one.candidate.id not in taken}
    left_out |= {one.candidate.id: why.reason for one, why in unlikely if likely and one.candidate.id not in taken}
    return Shortlist(
        order=tuple(one.candidate.id for one in chosen),
        left_out=left_out,
        free_rival=None if rival is None else rival.candidate.id,
    )


def named(
    candidates: Sequence[Candidate],
    order: Sequence[str],
    procedure: Procedure = "fixed-order",
    left_out: Mapping[str, str] = MappingProxyType({}),
) -> Shortlist:
    """A shortlist that the user named: these ids, in this order, whatever val and screening say of them. The rival that
    costs nothing is the first free one of them. ``left_out`` says by id why another one was named in vain."""
    free = (key for key in order for one in candidates if one.id == key and one.free)
    others = [one.id for one in candidates[1:] if one.id not in order]
    return Shortlist(
        order=tuple(order),
        left_out={key: left_out.get(key, "it was not named") for key in others},
        free_rival=next(free, None),
        selection="named",
        procedure=procedure,
    )


def oversized(candidates: Sequence[Candidate], budget: Budget) -> dict[str, str]:
    """Id of each of ``candidates[1:]`` whose files alone miss the budget: why. Sizes are exact and known beforehand, so
    that none of these needs a look at the test set."""
    if budget.max_size_mb is None:
        return {}
    found = {one.id: decide.size(one.artifact.size_mb, budget.max_size_mb) for one in candidates[1:]}
    return {key: decision.reason for key, decision in found.items() if decision.outcome == "fail"}


def same_runtime_rival(candidates: Sequence[Candidate], candidate: Candidate) -> Candidate | None:
    """The unchanged weights in f32 in the candidate's own runtime and threads, on as many pixels as the baseline: tells
    the gain of a compression from that of a runtime. None when there is no such candidate, or when it is this one."""
    for rival in (candidates[0], *(other for other in candidates[1:] if other.free)):
        same = rival.runtime == candidate.runtime and rival.options == candidate.options.model_copy(
            update={"precision": "f32"}
        )
        as_much_work = (rival.artifact.preprocess.crop, rival.artifact.mirrored) == (
            candidates[0].artifact.preprocess.crop, candidates[0].artifact.mirrored,
        )  # fmt: skip
        if same and as_much_work and rival.artifact.precision == "f32":
            return None if rival.id == candidate.id else rival
    return None


def screen(
    evidence: Evidence, candidates: Sequence[Candidate], budget: Budget
) -> list[tuple[Candidate, Screened | str]]:
    """Each candidate with its screening, or with the reason why it has none."""
    baseline = candidates[0]
    truth = evidence.predictions(baseline, "val")
    if truth is None:
        raise ArtifactError(
            f"the baseline '{baseline.name}' has no val predictions", hint="type the command that makes them again"
        )
    groups, level = evidence.groups(truth.items), budget.confidence
    own = evidence.timings(baseline)
    control = None if own is None else speed.quartets(own, "screening", baseline.id)
    found: list[tuple[Candidate, Screened | str]] = []
    for candidate in candidates[1:]:
        answers, table = evidence.predictions(candidate, "val"), evidence.timings(candidate)
        if answers is None:
            found.append((candidate, "it has no val predictions"))
            continue
        measured = None if table is None else speed.quartets(table, "screening", baseline.id)
        if measured is None or not len(measured):
            found.append((candidate, "it was not timed"))
            continue
        ratio = speed.compare(measured, baseline.name, baseline.id, SCREENING_LEVEL)
        latency = speed.latency(measured.candidate, SCREENING_LEVEL)
        noise = _noise(control, measured)
        assert ratio is not None
        assert latency is not None
        result = accuracy.compare("val", truth, answers, baseline.artifact.classes, level, groups)
        measured = bootstrap.top1(result)
        if budget.metric != "top1":
            every = bootstrap.compare(truth, answers, groups, only=budget.metric).at(level, result)
            measured = next((one for one in every if one.name == budget.metric and one.upper is not None), None)
        if measured is None:
            found.append((candidate, f"val does not bound its {METRICS[budget.metric]}"))
            continue
        risk = 0.0 if candidate.repeats(baseline) else _risk(result, measured, level)
        screened = Screened(
            candidate=candidate, accuracy=measured, speed=ratio, latency=latency, risk=risk,
            noise=noise,
        )  # fmt: skip
        found.append((candidate, screened))
    return found


def _noise(control: Quartets | None, measured: Quartets) -> str | None:
    """Why the session of these quartets cannot be trusted; None where it can, or where the ``control`` is that of
    another session: only the last one's is kept."""
    if control is None or control.sessions != measured.sessions:
        return None
    found = speed.control(control)
    return None if found is None or found.outcome == "clean" else found.reason


def _risk(result: AccuracyResult, measured: MetricResult, level: float) -> float:
    """The bound of the drop on val without credit for a gain."""
    if measured.name != "top1":
        return ((measured.upper or 0.0) - min(measured.difference, 0.0)) / 100
    uncredited = min(max(result.lost, result.gained), result.images - result.gained)
    effect = result.design_effect
    return accuracy.upper_bound(uncredited / effect, result.gained / effect, result.images / effect, level)


def doubt(one: Screened, budget: Budget) -> Doubt | None:
    """The gravest reason to expect that the budget is missed; None when everything looks well."""
    doubts = _costs(one, budget)
    result = one.accuracy
    if result.difference > budget.max_drop:
        least = result.lower or 0.0
        said = f"{decide.lost(result, result.difference, 1)} on val (at least {least:.1f}), {budget.max_drop:g} allowed"
        doubts.append(Doubt("drop", least > budget.max_drop, said))
    return _gravest(doubts)


def out_of_reach(one: Screened, budget: Budget) -> str | None:
    """Why nothing of this shape can meet the budget, whatever its accuracy; None: something may."""
    cost = _gravest(_costs(one, budget))
    return cost.reason if cost is not None and cost.impossible else None


def _costs(one: Screened, budget: Budget) -> list[Doubt]:
    """That it is too slow or too large. A noisy clock raises a doubt, and rules nothing out."""
    ratio, latency = one.speed, one.latency
    doubts: list[Doubt] = []
    if budget.max_size_mb is not None:
        size = decide.size(one.candidate.artifact.size_mb, budget.max_size_mb)
        if size.outcome == "fail":
            doubts.append(Doubt("cost", True, size.reason))
    trusted = one.noise is None
    # Without a wish for speed or size, what is slower than the baseline has nothing to offer.
    wished = budget.min_speedup or (1.0 if budget.max_size_mb is None else None)
    if wished is not None and ratio.ratio < wished:
        asked = f"{wished:g}× asked" if budget.min_speedup else "slower than the baseline"
        said = f"{ratio.ratio:.2f}× in screening, {asked}"
        doubts.append(Doubt("cost", trusted and ratio.upper is not None and ratio.upper < wished, said))
    limit = budget.max_latency_ms
    if limit is not None and latency.median_ms > limit:
        said = f"{latency.median_ms:.2f} ms in screening, {limit:g} ms allowed"
        doubts.append(Doubt("cost", trusted and latency.lower_ms is not None and latency.lower_ms > limit, said))
    return doubts


def _gravest(doubts: Sequence[Doubt]) -> Doubt | None:
    return max(doubts, key=lambda doubt: (doubt.impossible, doubt.kind == "cost"), default=None)


def _choose(pool: Sequence[Screened], rival: Screened | None) -> list[Screened]:
    """The safest and the fastest of the Pareto front, and one between: the free rival, else the front's middle."""
    kept = pareto.front([(one.risk, -one.speed.ratio) for one in pool])
    best = sorted((pool[place] for place in kept), key=lambda one: one.risk)
    if not best:
        return []
    between = ([rival] if rival is not None else []) + [best[len(best) // 2], *best]
    chosen: list[Screened] = []
    for one in (best[0], best[-1], *between):
        if len(chosen) < MOST and one not in chosen:
            chosen.append(one)
    return chosen


def _use_spare_places(chosen: list[Screened], pool: Sequence[Screened], bold: Sequence[Screened]) -> None:
    """Whoever comes last in the order can harm nobody, so a place that is left goes to a long shot.

    First to the fastest of the ``bold``, if it is faster than all others: a drop that looks too large on a small val
    set may be noise. (One that looks too slow gets no place: it would come early, fail, and end the look.) Then to
    compressions that screening can hardly tell from the fastest, so that 'not worth compressing' is said after a test.
    """
    if not chosen:
        return
    fastest = max(one.speed.ratio for one in chosen)
    faster = [max(bold, key=lambda one: one.speed.ratio)] if bold else []
    spare = [one for one in faster if one.speed.ratio > fastest]
    near = [one for one in pool if one not in chosen and not one.candidate.free and one.speed.ratio >= NEAR * fastest]
    spare += sorted(near, key=lambda one: -one.speed.ratio)
    chosen += spare[: MOST - len(chosen)]


def _beaten(one: Screened, pool: Sequence[Screened]) -> str:
    """Why a candidate that looks well is not among the three."""
    better = [other for other in pool if other.beats(one)]
    if not better:
        return f"only {MOST} may meet the test set, and others promise more"
    best = max(better, key=lambda other: other.speed.ratio)
    return (
        f"'{best.candidate.name}' is as safe on val or safer, and as fast or faster "
        f"({best.speed.ratio:.1f}× against {one.speed.ratio:.1f}×)"
    )
