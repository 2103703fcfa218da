"""TensorBoard: event files, one folder a training, to be looked at with ``tensorboard --logdir runs/tracking``."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from torchstone.core.contracts import Track, TrackedTraining

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

OUTCOME = "outcome/"
"""Prefix of the numbers that the table of hyper-parameters compares."""


class Tensorboard:
    """Event files in the folder of trackers. Nothing is sent anywhere."""

    requires: ClassVar[tuple[str, ...]] = ("torch", "tensorboard")

    def open(self, training: TrackedTraining) -> Track:
        return _Events(training)


class _Events(Track):
    def __init__(self, training: TrackedTraining) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        self.id = training.known_as or training.name
        self.where = f"tensorboard --logdir {shlex.quote(str(training.home / 'tensorboard'))}"
        self._options = dict(training.options)
        # What an earlier attempt wrote of these steps after its last checkpoint is not shown twice.
        first = training.first_step if training.known_as else None
        self._writer = SummaryWriter(str(training.home / "tensorboard" / self.id), purge_step=first)
        if not training.known_as:
            self._writer.add_text("options", _table(self._options))

    def scalars(self, rows: Sequence[tuple[int, Mapping[str, float]]]) -> None:
        for step, values in rows:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)

    def weights(self, step: int, layers: Mapping[str, NDArray[np.float32]]) -> None:
        for name, values in layers.items():
            self._writer.add_histogram(name, values, step)

    def pictures(self, step: int, name: str, pictures: NDArray[np.uint8], captions: Sequence[str]) -> None:
        self._writer.add_images(name, pictures, step, dataformats="NHWC")
        self._writer.add_text(name, "\n".join(f"{at}. {line}" for at, line in enumerate(captions, start=1)), step)

    def graph(self, network: Any, example: Any) -> None:
        self._writer.add_graph(network, example)

    def embedding(
        self, step: int, vectors: NDArray[np.float32], captions: Sequence[str], pictures: NDArray[np.uint8]
    ) -> None:
        import torch

        thumbnails = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
        self._writer.add_embedding(vectors, list(captions), thumbnails, global_step=step, tag="val")

    def flush(self) -> None:
        self._writer.flush()

    def close(self, outcome: Mapping[str, float], *, finished: bool) -> None:
        if not finished:
            self._writer.close()
            return
        from torch.utils.tensorboard.summary import hparams

        results: dict[str, Any] = {OUTCOME + name: value for name, value in outcome.items()}
        for name, value in results.items():
            self._writer.add_scalar(name, value)
        writer = self._writer.file_writer
        if writer is not None:  # it is there until the writer is closed
            # The writer's own way would put them into a folder, and so into a run, of their own.
            for summary in hparams(self._options, results):
                writer.add_summary(summary)
        self._writer.close()


def _table(options: Mapping[str, Any]) -> str:
    """A table in Markdown."""
    rows = [f"| {name} | `{json.dumps(value, ensure_ascii=False)}` |" for name, value in options.items()]
    return "\n".join(["| option | value |", "|---|---|", *rows])
