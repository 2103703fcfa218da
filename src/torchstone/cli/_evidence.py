"""``judge --evidence``: stored answers instead of models, and how its verdict is printed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from torchstone.cli._answers import exit_code, print_json, stdout, verdict_table
from torchstone.cli._judged import KEEPS, by_column, margin
from torchstone.config import flag
from torchstone.core.errors import ConfigError
from torchstone.core.values import METRICS, Budget, Metric
from torchstone.core.verdict import AccuracyResult
from torchstone.judge import bootstrap
from torchstone.judge.external import EvidenceRow, EvidenceVerdict
from torchstone.report import wording
from torchstone.report.columns import NOTHING, Cell, Column, bounded, top1

FLIPS_SHOWN = 5


def judge(
    baseline: str,
    candidates: Sequence[str],
    budget: Budget,
    *,
    ledger: Path | None,
    out: Path | None,
    unordered: bool,
    slices: Sequence[str],
    every: bool,
    json: bool,
) -> int:
    """Judge the tables of answers and print what came of it."""
    from torchstone.stages.judge_evidence import judge_evidence

    refuse_what_needs_a_model(budget)
    found = judge_evidence(baseline, candidates, budget, ledger_dir=ledger, unordered=unordered, slices=slices, out=out)
    code = verdict(found, json, every=every)
    if out is not None and not json:
        stdout().print(f"\ncheck it: torchstone verify {out}", highlight=False, markup=False, soft_wrap=True)
    return code


def refuse_what_needs_a_model(budget: Budget) -> None:
    """Stored answers have no speed and no size."""
    asked = [f"--{flag(name)}" for name in ("min_speedup", "max_latency_ms", "max_size_mb") if getattr(budget, name)]
    if asked:
        raise ConfigError(
            f"{asked[0]} cannot be judged with --evidence: stored answers hold no times and no model's files",
            hint="torchstone judge RUN CANDIDATE measures the models themselves",
        )


def verdict(found: EvidenceVerdict, json: bool, *, every: bool = False) -> int:
    """The table, the sentence, and of each candidate its worst class and the first items that it lost."""
    code = exit_code(found.outcome, [row.outcome for row in found.rows[1:]], every=every)
    if json:
        print_json({**found.model_dump(mode="json"), "outcome": found.outcome, "exit_code": code})
        return code
    out = stdout()
    out.print(
        f"\n{found.rows[0].name} · {found.test_images:,} test images · {margin(found)}, "
        f"look {found.look} at {100 * found.level:g} %\n",
        highlight=False, markup=False, soft_wrap=True,
    )  # fmt: skip
    out.print(verdict_table(found.rows, _columns(found.budget.metric), out.width))
    out.print(f"\n{found.sentence}", highlight=False, markup=False)
    for row in found.rows[1:]:
        if row.outcome == "not tested":
            out.print(f"  {row.name}: not tested: {row.reason}", highlight=False, markup=False)
        for line in _beside(row):
            out.print(f"  {row.name}: {line}", highlight=False, markup=False, soft_wrap=True)
    by_column(found.slices, [row for row in found.rows[1:] if row.accuracy is not None], out)
    return code


def _columns(metric: Metric) -> tuple[Column[EvidenceRow], ...]:
    """Of the table. What the baseline says of itself is its top-1 alone."""

    def paired(cell: Callable[[AccuracyResult], Cell]) -> Callable[[EvidenceRow], Cell]:
        return lambda row: NOTHING if row.accuracy is None or row.outcome == "baseline" else cell(row.accuracy)

    def drop(row: EvidenceRow) -> Cell:
        found = bootstrap.top1(row.accuracy) if metric == "top1" and row.accuracy is not None else row.metric
        return NOTHING if found is None or row.outcome == "baseline" else bounded(found.difference, found.upper)

    def value(row: EvidenceRow) -> Cell:
        return NOTHING if row.metric is None else Cell(wording.fixed(row.metric.value, 2))

    return (
        Column(title="top-1", cell=lambda row: top1(row.accuracy)),
        *((Column(title=METRICS[metric], cell=value),) if metric != "top1" else ()),
        Column(title=f"{wording.loss_of(metric)} (at most)", cell=drop),
        Column(title="lost", cell=paired(lambda found: Cell(wording.count(found.lost))), wide=metric != "top1"),
        Column(title="gained", cell=paired(lambda found: Cell(wording.count(found.gained))), wide=metric != "top1"),
        Column(
            title="same answer", cell=paired(lambda found: Cell(wording.per_cent(found.agreement, 1))), unit="%",
            wide=True,
        ),
        Column(title="keeps 99 %", cell=paired(lambda found: Cell(KEEPS[found.keeps_99]))),
    )  # fmt: skip


def _beside(row: EvidenceRow) -> list[str]:
    """Where a candidate that was tested loses most."""
    if row.accuracy is None or not row.lost:
        return []
    shown = [f"{one.item} ({one.label}, now {one.answer})" for one in row.lost[:FLIPS_SHOWN]]
    rest = row.accuracy.lost - len(shown)
    lines = [f"lost {', '.join(shown)}" + (f" and {rest:,} more" if rest > 0 else "")]
    if row.slices and row.slices[0].drop > 0:
        worst = row.slices[0]
        lines.append(
            f"of the class '{worst.value}' it loses {worst.drop:.1f} points, at most {worst.drop_upper:.1f} "
            f"({worst.images:,} images)"
        )
    return lines
