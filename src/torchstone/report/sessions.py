"""The section on the timing session: the A/A control and the quartets of every judged candidate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from torchstone.core import tables
from torchstone.core.errors import ArtifactError
from torchstone.core.run import Run
from torchstone.core.values import Candidate
from torchstone.core.verdict import CandidateVerdict, ControlResult, SpeedResult, Verdict
from torchstone.judge import speed
from torchstone.report import figures


@dataclass(frozen=True, kw_only=True)
class Strip:
    """The quartets of one comparison at batch 1."""

    title: str
    against: str
    quartets: int
    figure: str
    row: CandidateVerdict | None


@dataclass(frozen=True, kw_only=True)
class Session:
    """What was measured side by side."""

    control: ControlResult | None
    strips: list[Strip]


def session_of(run: Run, candidates: Sequence[Candidate], verdict: Verdict) -> Session | None:
    """The judged session; None where there is neither a control nor any timing."""
    by_id = {candidate.id: candidate for candidate in candidates}
    strips: list[Strip] = []
    baseline = by_id.get(verdict.rows[0].candidate_id)
    if baseline is not None and verdict.control is not None:
        ratios = quartet_ratios(run.timings(baseline), baseline.id)
        strips += [_control(ratios, baseline.name)] if ratios else []
    for number, candidate_id in enumerate(verdict.shortlist):
        row, candidate = verdict.row(candidate_id), by_id.get(candidate_id)
        if candidate is None or row.speed is None:
            continue
        ratios = quartet_ratios(run.timings(candidate), row.speed.rival_id)
        needed = verdict.budget.min_speedup
        strips += [_judged(ratios, row, row.speed, needed, f"quartets{number}")] if ratios else []
    return Session(control=verdict.control, strips=strips) if strips or verdict.control else None


def quartet_ratios(path: Path, rival: str) -> list[float]:
    """How many times faster than ``rival`` in each judged quartet at batch 1, in the order of measurement; empty where
    nothing is stored."""
    try:
        table, _ = tables.read(path)
        return np.exp(speed.quartets(table, "judged", rival).log_ratios).tolist()
    except ArtifactError:
        return []


def _control(ratios: list[float], baseline: str) -> Strip:
    figure = figures.quartets(ratios, None, None, "control", f"{len(ratios)} quartets of the A/A control")
    return Strip(
        title="A/A control", against=f"{baseline} against itself", quartets=len(ratios), figure=figure, row=None
    )


def _judged(ratios: list[float], row: CandidateVerdict, result: SpeedResult, needed: float | None, name: str) -> Strip:
    figure = figures.quartets(ratios, result.lower, needed, name, f"{len(ratios)} quartets of {row.name}")
    return Strip(title=row.name, against=f"against {result.rival}", quartets=len(ratios), figure=figure, row=row)
