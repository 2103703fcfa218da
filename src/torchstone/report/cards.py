"""A card for each candidate: how it was made and at what cost, what changed, what it now gets wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torchstone.core import registry
from torchstone.core.run import Run
from torchstone.core.values import Artifact, Candidate, Catalog, Part
from torchstone.core.verdict import CandidateVerdict, Verdict
from torchstone.judge import pareto
from torchstone.report import making, mistakes, wording
from torchstone.report.errors import Picture, comparison_of, pictures_of
from torchstone.report.making import Making, Network

LOST = 5
"""Pictures of images that a candidate lost."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """One thing that can be said of both models. ``after`` is None where it stayed."""

    what: str
    before: str
    after: str | None


@dataclass(frozen=True, kw_only=True)
class Lost:
    """Images that the baseline has right and the candidate gets wrong."""

    part: Part
    images: int
    """Of the part."""
    lost: int
    pictures: list[Picture]
    """The first few of them, the most confident mistake first."""
    note: str | None


@dataclass(frozen=True, kw_only=True)
class Card:
    """What the verdict's row does not say."""

    making: Making | None
    changes: list[Change]
    lost: Lost | None
    beaten_by: str | None
    """Name of a candidate that is as good, as fast and as small, or better; None: it is on the front."""
    on_front: bool


def cards_of(run: Run, candidates: Sequence[Candidate], catalog: Catalog, verdict: Verdict) -> dict[str, Card]:
    """By the candidates' ids, all but the baseline's."""
    by_id = {candidate.id: candidate for candidate in candidates}
    baseline = by_id.get(verdict.rows[0].candidate_id)
    if baseline is None:
        return {}
    beaten = front_of(verdict)
    networks: dict[str, Network | None] = {}
    found = {}
    for row in verdict.rows[1:]:
        one = by_id.get(row.candidate_id)
        if one is None:
            continue
        found[one.id] = Card(
            making=making.making_of(one.artifact, baseline.artifact),
            changes=_changes(baseline, one, verdict.rows[0], row, networks),
            lost=_lost(run, candidates, catalog, row, verdict),
            beaten_by=beaten.get(one.id),
            on_front=one.id in beaten and beaten[one.id] is None,
        )
    return found


def front_of(verdict: Verdict) -> dict[str, str | None]:
    """Of each row with an accuracy and a speed, by its id: None where it is on the Pareto front of speed, size and what
    is lost of the metric that the margin is about, else the name of the fastest row that is as good in all three and
    better in one. By what was measured: a difference within the bounds may be chance."""

    def losses(row: CandidateVerdict) -> tuple[float, float, float] | None:
        if row.outcome == "baseline":
            return 0.0, -1.0, row.size_mb
        measured = verdict.metric(row)
        if measured is None or row.speed is None:
            return None
        return measured.difference, -row.speed.ratio, row.size_mb

    known = [(row, found) for row in verdict.rows if (found := losses(row)) is not None]
    costs = [found for _, found in known]
    beaten: dict[str, str | None] = {}
    for place, (row, _) in enumerate(known):
        better = (known[other] for other in pareto.beaten_by(costs, place))
        fastest = min(better, key=lambda other: other[1][1], default=None)
        beaten[row.candidate_id] = fastest[0].name if fastest else None
    return beaten


def _changes(
    baseline: Candidate,
    candidate: Candidate,
    was: CandidateVerdict,
    now: CandidateVerdict,
    networks: dict[str, Network | None],
) -> list[Change]:
    """Parameters, multiplications, arithmetic, images, size and runtime, those first that are the network's own."""
    old, new = baseline.artifact, candidate.artifact
    changes = []
    before, after = _network(old, networks), _network(new, networks)
    if before is not None and after is not None:
        changes += [
            _ratio("Parameters", before.parameters, after.parameters),
            _ratio("MACs of an image", before.macs, after.macs),
        ]
    if old.architecture != new.architecture:
        changes.append(_change("Network", old.architecture, new.architecture))
    stored = [_shares(making.weights_of(artifact)) for artifact in (old, new)]
    if all(stored):
        changes.append(_change("Weights stored in", *stored))
    changes.append(_change("Arithmetic", *(_arithmetic(one) for one in (baseline, candidate))))
    sides = [f"{one.preprocess.crop} × {one.preprocess.crop} pixels" for one in (old, new)]
    changes.append(_change("Images", *sides))
    if old.preprocess.decoder != new.preprocess.decoder:
        changes.append(_change("Decoder", old.preprocess.decoder, new.preprocess.decoder))
    share = f" ({wording.fixed(100 * now.size_mb / was.size_mb, 0)} %)" if was.size_mb else ""
    sizes = [f"{wording.megabytes(row.size_mb)} MB" for row in (was, now)]
    changes.append(Change(what="Size", before=sizes[0], after=sizes[1] + share))
    changes.append(_change("Runtime", *(_runtime(one) for one in (baseline, candidate))))
    return changes


def _change(what: str, before: str, after: str) -> Change:
    return Change(what=what, before=before, after=None if before == after else after)


def _ratio(what: str, before: int, after: int) -> Change:
    """Both counts, and what stayed."""
    if before == after:
        return Change(what=what, before=wording.counted(before), after=None)
    share = f" ({wording.fixed(100 * after / before, 0)} %)"
    return Change(what=what, before=wording.counted(before), after=wording.counted(after) + share)


def _network(artifact: Artifact, known: dict[str, Network | None]) -> Network | None:
    source = making.source_of(artifact)
    if source is None:
        return None
    if source.key not in known:
        known[source.key] = making.network_of(source)
    return known[source.key]


def _shares(weights: Mapping[str, float]) -> str:
    """``INT8 (99 %), FP32``: the types that hold at least half a per cent, the share of the first."""
    names = [name for name, share in weights.items() if share >= 0.005]
    if len(names) < 2:
        return "".join(names)
    return f"{names[0]} ({100 * weights[names[0]]:.0f} %), {', '.join(names[1:])}"


def _runtime(candidate: Candidate) -> str:
    return f"{candidate.runtime}, {wording.plural(candidate.options.threads, 'thread')}"


def _arithmetic(candidate: Candidate) -> str:
    """What its layers compute in."""
    floating = {"f32": "FP32", "bf16": "BF16"}[candidate.options.precision]
    known = set(registry.steps.names())
    integers = any(registry.steps.get(step).integers for step in candidate.artifact.steps if step in known)
    return f"INT8, else {floating}" if integers else floating


def _lost(
    run: Run, candidates: Sequence[Candidate], catalog: Catalog, row: CandidateVerdict, verdict: Verdict
) -> Lost | None:
    """None where the answers are not stored."""
    comparison = comparison_of(run, candidates, row, verdict)
    if comparison is None:
        return None
    subject, baseline = comparison.subject, comparison.baseline
    lost = int((baseline.right & ~subject.right).sum())
    shown, note = pictures_of(mistakes.worst(comparison, min(LOST, lost)), catalog, candidates[0].artifact.preprocess)
    return Lost(part=comparison.part, images=len(subject.items), lost=lost, pictures=shown, note=note)
