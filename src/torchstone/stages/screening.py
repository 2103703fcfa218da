"""Screening: what val and a short timing session say of candidates.

The test images are not touched, and nothing is claimed: screening says what is worth its time.
"""

from __future__ import annotations

from collections.abc import Sequence

from torchstone.core import files
from torchstone.core.values import Budget, Candidate
from torchstone.evaluate import predict
from torchstone.judge import select
from torchstone.judge.evidence import Evidence
from torchstone.judge.select import Screened
from torchstone.stages import clock
from torchstone.stages.read import Data

QUARTETS = 8
"""Of each comparison: enough for a control that says whether to trust a session, as each is of another moment."""
SESSIONS = 2
"""That are tried for a clean control: a noisy one rules nothing out, so that more would cost time and spare little."""


def answer(data: Data, candidates: Sequence[Candidate]) -> None:
    """Have the val images answered by those that have not yet."""
    for one in candidates:
        images = data.sets(one.artifact, "val")["val"]
        predict.predict(one, data.split, "val", images, data.run.predictions(one, "val"))


def screen(data: Data, baseline: Candidate, made: Sequence[Candidate], budget: Budget) -> dict[str, Screened | str]:
    """By id, each of ``made``, timed against the baseline in one session; the reason where it cannot be compared."""
    answer(data, [baseline, *made])  # many workers at a time may; what follows is read with its own session's control
    with files.alone(data.run.busy / "screening.lock", "screening"):
        clock.controlled(data, [baseline, *made], made, None, "screening", QUARTETS, SESSIONS)
        found = select.screen(Evidence(data.run), [baseline, *made], budget)
    return {one.id: screened for one, screened in found}
