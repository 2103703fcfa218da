"""What the verbs print: tables for people on stdout, or JSON for machines; and the exit codes that go with them."""

from __future__ import annotations

import json as jsons
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchstone.core.run import Run
from torchstone.core.values import SEVERITIES, Artifact, Candidate, Finding
from torchstone.core.verdict import CandidateVerdict, SpeedResult, Verdict

if TYPE_CHECKING:
    from torchstone.compress.chain import Plan
    from torchstone.judge.verify import Mismatch
    from torchstone.stages.audit import Audit

OUTCOME_CODES = {"pass": 0, "fail": 1, "undecided": 3, "void": 3}
COLOURS = {"pass": "green", "fail": "red", "undecided": "yellow", "void": "yellow", "baseline": "bold"}
COLUMNS = ("top-1", "drop (at most)", "batch 1", "faster (at least)", "same runtime", "size")
NARROW = 110
"""Width of a terminal below which the table leaves columns out."""
LEFT_OUT_WHEN_NARROW = ("same runtime",)


def verdict(found: Verdict, run: Run, json: bool, *, every: bool = False) -> int:
    """The table that says it, the sentence, and where things are."""
    code = OUTCOME_CODES[found.outcome]
    if every and any(row.shortlisted and row.outcome != "pass" for row in found.rows):
        code = code or (3 if any(row.outcome in ("undecided", "void") for row in found.rows) else 1)
    if json:
        print_json({**found.model_dump(mode="json"), "outcome": found.outcome, "run": str(run.root), "exit_code": code})
        return code
    out = stdout()
    out.print(
        f"\n{run.name} · {found.test_images:,} test images · margin {found.budget.max_drop:g} points, "
        f"look {found.look} at {100 * found.level:g} %\n",
        highlight=False,
    )
    out.print(_verdict_table(found, out.width))
    out.print(f"\n{found.sentence}", highlight=False)
    for row in found.rows:
        if row.outcome in ("fail", "undecided", "void") and row.reason not in found.sentence:
            out.print(f"  {row.name}: {row.outcome}: {row.reason}", highlight=False, markup=False)
    if found.winner is not None and run.bundle.exists():
        out.print(f"bundle   {run.bundle}", highlight=False, soft_wrap=True)
    if run.report.exists():
        out.print(f"report   {run.report}", highlight=False, soft_wrap=True)
    out.print(f"check it: torchstone verify {run.root}", highlight=False, soft_wrap=True)
    return code


def _verdict_table(found: Verdict, width: int) -> Any:
    from rich.table import Table

    narrow = width < NARROW
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1 if narrow else 2, 0, 0))
    table.add_column("candidate")
    for name in COLUMNS:
        if not (narrow and name in LEFT_OUT_WHEN_NARROW):
            table.add_column(name.replace(" (", "\n(") if narrow else name, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for row in found.rows:
        cells = dict(zip(COLUMNS, _cells(row), strict=True))
        shown = [cell for name, cell in cells.items() if not (narrow and name in LEFT_OUT_WHEN_NARROW)]
        table.add_row(row.name.replace("+", "+\n") if narrow else row.name, *shown, _outcome(row, found))
    return table


def _cells(row: CandidateVerdict) -> list[str]:
    """What the columns of ``COLUMNS`` say of one candidate."""
    accuracy, latency = row.accuracy, row.latency
    drop = "—"
    if accuracy and row.outcome != "baseline":
        drop = f"{accuracy.drop:.1f} ({accuracy.drop_upper:.1f})" if accuracy.part == "test" else f"{accuracy.drop:.1f}"
    on_val = " val" if accuracy and accuracy.part == "val" else ""
    return [
        f"{accuracy.top1:.1f}{on_val}" if accuracy else "—",
        drop,
        _milliseconds(latency.median_ms) if latency else "—",
        _times(row.speed),
        _times(row.same_runtime, bound=False),
        f"{row.size_mb:.2f} MB",
    ]


def _outcome(row: CandidateVerdict, found: Verdict) -> str:
    chosen = " ← chosen" if row.candidate_id == found.winner else ""
    more = f"\n{row.images_needed:,} more images" if row.images_needed else ""
    colour = COLOURS.get(row.outcome, "dim")
    return f"[{colour}]{row.outcome}{chosen}{more}[/{colour}]"


def _milliseconds(value: float) -> str:
    """Three significant digits."""
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f} ms"


def _times(speed: SpeedResult | None, *, bound: bool = True) -> str:
    if speed is None:
        return "—"
    ratio = f"{speed.ratio:.1f}×"
    return f"{ratio} ({speed.lower:.1f}×)" if bound and speed.lower is not None else ratio


def _code(found: Sequence[Finding]) -> int:
    return 1 if any(finding.severity == "error" for finding in found) else 0


def findings(found: Sequence[Finding], json: bool) -> int:
    """What was noticed, the worst first; 1 when any of it is an error."""
    code = _code(found)
    if json:
        print_json({"findings": [finding.model_dump(mode="json") for finding in found], "exit_code": code})
        return code
    out = stdout()
    marks = {"error": "[red]✗[/red]", "warning": "[yellow]![/yellow]", "info": "[green]✓[/green]"}
    for finding in sorted(found, key=lambda finding: finding.grave):
        out.print(f"{marks[finding.severity]} [bold]{finding.check}[/bold]  ", end="")
        out.print(finding.message, markup=False, highlight=False, soft_wrap=True)
        if finding.hint:
            out.print(f"    hint: {finding.hint}", markup=False, highlight=False, soft_wrap=True)
    counts = [f"{sum(finding.severity == name for finding in found)} {name}" for name in SEVERITIES]
    out.print("\n" + ", ".join(counts), highlight=False)
    return code


