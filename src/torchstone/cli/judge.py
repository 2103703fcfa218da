"""Judge candidates against a baseline, in the order given: paired accuracy, paired clocks, a verdict.

They meet the test images until the first that does not pass; every new question is a look that the ledger counts."""

from __future__ import annotations

from typing import Annotated

import typer

from torchstone.cli._options import JSON


def command(
    baseline: Annotated[str, typer.Argument(help="A run, or an artifact below runs/NAME/artifacts.")],
    candidates: Annotated[
        list[str], typer.Argument(metavar="CANDIDATE...", help="Artifacts (DIRECTORY[@RUNTIME]) or chains of that run.")
    ],
    *,
    max_drop: Annotated[float, typer.Option(help="Points of top-1 that may be lost.")] = 1.0,
    confidence: Annotated[float, typer.Option(help="One-sided, over all looks at the test images.")] = 0.95,
    min_speedup: Annotated[float | None, typer.Option(help="Times faster than the baseline at batch 1.")] = None,
    max_latency_ms: Annotated[float | None, typer.Option(help="Bound on the median at batch 1.")] = None,
    max_size_mb: Annotated[float | None, typer.Option(help="Size of the model's files.")] = None,
    quartets: Annotated[int, typer.Option(min=16, help="Paired measurements of each comparison.")] = 16,
    threads: Annotated[int, typer.Option(min=1, help="Threads of each candidate while it is timed.")] = 1,
    every: Annotated[bool, typer.Option("--all", help="Exit with 0 only if every candidate passes.")] = False,
    json: JSON = False,
) -> int:
    from torchstone.cli import _answers
    from torchstone.config import budget_of
    from torchstone.stages.judge import judge

    budget = budget_of(
        max_drop=max_drop,
        confidence=confidence,
        min_speedup=min_speedup,
        max_latency_ms=max_latency_ms,
        max_size_mb=max_size_mb,
    )
    run, verdict = judge(baseline, candidates, budget, quartets=quartets, threads=threads)
    return _answers.verdict(verdict, run, json, every=every)
