"""What the template shows, gathered from a run directory: the verdict as it was stored, figures and pictures.

Nothing is judged again here. Evidence that is missing leaves its section out; the verdict and the candidates must be
there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from torchstone.core import files, tables
from torchstone.core.environment import Environment, computes
from torchstone.core.errors import ArtifactError
from torchstone.core.run import Run
from torchstone.core.values import METRICS, Catalog, Finding, Metric, Split
from torchstone.core.verdict import CandidateVerdict, Verdict
from torchstone.judge import decide
from torchstone.report import columns, figures, wording
from torchstone.report.cards import Card, cards_of, front_of
from torchstone.report.columns import Column
from torchstone.report.errors import Errors, errors_of
from torchstone.report.sessions import Session, session_of
from torchstone.report.training import Training, trainings_of

UNTOLD = ("schema_version", "packages", "contents")
"""Fields of the environment that a table of the machine leaves out."""


@dataclass(frozen=True, kw_only=True)
class KeyNumber:
    """One of the winner's three numbers."""

    title: str
    value: str
    unit: str
    bound: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class Row:
    """One candidate of the verdict table, with the number that stands for it in the narrow figure."""

    number: int
    verdict: CandidateVerdict
    winner: bool

    @property
    def is_baseline(self) -> bool:
        return self.verdict.outcome == "baseline"


@dataclass(frozen=True, kw_only=True)
class Page:
    """All that the template reads."""

    run: str
    place: str
    """The run as one would type it."""
    verdict: Verdict
    rows: list[Row]
    winner: Row | None
    baseline: Row | None
    ms_digits: int
    key_numbers: list[KeyNumber]
    scatters: list[tuple[str, str]]
    """Accuracy against latency and against size, each for wide and for narrow pages."""
    front: list[Row]
    """Those that no other matches in accuracy, speed and size at once, by what was measured."""
    cards: dict[str, Card] = field(default_factory=dict)
    """By the candidates' ids."""
    trainings: list[Training] = field(default_factory=list)
    errors: Errors | None = None
    session: Session | None = None
    catalog: Catalog
    split: Split
    class_images: tuple[int, int]
    findings: list[Finding]
    environment: Environment | None
    not_built: list[tuple[str, str]]
    """Chains of the ladder, and why they were not tried."""
    unbeaten: list[dict[str, Any]] = field(default_factory=list)
    """What the ladder found on val that nothing else beat in safety, speed and size: name, ratio, size_mb."""

    @property
    def metrics(self) -> dict[Metric, str]:
        """What the metrics are called."""
        return METRICS

    @property
    def metric(self) -> str:
        """What the margin is about."""
        return METRICS[self.verdict.budget.metric]

    @property
    def columns(self) -> tuple[Column[CandidateVerdict], ...]:
        """Of the verdict's table."""
        return columns.of_verdict(self.verdict, ms_digits=self.ms_digits)

    @property
    def screened_mark(self) -> str | None:
        """Of the times in the table that are of screening; None where there are none."""
        return columns.SCREENED if columns.any_screened(self.verdict) else None

    @property
    def machine(self) -> list[tuple[str, str]]:
        """What is known of the machine, without what is installed: a name and its value."""
        known = {} if self.environment is None else self.environment.model_dump()
        words = {name: value for name, value in known.items() if name not in UNTOLD and value not in (None, (), {}, "")}
        return [(name.replace("_", " "), _in_words(value)) for name, value in words.items()]

    @property
    def packages(self) -> list[tuple[str, str]]:
        """Those that compute, and their versions."""
        installed = {} if self.environment is None else self.environment.packages
        return [(name, version) for name, version in installed.items() if computes(name)]

    @property
    def portrayed(self) -> list[Row]:
        """Those whose single calls were timed."""
        return [row for row in self.rows if row.verdict.portrait]

    @property
    def shortlist(self) -> list[Row]:
        """In the order in which they met the test set."""
        by_id = {row.verdict.candidate_id: row for row in self.rows}
        return [by_id[candidate_id] for candidate_id in self.verdict.shortlist if candidate_id in by_id]

    @property
    def carded(self) -> list[Row]:
        """Those that have a card: the shortlist in its order, then the others."""
        known = [row for row in self.rows if row.verdict.candidate_id in self.cards]
        return [row for row in self.shortlist if row in known] + [row for row in known if row not in self.shortlist]

    @property
    def sections(self) -> list[tuple[str, str]]:
        """Anchors and titles of the sections that this page has."""
        sections = [
            ("verdict", "Verdict", True),
            ("trade", "Trade-offs", bool(self.scatters)),
            ("candidates", "Candidates", bool(self.carded)),
            ("portraits", "In use", bool(self.portrayed)),
            ("errors", "Errors", self.errors is not None),
            ("training", "Training", bool(self.trainings)),
            ("timing", "Timing", self.session is not None),
            ("data", "Data", True),
            ("machine", "Machine", self.environment is not None),
            ("verify", "Verify", True),
        ]
        return [(anchor, title) for anchor, title, there in sections if there]


