"""Judge candidates against a baseline, in the order given: paired accuracy, paired clocks, a verdict.

They meet the test images until the first that does not pass, or with --unordered all of them, at levels split by Holm.
Every new question is a look that the ledger counts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from torchstone.cli._options import JSON
from torchstone.core.errors import ConfigError
from torchstone.core.values import Metric


def command(
    baseline: Annotated[
        str, typer.Argument(help="A run, or an artifact below runs/NAME/artifacts; with --evidence a table of answers.")
    ],
    candidates: Annotated[
        list[str],
        typer.Argument(
            metavar="CANDIDATE...", help="Artifacts (DIRECTORY[@RUNTIME]) or chains of that run; or tables of answers."
        ),
    ],
    *,
    max_drop: Annotated[float, typer.Option(help="Points of the metric that may be lost.")] = 1.0,
    metric: Annotated[Metric, typer.Option(help="What the margin is about; ece is the calibration error.")] = "top1",
    confidence: Annotated[float, typer.Option(help="One-sided, over all looks at the test images.")] = 0.95,
    min_speedup: Annotated[float | None, typer.Option(help="Times faster than the baseline at batch 1.")] = None,
    max_latency_ms: Annotated[float | None, typer.Option(help="Bound on the median at batch 1.")] = None,
    max_size_mb: Annotated[
        float | None, typer.Option(help="Size of the model's files; what is larger is left out, and spends no look.")
    ] = None,
    quartets: Annotated[int, typer.Option(min=16, help="Paired measurements of each comparison.")] = 16,
    threads: Annotated[int, typer.Option(min=1, help="Threads of each candidate while it is timed.")] = 1,
    skip_portraits: Annotated[
        bool, typer.Option("--skip-portraits", help="Leave out p99, all threads, whole requests and memory.")
    ] = False,
    unordered: Annotated[
        bool, typer.Option("--unordered", help="Test all of them, in no order: the levels are split by Holm.")
    ] = False,
    slices: Annotated[
        list[str] | None,
        typer.Option(
            "--slice",
            metavar="COLUMN",
            help="Look at each value of this column, of the catalog or of the tables; repeatable.",
        ),
    ] = None,
    evidence: Annotated[
        bool,
        typer.Option(
            "--evidence",
            help="Judge stored answers of any tool: CSV, TSV, JSONL or Parquet, each row an item with its label and a "
            "prediction or scores. Nothing is run; speed is not judged, auroc and ece need scores.",
        ),
    ] = False,
    ledger: Annotated[
        Path | None,
        typer.Option(
            help="With --evidence: folder in which looks are counted, by default 'ledger' beside the baseline."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="With --evidence: directory to write, from which 'verify' recomputes the verdict anywhere."),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Exit with 0 only if every candidate passes.")] = False,
    json: JSON = False,
) -> int:
    from torchstone.cli import _answers, _evidence
    from torchstone.config import budget_of

    budget = budget_of(
        max_drop=max_drop,
        metric=metric,
        confidence=confidence,
        min_speedup=min_speedup,
        max_latency_ms=max_latency_ms,
        max_size_mb=max_size_mb,
    )
    if evidence:
        return _evidence.judge(
            baseline, candidates, budget,
            ledger=ledger, out=out, unordered=unordered, slices=slices or (), every=every, json=json,
        )  # fmt: skip
    if ledger is not None:
        raise ConfigError("--ledger goes with --evidence", hint="a run counts its looks in the ledger beside the runs")
    if out is not None:
        raise ConfigError("--out goes with --evidence", hint="a run keeps its evidence: torchstone verify RUN")
    from torchstone.stages.judge import Measuring, judge

    run, verdict = judge(
        baseline,
        candidates,
        budget,
        how=Measuring(quartets=quartets, portraits=not skip_portraits),
        threads=threads,
        unordered=unordered,
        slices=slices or (),
    )
    return _answers.verdict(verdict, run, json, every=every)
