"""Timing sessions of a run's candidates on this machine, and whether to trust them."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torchstone.core import console
from torchstone.core.run import Run
from torchstone.core.seeding import sample_rows
from torchstone.core.values import Candidate
from torchstone.evaluate import timing
from torchstone.evaluate.timing import Comparison
from torchstone.judge import select, speed
from torchstone.stages.read import Data

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SESSIONS = 3
"""Timing sessions that are tried until one has a clean control."""
IMAGES = 64
"""Real images that the timed calls take turns with."""


def lock(run: Run) -> Path:
    """Of who times on this machine: one at a time, or each would time the others."""
    return run.busy / f"clock-{socket.gethostname()}.lock"


def trusted(
    data: Data,
    candidates: Sequence[Candidate],
    timed: Sequence[Candidate],
    free_rival: str | None,
    phase: timing.Phase,
    quartets: int,
) -> str | None:
    """A controlled session; repeated, a few times at most, while its A/A control says that the clock cannot be trusted.
    Why that of the last one says so; None: it can. The control knows nothing of the candidates, so that choosing by it
    favours none of them."""
    baseline, reason = candidates[0], None
    for number in range(1, SESSIONS + 1):
        session = measure(data, candidates, timed, free_rival, phase, quartets, controlled=True)
        control = speed.control(speed.quartets(session.tables[baseline.id], phase, baseline.id))
        if control is None or control.outcome == "clean":
            return None
        reason = control.reason
        console.say(f"session {number} of at most {SESSIONS}: {reason}")
    return reason


def measure(
    data: Data,
    candidates: Sequence[Candidate],
    timed: Sequence[Candidate],
    free_rival: str | None,
    phase: timing.Phase,
    quartets: int,
    *,
    controlled: bool = False,
) -> timing.Session:
    """One timing session: each of ``timed`` against the baseline ``candidates[0]``; when the session is judged, also
    against the unchanged weights in its own runtime and against the fastest free rival. ``controlled``: with the
    baseline against itself."""
    baseline = candidates[0]
    pairs = [Comparison(one, baseline) for one in timed]
    if phase == "judged":
        free = [one for one in candidates if one.id == free_rival]
        for one in timed:
            rivals = [select.same_runtime_rival(candidates, one), *free]
            pairs += [Comparison(one, rival) for rival in rivals if rival is not None and rival.id != one.id]
    session = timing.session(
        pairs,
        control=baseline if controlled else None,
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
