"""A worker whose trials only sleep: ``worker.py DATABASE STUDY TRIALS TAKEOVER LOG [SECONDS_AN_EPOCH]``. Each epoch of
each trial becomes a line of LOG."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from torchstone.search import objectives
from torchstone.search.space import Choices, Range
from torchstone.search.study import Measured, Plan, Stopped, Study, Turn

EPOCHS = 5
PLAN = Plan(
    space={"lr": Range(low=1e-4, high=1e-1, log=True), "optimiser": Choices(values=("sgd", "adamw"))},
    objectives=objectives.named(["top1"]),
    known={"lr": 1e-3, "optimiser": "adamw"},
    seed=0,
    about={},
)


def top1(turn: Turn, epoch: int) -> float:
    """Best at a rate of 0.01, and better with every epoch."""
    from math import log10

    return 90 - 10 * abs(log10(turn.values["lr"]) + 2) + epoch


def note(log: Path, *words: object) -> None:
    """One line, whole: several workers write here."""
    with log.open("a") as file:
        os.write(file.fileno(), (" ".join(map(str, words)) + "\n").encode())


def main(database: str, study: str, trials: str, takeover: str, log: str, pause: str = "0.02") -> None:
    def run(turn: Turn) -> Measured:
        for epoch in range(1, EPOCHS + 1):
            time.sleep(float(pause))
            behind = turn.reported(epoch, top1(turn, epoch))
            note(Path(log), os.getpid(), "epoch", turn.number, epoch)
            if behind and epoch < EPOCHS:
                raise Stopped
        return Measured(values=(top1(turn, EPOCHS),), facts={})

    with Study(database, study, PLAN, takeover=float(takeover)) as opened:
        opened.work(int(trials), run)
    note(Path(log), os.getpid(), "left")


if __name__ == "__main__":
    main(*sys.argv[1:])
