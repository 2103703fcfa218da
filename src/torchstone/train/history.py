"""What is stored of a training's epochs, read again."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from torchstone.core import tables
from torchstone.evaluate import metrics

ANSWERS = "answers.parquet"
"""What the kept weights answered on val (``evaluate.predict.load``): the evaluation by which their epoch was chosen."""


class History(NamedTuple):
    """``history.parquet``: a row an epoch."""

    table: Any
    best_epoch: int
    """Whose weights were kept, by the recipe's metric; from 1."""

    @property
    def best(self) -> dict[str, float | None]:
        """The row of that epoch."""
        (row,) = self.table.filter(self.table["epoch"] == self.best_epoch).iter_rows(named=True)
        return row

    def interval(self, images: int) -> tuple[float, float]:
        """Within which per cent the kept weights' top-1 lies, seen on ``images`` of val (``metrics.interval``)."""
        low, high = metrics.interval((self.best["val_top1"] or 0.0) / 100, images)
        return 100 * low, 100 * high


def read(directory: Path) -> History:
    """The history of the training that made the artifact there. Raises an ArtifactError where there is none."""
    table, header = tables.read(directory / "history.parquet")
    return History(table, header["best_epoch"])