def gather(run: Run) -> Page:
    """Everything that the report of this run shows."""
    verdict = Verdict.load(run.verdict)
    candidates = run.load_candidates()
    catalog, split = run.catalog(), run.split()
    rows = [
        Row(number=number, verdict=row, winner=row.candidate_id == verdict.winner)
        for number, row in enumerate(verdict.rows, start=1)
    ]
    winner = next((row for row in rows if row.winner), None)
    baseline = next((row for row in rows if row.is_baseline), None)
    beaten = front_of(verdict)
    front = [row for row in rows if beaten.get(row.verdict.candidate_id, "") is None]
    ladder = files.read_json(run.ladder) if run.ladder.exists() else {}
    points, limits = _points(verdict, rows, front), _limits(verdict, baseline)
    return Page(
        run=run.name,
        place=_place(run),
        verdict=verdict,
        rows=rows,
        winner=winner,
        baseline=baseline,
        ms_digits=max((wording.decimals(row.latency.median_ms) for row in verdict.rows if row.latency), default=1),
        key_numbers=_key_numbers(winner.verdict, baseline, verdict) if winner else [],
        scatters=[
            (figures.scatter(points, limits, one), figures.scatter(points, limits, one, narrow=True))
            for one in (figures.AXIS if points else ())
        ],
        front=front,
        cards=cards_of(run, candidates, catalog, verdict),
        trainings=trainings_of(run, catalog),
        errors=errors_of(run, candidates, catalog, verdict),
        session=session_of(run, candidates, verdict),
        catalog=catalog,
        split=split,
        class_images=_class_images(catalog),
        findings=_findings(run.findings),
        environment=Environment.load(run.environment) if run.environment.exists() else None,
        not_built=[(chain, rung["why_not"]) for chain, rung in ladder.get("rungs", {}).items() if rung["why_not"]],
        unbeaten=ladder.get("front", []),
    )


def _in_words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}={one}" for name, one in value.items())
    return ", ".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)


def _place(run: Run) -> str:
    """The run as one would type it beside the folder of runs."""
    return f"{run.root.resolve().parent.name}/{run.name}"


def _key_numbers(winner: CandidateVerdict, baseline: Row | None, verdict: Verdict) -> list[KeyNumber]:
    """Accuracy, speed and size of the chosen candidate; what was not measured is left out."""
    numbers = []
    accuracy, measured = winner.accuracy, verdict.metric(winner)
    if accuracy and measured:
        before, now = (wording.per_cent(value) for value in (measured.baseline, measured.value))
        numbers.append(
            KeyNumber(
                title=wording.capital(wording.change_of(measured.name)),
                value=wording.signed(-measured.difference),
                unit="points",
                bound=f"{decide.at_most(measured)}; {verdict.budget.max_drop:g} allowed",
                detail=f"{now} % instead of {before} % on {wording.count(accuracy.images)} {accuracy.part} images",
            )
        )
    latency = winner.latency
    if winner.speed:
        before = baseline.verdict.latency if baseline else None
        numbers.append(
            KeyNumber(
                title="Faster at batch 1",
                value=wording.times(winner.speed.ratio).removesuffix("×"),
                unit="×",
                bound="without a bound: see Timing"
                if winner.speed.lower is None
                else f"at least {wording.times_at_least(winner.speed.lower)}",
                detail=f"{wording.milliseconds(latency.median_ms if latency else None)} ms instead of "
                f"{wording.milliseconds(before.median_ms if before else None)} ms ({winner.speed.rival})",
            )
        )
    if baseline and baseline.verdict.size_mb > 0:
        share = 100 * winner.size_mb / baseline.verdict.size_mb
        bound, detail = f"{share:.0f} % of the baseline", f"instead of {wording.megabytes(baseline.verdict.size_mb)} MB"
    else:
        bound, detail = "of model files", ""
    numbers.append(
        KeyNumber(title="Size", value=wording.megabytes(winner.size_mb), unit="MB", bound=bound, detail=detail)
    )
    return numbers


def _points(verdict: Verdict, rows: Sequence[Row], front: Sequence[Row]) -> list[figures.Point]:
    """Every row with a latency and, but for the baseline, a result in the metric that the margin is about."""
    points = []
    for row in rows:
        latency, measured = row.verdict.latency, verdict.metric(row.verdict)
        if latency is None or (measured is None and not row.is_baseline):
            continue
        middle = latency.median_ms
        change = (0.0, 0.0, 0.0)
        if measured is not None and not row.is_baseline:
            lost = measured.difference
            lower, upper = measured.lower, measured.upper
            change = (-(lost if upper is None else upper), -lost, -(lost if lower is None else lower))
        points.append(
            figures.Point(
                number=row.number,
                name=row.verdict.name,
                kind="baseline" if row.is_baseline else "tested" if row.verdict.shortlisted else "screened",
                outcome=row.verdict.outcome,
                winner=row.winner,
                latency=middle,
                latency_interval=(latency.lower_ms or middle, latency.upper_ms or middle),
                size=row.verdict.size_mb,
                front=row in front,
                change=change[1],
                change_interval=(change[0], change[2]),
            )
        )
    return points


def _limits(verdict: Verdict, baseline: Row | None) -> figures.Limits:
    """The budget as lines: a latency, or the latency that the asked speed-up would mean."""
    budget = verdict.budget
    latency, label = budget.max_latency_ms, f"budget {budget.max_latency_ms} ms"
    if latency is None and budget.min_speedup and baseline and baseline.verdict.latency:
        latency, label = baseline.verdict.latency.median_ms / budget.min_speedup, f"{budget.min_speedup:g}× faster"
    return figures.Limits(
        max_drop=budget.max_drop,
        latency=latency,
        latency_label=label,
        size=budget.max_size_mb,
        change=wording.change_of(budget.metric),
    )


def _class_images(catalog: Catalog) -> tuple[int, int]:
    """Images of the smallest and of the largest class; zeros where the table is gone."""
    try:
        table, _ = tables.read(catalog.table)
    except ArtifactError:
        return 0, 0
    counts = np.bincount(table["label"].to_numpy(), minlength=len(catalog.classes))
    return int(counts.min()), int(counts.max())


def _findings(path: Path) -> list[Finding]:
    """Stored findings, the gravest first."""
    if not path.exists():
        return []
    found = [Finding.model_validate(row) for row in files.read_json(path)]
    return sorted(found, key=lambda finding: finding.grave)
