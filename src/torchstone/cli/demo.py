"""The main job on the digits that come with scikit-learn: two minutes from nothing to a bundle that passed."""

from __future__ import annotations

from pathlib import Path

from torchstone.cli._options import JSON, RUNS


def command(runs: RUNS = Path("runs"), json: JSON = False) -> int:
    from torchstone import pipeline
    from torchstone.cli import _answers

    chosen, verdict = pipeline.demo(runs)
    return _answers.verdict(verdict, chosen.run, json)
