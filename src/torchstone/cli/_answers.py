"""What the verbs print: tables for people on stdout, or JSON for machines; and the exit codes that go with them."""

from __future__ import annotations

import json as jsons
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from torchstone.cli import _judged
from torchstone.cli._tables import chain_cell, is_narrow
from torchstone.core import files
from torchstone.core.run import Run
from torchstone.core.values import METRICS, SEVERITIES, Artifact, Candidate, Finding, Outcome
from torchstone.core.verdict import CandidateVerdict, Verdict
from torchstone.report import columns, wording
from torchstone.report.columns import Column

if TYPE_CHECKING:
    from torchstone.config import Settings
    from torchstone.judge.differences import Mismatch
    from torchstone.judge.external import EvidenceRow
    from torchstone.stages.audit import Audit
    from torchstone.stages.search import Found

Judged = TypeVar("Judged", "CandidateVerdict", "EvidenceRow")

OUTCOME_CODES = {"pass": 0, "fail": 1, "undecided": 3, "void": 3}
COLOURS = {"pass": "green", "fail": "red", "undecided": "yellow", "void": "yellow", "baseline": "bold"}


def exit_code(outcome: Outcome, asked: Sequence[str], *, every: bool) -> int:
    """Of the verdict's ``outcome``; with ``every``, all candidates that were ``asked`` for have to pass."""
    code = OUTCOME_CODES[outcome]
    if every and code == 0 and any(one != "pass" for one in asked):
        return 3 if any(one in ("undecided", "void") for one in asked) else 1
    return code


def verdict(found: Verdict, run: Run, json: bool, *, every: bool = False) -> int:
    """The table that says it, the sentence, and where things are."""
    asked = [row for row in found.rows[1:] if row.shortlisted or found.selection == "named"]
    code = exit_code(found.outcome, [row.outcome for row in asked], every=every)
    if json:
        print_json({**found.model_dump(mode="json"), "outcome": found.outcome, "run": str(run.root), "exit_code": code})
        return code
    out = stdout()
    out.print(
        f"\n{run.name} · {found.test_images:,} test images · {_judged.margin(found)}, "
        + (f"look {found.look} at {100 * found.level:g} %\n" if found.shortlist else "no look at them\n"),
        highlight=False,
    )
    listed = columns.of_verdict(found, digits=1)
    out.print(verdict_table(found.rows, listed, out.width, found.winner))
    if columns.any_screened(found):
        out.print(
            f"{columns.SCREENED} of an earlier, shorter session, by which candidates were chosen", highlight=False
        )
    _judged.beside(found, out)
    out.print(f"\n{found.sentence}", highlight=False)
    if found.control is not None and found.control.outcome != "clean":
        out.print(f"  the clock: {found.control.reason}", highlight=False, markup=False)
    for row in asked:
        told = row.outcome != "not tested" or found.selection == "named"
        if told and row.outcome != "pass" and row.reason not in found.sentence:
            out.print(f"  {row.name}: {row.outcome}: {row.reason}", highlight=False, markup=False)
    if noticed := _of_training(run.root / files.read_json(run.candidates)[0]["directory"]):
        out.print("\nof the training:", highlight=False)
        _print_findings(noticed, out)
        out.print()
    if found.winner is not None and run.bundle.exists():
        out.print(f"bundle   {run.bundle}", highlight=False, soft_wrap=True)
    elif found.winner is None:
        kept = " (the one that is there is of an earlier judgement)" if run.bundle.exists() else ""
        out.print(f"bundle   none: only what passes becomes one{kept}", highlight=False)
    if run.report.exists():
        out.print(f"report   {run.report}", highlight=False, soft_wrap=True)
    out.print(f"check it: torchstone verify {run.root}", highlight=False, soft_wrap=True)
    return code


