"""``judge --evidence``: stored answers instead of models, and how its verdict is printed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torchstone.cli._answers import COLOURS, NARROW, OUTCOME_CODES, print_json, stdout
from torchstone.cli._judged import KEEPS
from torchstone.config import flag
from torchstone.core.errors import ConfigError
from torchstone.core.values import Budget
from torchstone.judge.external import EvidenceRow, EvidenceVerdict

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

    refuse_what_needs_a_model(budget, slices)
    found = judge_evidence(baseline, candidates, budget, ledger_dir=ledger, unordered=unordered, out=out)
    code = verdict(found, json, every=every)
    if out is not None and not json:
        stdout().print(f"\ncheck it: torchstone verify {out}", highlight=False, markup=False, soft_wrap=True)
    return code


def refuse_what_needs_a_model(budget: Budget, slices: Sequence[str]) -> None:
    """Stored answers have no speed and no size, of accuracy they have the share of right answers, and no catalog."""
    asked = [f"--{flag(name)}" for name in ("min_speedup", "max_latency_ms", "max_size_mb") if getattr(budget, name)]
    asked += [f"--metric {budget.metric}"] if budget.metric != "top1" else []
    asked += ["--slice"] if slices else []
    if asked:
        raise ConfigError(
            f"{asked[0]} cannot be judged with --evidence, which knows which answers are right and no more",
            hint="torchstone judge RUN CANDIDATE measures the models themselves",
        )


def verdict(found: EvidenceVerdict, json: bool, *, every: bool = False) -> int:
    """The table, the sentence, and of each candidate its worst class and the first items that it lost."""
    code = OUTCOME_CODES[found.outcome]
    outcomes = [row.outcome for row in found.rows[1:]]
    if every and any(outcome != "pass" for outcome in outcomes):
        code = code or (3 if "undecided" in outcomes else 1)
    if json:
        print_json({**found.model_dump(mode="json"), "outcome": found.outcome, "exit_code": code})
        return code
    out = stdout()
    how = ", levels split by Holm" if found.procedure == "holm" else ""
    out.print(
        f"\n{found.rows[0].name} · {found.test_images:,} test images · margin {found.budget.max_drop:g} points{how}, "
        f"look {found.look} at {100 * found.level:g} %\n",
        highlight=False, markup=False, soft_wrap=True,
    )  # fmt: skip
    out.print(_table(found, narrow=out.width < NARROW))
    out.print(f"\n{found.sentence}", highlight=False, markup=False)
    for row in found.rows[1:]:
        for line in _beside(row):
            out.print(f"  {row.name}: {line}", highlight=False, markup=False, soft_wrap=True)
    return code


def _table(found: EvidenceVerdict, *, narrow: bool) -> Any:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1 if narrow else 2, 0, 0))
    table.add_column("candidate", overflow="fold")
    columns = {"top-1": 0, "drop (at most)": 1, "lost": 2, "gained": 3, "same answer": 4, "keeps 99 %": 5}
    if narrow:
        columns = {"top-1": 0, "drop\n(at most)": 1, "lost": 2, "gained": 3, "keeps\n99 %": 5}
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for row in found.rows:
        more = f"\n{row.images_needed:,} more images" if row.images_needed else ""
        colour = COLOURS.get(row.outcome, "dim")
        cells = _cells(row)
        shown = [cells[number] for number in columns.values()]
        table.add_row(escape(row.name), *shown, f"[{colour}]{row.outcome}{more}[/{colour}]")
    return table


def _cells(row: EvidenceRow) -> list[str]:
    accuracy = row.accuracy
    if accuracy is None:
        return ["—"] * 6
    if row.outcome == "baseline":
        return [f"{accuracy.top1:.2f}", *["—"] * 5]
    return [
        f"{accuracy.top1:.2f}",
        f"{accuracy.drop:.2f} ({accuracy.drop_upper:.2f})",
        f"{accuracy.lost:,}",
        f"{accuracy.gained:,}",
        f"{accuracy.agreement:.1f} %",
        KEEPS[accuracy.keeps_99],
    ]


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
