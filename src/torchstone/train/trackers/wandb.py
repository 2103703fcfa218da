"""Weights & Biases: offline unless the environment variable WANDB_MODE says ``online``; ``wandb sync`` sends what was
kept."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from torchstone.core.contracts import Track, TrackedTraining

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BINS = 64
INTERVAL = 0.05
"""Seconds from one write to the next of the process that keeps the log. By default it holds rows back for 15, and
loses them when the training is killed."""
PATIENCE = 2.0
"""Seconds that a checkpoint waits for that process at most."""
_open: dict[str, Any] = {}
"""Runs that this process has not finished: a training that was broken off here leaves one."""


class Wandb:
    """A run of Weights & Biases. Nothing leaves this machine unless WANDB_MODE asks for it.

    Offline, each attempt at a training is a folder of its own of the same run: sent, they become one again.
    """

    requires: ClassVar[tuple[str, ...]] = ("wandb",)

    def open(self, training: TrackedTraining) -> Track:
        return _Run(training)


class _Run(Track):
    def __init__(self, training: TrackedTraining) -> None:
        import wandb

        self.id = training.known_as or training.name
        if self.id in _open:
            _open.pop(self.id).finish()
        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", training.project),
            name=training.name,
            id=self.id,
            resume="allow",
            dir=training.home,
            config=dict(training.options),
            settings=wandb.Settings(
                mode=os.environ.get("WANDB_MODE", "offline"),  # pyright: ignore[reportArgumentType]
                reinit="create_new",
                console="off",
                silent=True,
                disable_git=True,
                disable_code=True,
                x_transaction_log_flush_interval=INTERVAL,
            ),
        )
        _open[self.id] = self._run
        self._log = Path(self._run.settings.sync_file)
        folder = shlex.quote(str(self._log.parent))
        self.where = self._run.url or f"kept in {folder}; 'wandb sync {folder}' sends it"
        self._written = 0
        # A run's own steps must never go back, which they do after a kill: ours are a column like any other.
        self._run.define_metric("step", hidden=True)
        self._run.define_metric("*", step_metric="step")

    def scalars(self, rows: Sequence[tuple[int, Mapping[str, float]]]) -> None:
        for step, values in rows:
            self._run.log({"step": step, **values})

    def weights(self, step: int, layers: Mapping[str, NDArray[np.float32]]) -> None:
        import numpy as np
        import wandb

        counts = {name: np.histogram(values, bins=BINS) for name, values in layers.items()}
        self._run.log({"step": step, **{name: wandb.Histogram(np_histogram=found) for name, found in counts.items()}})

    def pictures(self, step: int, name: str, pictures: NDArray[np.uint8], captions: Sequence[str]) -> None:
        import wandb

        shown = [wandb.Image(one, caption=line) for one, line in zip(pictures, captions, strict=True)]
        self._run.log({"step": step, name: shown})

    def flush(self) -> None:
        until = time.monotonic() + PATIENCE
        while self._size() <= self._written and time.monotonic() < until:
            time.sleep(INTERVAL)
        time.sleep(2 * INTERVAL)
        self._written = self._size()

    def _size(self) -> int:
        return self._log.stat().st_size if self._log.exists() else 0

    def close(self, outcome: Mapping[str, float], *, finished: bool) -> None:
        self._run.summary.update(dict(outcome))
        self._run.finish(exit_code=0 if finished else 1)
        _open.pop(self.id, None)
