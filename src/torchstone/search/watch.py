"""What watches a trial's training: it tells the study each epoch, and stops what falls behind."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from torchstone.core.errors import TrainingError
from torchstone.search.study import Stopped, Turn
from torchstone.search.tickets import Lost
from torchstone.train.observe import Epoch, Observer, Step

if TYPE_CHECKING:
    from torchstone.train.job import Job


class Watch(Observer):
    """Follows one trial. ``column`` is that of the history that the study goes by, None where it goes by costs."""

    name = "search"

    def __init__(self, turn: Turn, column: str | None) -> None:
        self._turn, self._column = turn, column
        self._epochs = 0
        self.directory: Path | None = None
        """Where the unfinished training lies."""

    def begin(self, job: Job) -> None:
        self._epochs = job.recipe.epochs
        self.directory = job.directory.parent

    def step(self, step: Step) -> None:
        if self._turn.lost.is_set():
            raise Lost

    def epoch(self, epoch: Epoch) -> Mapping[str, float] | None:
        value = epoch.row[self._column] if self._column else 0.0
        if not math.isfinite(value):
            raise TrainingError(f"{self._column} was {value} after epoch {epoch.number}")
        behind = self._turn.reported(epoch.number, value)
        if behind and epoch.number < self._epochs:
            raise Stopped
        return None
