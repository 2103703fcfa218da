"""What comes out of a run: the bundle that passed, and the report."""

from __future__ import annotations

from torchstone import report
from torchstone.core import files
from torchstone.core.run import Run
from torchstone.core.values import Candidate
from torchstone.core.verdict import Verdict
from torchstone.export import bundle


def publish(where: Run, candidates: list[Candidate], verdict: Verdict) -> None:
    """The bundle of the winner, if there is one, and the report."""
    winner = next((one for one in candidates if one.id == verdict.winner), None)
    if winner is None:
        files.remove(where.bundle)
    else:
        bundle.write(winner, bundle.fallback_for(winner, candidates), where.bundle)
    report.write(where)
