"""Timing sessions of a run's candidates on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torchstone.core import console
from torchstone.core.seeding import sample_rows
from torchstone.core.values import Candidate
from torchstone.evaluate import timing
from torchstone.evaluate.timing import Comparison
from torchstone.judge import select, speed
from torchstone.stages.read import Data

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

IMAGES = 64
"""Real images that the timed calls take turns with."""


def controlled(
    data: Data,
    candidates: Sequence[Candidate],
    timed: Sequence[Candidate],
    free_rival: str | None,
    phase: timing.Phase,
    quartets: int,
    sessions: int,
) -> None:
    """A session with its A/A control; repeated, up to so many ``sessions``, while that says that the clock cannot be
    trusted. The control knows nothing of the candidates, so that choosing by it favours none of them. The last session
    stays."""
    baseline = candidates[0]
    for number in range(1, sessions + 1):
        session = measure(data, candidates, timed, free_rival, phase, quartets, control=True)
        control = speed.control(speed.quartets(session.tables[baseline.id], phase, baseline.id))
        if control is None or control.outcome == "clean":
            return
        again = "; another one follows" if number < sessions else ""
        console.say(f"session {number} of at most {sessions}: {control.reason}{again}")


def measure(
    data: Data,
    candidates: Sequence[Candidate],
    timed: Sequence[Candidate],
    free_rival: str | None,
    phase: timing.Phase,
    quartets: int,
    *,
    control: bool = False,
) -> timing.Session:
    """One timing session: each of ``timed`` against the baseline ``candidates[0]``; when the session is judged, also
    against the unchanged weights in its own runtime and against the free rival. With ``control`` the
    baseline against itself, too."""
    baseline = candidates[0]
    pairs = [Comparison(one, baseline) for one in timed]
    if phase == "judged":
        free = [one for one in candidates if one.id == free_rival]
        for one in timed:
            rivals = [select.same_runtime_rival(candidates, one), *free]
            pairs += [Comparison(one, rival) for rival in rivals if rival is not None and rival.id != one.id]
    session = timing.session(
        pairs,
        control=baseline if control else None,
        quartets=quartets,
        phase=phase,
        pixels=pixels(data, candidates),
        throughput=phase == "screening",
    )
    timing.store(data.run, session)
    return session


def pixels(data: Data, candidates: Sequence[Candidate]) -> dict[int, NDArray[np.uint8]]:
    """By the size of its side, some images of val, the same ones for each side that a candidate takes."""
    first = {one.artifact.preprocess.crop: one.artifact for one in reversed(candidates)}
    sets = {side: data.sets(artifact, "val")["val"] for side, artifact in first.items()}
    return {side: images.images(sample_rows(images.labels, IMAGES, "timing")) for side, images in sets.items()}