def verdict_table(
    rows: Sequence[Judged], listed: Sequence[Column[Judged]], width: int, chosen: str | None = None
) -> Any:
    """A line a candidate: its name, the columns that this width has room for, and its outcome. ``chosen`` is the id of
    the one to ship."""
    from rich.table import Table

    narrow = is_narrow(width)
    left_out = [column.title for column in listed if narrow and column.wide]
    listed = [column for column in listed if column.title not in left_out]
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1 if narrow else 2, 0, 0))
    table.add_column("candidate", overflow="fold")
    for column in listed:
        table.add_column(column.title.replace(" (", "\n(") if narrow else column.title, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for row in rows:
        table.add_row(
            chain_cell(row.name, narrow=narrow), *(column.text(row) for column in listed), _outcome(row, chosen)
        )
    if left_out:
        table.caption, table.caption_justify = f"a wider terminal also has: {', '.join(left_out)}", "left"
    return table


def _outcome(row: CandidateVerdict | EvidenceRow, winner: str | None) -> str:
    chosen = " ← chosen" if isinstance(row, CandidateVerdict) and row.candidate_id == winner else ""
    more = f"\n{row.images_needed:,} more images" if row.images_needed else ""
    colour = COLOURS.get(row.outcome, "dim")
    return f"[{colour}]{row.outcome}{chosen}{more}[/{colour}]"


def _code(found: Sequence[Finding], *, strict: bool = False) -> int:
    grave = ("error", "warning") if strict else ("error",)
    return 1 if any(finding.severity in grave for finding in found) else 0


def findings(found: Sequence[Finding], json: bool, *, strict: bool = False) -> int:
    """What was noticed, the worst first; 1 when any of it is an error, with ``strict`` or a warning."""
    code = _code(found, strict=strict)
    if json:
        print_json({"findings": [finding.model_dump(mode="json") for finding in found], "exit_code": code})
        return code
    out = stdout()
    _print_findings(found, out)
    counts = [f"{sum(finding.severity == name for finding in found)} {name}" for name in SEVERITIES]
    out.print("\n" + ", ".join(counts), highlight=False)
    return code


MARKS = {"error": "[red]✗[/red]", "warning": "[yellow]![/yellow]", "info": "[green]✓[/green]"}


def _print_findings(found: Sequence[Finding], out: Any) -> None:
    """The worst first, each with what to do, and below it what only follows from it."""
    graves = {finding.check: finding.grave for finding in found if finding.follows is None}
    for finding in sorted(found, key=lambda finding: graves.get(finding.follows or finding.check, finding.grave)):
        mark = "    and so" if finding.follows else MARKS[finding.severity]
        out.print(f"{mark} [bold]{finding.check}[/bold]  ", end="")
        out.print(finding.message, markup=False, highlight=False, soft_wrap=True)
        if finding.hint:
            out.print(f"    hint: {finding.hint}", markup=False, highlight=False, soft_wrap=True)


def _of_training(directory: Path) -> list[Finding]:
    """What the coach said of the training of the artifact there."""
    from torchstone.data import findings as stored

    return stored.load(directory)


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


def artifact(made: Artifact, settings: Settings, json: bool) -> int:
    """Where the trained model lies, how good it looks on val, what the coach says of its training, and what to type
    next."""
    from torchstone.stages.next_steps import after_training

    noticed = _of_training(made.directory)
    top1, interval, told = _on_val(made)
    steps = after_training(made, noticed, settings)
    if json:
        answer = {**made.model_dump(mode="json"), "directory": str(made.directory), "val_top1": top1}
        rows = [finding.model_dump(mode="json") for finding in noticed]
        print_json({**answer, "val_top1_interval": interval, "findings": rows, "next": [vars(step) for step in steps]})
        return 0
    out = stdout()
    _print_findings(noticed, out)
    out.print(f"{made.architecture}, {made.size_mb:.2f} MB{told}", highlight=False, soft_wrap=True)
    out.print(f"artifact {made.directory}", highlight=False, soft_wrap=True)
    if (page := made.directory / "training.html").exists():
        out.print(f"page     {page}", highlight=False, soft_wrap=True)
    out.print(f"next: {steps[0].command}", markup=False, highlight=False, soft_wrap=True)
    return 0


def _on_val(made: Artifact) -> tuple[float | None, tuple[float, float] | None, str]:
    """Top-1 of the kept weights on val, its interval, and both as they are printed: how many images the figure rests
    on, and after which epoch. Nothing of an artifact that was not trained; no interval of one taken out of its run."""
    from torchstone.train import history

    if not (made.directory / "history.parquet").exists():
        return None, None, ""
    stored = history.read(made.directory)
    top1 = stored.best["val_top1"]
    run = Run(made.directory.parent.parent)
    images = run.split().sizes["val"] if (run.data / "split.json").exists() else None
    interval = stored.interval(images) if images else None
    seen = f"{images:,} val images ({wording.between(interval)})" if images and interval else "val"
    return top1, interval, f", {top1:.2f} % top-1 on {seen}, after epoch {stored.best_epoch} of {len(stored.table)}"


def search(found: Found, json: bool) -> int:
    """The best trials, what they depend on, and where the recipe is; 1 when no trial came to its end."""
    summary = found.summary
    code = 0 if summary.best else 1
    if json:
        places = {"directory": str(found.directory), "page": str(found.page), "recipes": list(map(str, found.recipes))}
        print_json({**summary.model_dump(mode="json"), **places, "exit_code": code})
        return code
    out = stdout()
    states = [trial.state for trial in summary.trials]
    counts = ", ".join(f"{states.count(name)} {name}" for name in dict.fromkeys(states))
    out.print(f"\n{summary.name} · {len(states)} trials: {counts}\n", highlight=False, soft_wrap=True)
    out.print(_search_table(found))
    for objective in found.objectives:
        if shares := summary.importances[objective.name]:
            text = ", ".join(f"{name} {100 * share:.0f} %" for name, share in list(shares.items())[:5])
            after = f" after epoch {summary.compared_after}" if summary.compared_after else ""
            out.print(f"{objective.title}{after} depends on {text}", highlight=False, soft_wrap=True)
    for path in found.recipes:
        out.print(f"recipe   {path}", highlight=False, soft_wrap=True)
    out.print(f"page     {found.page}", highlight=False, soft_wrap=True)
    if found.recipes:
        command = found.recipes[0].read_text().splitlines()[1].removeprefix("# ")
        out.print(f"next     {command}", highlight=False, soft_wrap=True, markup=False)
    return code


SEARCH_ROWS = 10
"""Trials in the table: the best by the first objective."""


def _search_table(found: Found) -> Any:
    from rich.table import Table

    from torchstone.search.study import figure
    from torchstone.train.recipes import short

    summary, objectives = found.summary, found.objectives
    done = [(trial, trial.values) for trial in summary.trials if trial.values]
    done.sort(key=lambda pair: (-objectives[0].sign * pair[1][0], pair[0].number))
    options = list(summary.plan["ranges"])
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("trial", justify="right")
    for objective in objectives:
        table.add_column(objective.name, justify="right", no_wrap=True)
    for name in options:
        table.add_column(name, justify="right")
    table.add_column("")
    for trial, values in done[:SEARCH_ROWS]:
        shown = [figure(value, objective) for value, objective in zip(values, objectives, strict=True)]
        best = "[green]← best[/green]" if trial.number in summary.best else ""
        start = "the recipe as it was" if trial.number == 0 and not best else ""
        given = [short(trial.options.get(name)) for name in options]
        table.add_row(str(trial.number), *shown, *given, best or start)
    return table


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


def evaluation(found: dict[str, Any], json: bool) -> int:
    """The metrics and the classes with the lowest recall."""
    if json:
        print_json(found)
        return 0
    out = stdout()
    out.print(f"{found['model']} in {found['runtime']}, {found['images']:,} images ({found['part']})", highlight=False)
    titles = {"weighted_f1": "weighted F1", "balanced_accuracy": "balanced accuracy", "top5": "top-5", **METRICS}
    for name in ("top1", "top5", "macro_f1", "weighted_f1", "balanced_accuracy", "auroc", "ece"):
        if name in found:
            beside = ""
            if name == "top1" and "look" in found:
                bound, level = 100 * found["top1_at_least"], 100 * found["level"]
                beside = f", at least {bound:.2f} (look {found['look']} at {level:g} %)"
            elif name == "top1":
                low, high = found["top1_interval"]
                beside = f"  ({wording.between((100 * low, 100 * high))})"
            out.print(f"  {titles[name]:18} {100 * found[name]:6.2f} %{beside}", highlight=False)
    out.print(f"  {'size':18} {found['size_mb']:6.2f} MB", highlight=False)
    out.print(f"  {'latency, batch 1':18} {found['latency_ms']:6.2f} ms", highlight=False)
    out.print(f"  {'latency, batch 32':18} {found['latency_32_ms']:6.2f} ms", highlight=False)
    worst = sorted(found["recall"].items(), key=lambda pair: (pair[1] != pair[1], pair[1]))[:5]
    out.print("lowest recall: " + ", ".join(f"{name} {100 * value:.1f} %" for name, value in worst), highlight=False)
    return 0


def mismatches(found: Sequence[Mismatch], json: bool) -> int:
    """0 when every number was recomputed; 1 when some differ; 3 when none does, but some cannot be recomputed here."""
    differ = sum(one.cannot is None for one in found)
    code = 1 if differ else 3 if found else 0
    if json:
        print_json({"mismatches": [vars(one) for one in found], "exit_code": code})
        return code
    out = stdout()
    for one in found:
        out.print(f"{'✗' if one.cannot is None else '?'} {one}", markup=False, highlight=False, soft_wrap=True)
    counts = [f"{differ} differ"] * bool(differ) + [f"{len(found) - differ} cannot be recomputed here"] * (
        len(found) > differ
    )
    out.print(", ".join(counts) or "every number of the verdict was recomputed from its evidence")
    return code


def stdout() -> Any:
    """A rich console for what people asked for."""
    from rich.console import Console

    class Answers(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    return Answers()


def print_json(value: Any) -> None:
    """``value`` as an answer for machines."""
    jsons.dump(value, sys.stdout, indent=1)
    sys.stdout.write("\n")