def audit(found: Audit, json: bool) -> int:
    """The findings and where the page is."""
    code, cleaned = _code(found.findings), found.cleaned
    if json:
        rows = [finding.model_dump(mode="json") for finding in found.findings]
        counts = None if cleaned is None else {**vars(cleaned), "path": str(cleaned.path)}
        print_json(
            {
                "directory": str(found.directory),
                "images": found.catalog.images,
                "findings": rows,
                "cleaned": counts,
                "exit_code": code,
            }
        )
        return code
    findings(found.findings, json=False)
    out = stdout()
    if cleaned is not None:
        out.print(
            f"cleaned  {cleaned.path}: {cleaned.keep:,} kept, {cleaned.review:,} to look at, {cleaned.drop:,} left out",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
        if cleaned.review:
            out.print("         what is to look at takes part as long as its decision is not 'drop'")
        out.print(f"next     torchstone run {cleaned.path}", highlight=False, soft_wrap=True)
    out.print(f"page     {found.page}", highlight=False, soft_wrap=True)
    return code


def artifact(made: Artifact, json: bool) -> int:
    """Where the trained model lies and how good it looks on val."""
    best = _best_val_top1(made)
    if json:
        print_json({**made.model_dump(mode="json"), "directory": str(made.directory), "val_top1": best})
        return 0
    out = stdout()
    shown = "" if best is None else f", {best:.2f} % top-1 on val"
    out.print(f"{made.architecture}, {made.size_mb:.2f} MB{shown}", highlight=False)
    out.print(f"artifact {made.directory}", highlight=False, soft_wrap=True)
    out.print(
        f"next: torchstone compress {made.directory.parent.parent} int8@openvino", highlight=False, soft_wrap=True
    )
    return 0


def _best_val_top1(made: Artifact) -> float | None:
    from torchstone.core import tables

    path = made.directory / "history.parquet"
    return max(tables.read(path)[0]["val_top1"].to_list()) if path.exists() else None


def written(path: Path, json: bool) -> int:
    """A file that was asked for."""
    if json:
        print_json({"path": str(path)})
    else:
        stdout().print(str(path), markup=False, highlight=False, soft_wrap=True)
    return 0


def candidates(made: Sequence[Candidate], json: bool) -> int:
    if json:
        print_json(
            [
                {
                    "name": one.name,
                    "runtime": one.runtime,
                    "size_mb": one.artifact.size_mb,
                    "directory": str(one.artifact.directory),
                }
                for one in made
            ]
        )
        return 0
    out = stdout()
    for one in made:
        out.print(
            f"{one.name:40} {one.artifact.size_mb:8.2f} MB  {one.artifact.directory}", highlight=False, soft_wrap=True
        )
    return 0


def plans(found: Sequence[Plan], json: bool) -> int:
    """Each chain with the conversions that the plan inserts, in brackets."""
    if json:
        rows = [
            {"chain": plan.text, "steps": [str(step) for step in plan.steps], "runtime": plan.runtime} for plan in found
        ]
        print_json(rows)
        return 0
    for plan in found:
        stdout().print(str(plan), markup=False, highlight=False, soft_wrap=True)
    return 0


def evaluation(found: dict[str, Any], json: bool) -> int:
    """The metrics and the classes with the lowest recall."""
    if json:
        print_json(found)
        return 0
    out = stdout()
    out.print(f"{found['model']} in {found['runtime']}, {found['images']:,} images ({found['part']})", highlight=False)
    for name in ("top1", "top5", "macro_f1", "weighted_f1", "balanced_accuracy"):
        if name in found:
            out.print(f"  {name.replace('_', ' '):18} {100 * found[name]:6.2f} %", highlight=False)
    out.print(f"  {'size':18} {found['size_mb']:6.2f} MB", highlight=False)
    out.print(f"  {'latency, batch 1':18} {found['latency_ms']:6.2f} ms", highlight=False)
    out.print(f"  {'latency, batch 32':18} {found['latency_32_ms']:6.2f} ms", highlight=False)
    worst = sorted(found["recall"].items(), key=lambda pair: (pair[1] != pair[1], pair[1]))[:5]
    out.print("lowest recall: " + ", ".join(f"{name} {100 * value:.1f} %" for name, value in worst), highlight=False)
    return 0


def mismatches(found: Sequence[Mismatch], json: bool) -> int:
    """0 when every number was recomputed; else 1 and the first that differ."""
    code = 1 if found else 0
    if json:
        print_json({"mismatches": [vars(one) for one in found], "exit_code": code})
        return code
    out = stdout()
    for one in found:
        out.print(f"✗ {one}", markup=False, highlight=False, soft_wrap=True)
    out.print(f"{len(found)} differ" if found else "every number of the verdict was recomputed from its evidence")
    return code


def stdout() -> Any:
    """A rich console for what people asked for."""
    from rich.console import Console

    return Console()


def print_json(value: Any) -> None:
    """``value`` as an answer for machines."""
    jsons.dump(value, sys.stdout, indent=1)
    sys.stdout.write("\n")
