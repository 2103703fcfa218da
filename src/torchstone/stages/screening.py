"""Screening: what val and a short timing session say of candidates while more are being looked for.

The test images are not touched, and nothing is claimed: screening says what is worth its time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torchstone.core.values import Budget, Candidate
from torchstone.evaluate import predict
from torchstone.judge import select
from torchstone.judge.evidence import Evidence
from torchstone.judge.select import Screened
from torchstone.stages import clock
from torchstone.stages.read import Data

QUARTETS = 8
"""Of each comparison: enough for a control that says whether to trust a session, as each is of another moment."""


@dataclass(frozen=True, kw_only=True)
class Timed:
    """A candidate with its val answers and its times."""

    screened: Screened
    noise: str | None
    """Why its times cannot be trusted; None: they can."""

    @property
    def at_most(self) -> float:
        """Times as fast as the baseline: the upper bound."""
        speed = self.screened.speed
        return speed.ratio if speed.upper is None else speed.upper

    def out_of_reach(self, budget: Budget) -> str | None:
        """Why no training of this shape can meet the budget; None: one may. A noisy clock rules nothing out."""
        cost = select.cost_doubt(self.screened, budget, clock=self.noise is None)
        return cost.reason if cost is not None and cost.impossible else None


def answer(data: Data, candidates: Sequence[Candidate]) -> None:
    """Have the val images answered by those that have not yet."""
    for one in candidates:
        images = data.sets(one.artifact, "val")["val"]
        predict.predict(one, data.split, "val", images, data.run.predictions(one, "val"))


def screen(data: Data, baseline: Candidate, made: Sequence[Candidate], budget: Budget) -> dict[str, Timed | str]:
    """By id, each of ``made``, timed against the baseline in one session; the reason where it cannot be compared."""
    answer(data, [baseline, *made])
    noise = clock.trusted(data, [baseline, *made], made, None, "screening", QUARTETS)
    found = select.screen(Evidence(data.run), [baseline, *made], budget)
    return {
        one.id: screened if isinstance(screened, str) else Timed(screened=screened, noise=noise)
        for one, screened in found
    }
