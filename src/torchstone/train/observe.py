"""What a training tells those who watch it: the coach's measurements, trackers, a search that stops bad trials.

The loop calls every observer at the same moments. An observer may look at everything and changes nothing: it draws from
no global generator, keeps the network's mode, and a training is the same to the bit with and without it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from torchstone.core import console

if TYPE_CHECKING:
    from torchstone.train.job import Job

P = ParamSpec("P")
ResultT = TypeVar("ResultT")


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of the optimiser, after it was taken."""

    number: int
    """Of the whole training, from 0."""
    epoch: int
    """From 1."""
    rows: NDArray[np.intp]
    """Of the epoch's images (``data.sampling.epoch_of``)."""
    items: NDArray[np.intp]
    """Rows of the training part: the same image, however often an epoch shows it."""
    losses: torch.Tensor
    """float32[n]: of each image, on the training's device; of mixed images where images are mixed."""
    lr: float
    gradient: float
    """Norm of the gradient before it was clipped."""
    waited: float
    """Seconds until the batch was there."""
    seconds: float
    """Of the whole step, the waiting included."""


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One finished epoch."""

    number: int
    """From 1."""
    row: Mapping[str, float]
    """What the history will say of it."""
    logits: NDArray[np.float32]
    """float32[n, classes] on val, by the weights that were judged (the averaged ones, where a recipe averages)."""
    labels: NDArray[np.int64]
    """int64[n]"""


class Observer:
    """Does nothing at any of the moments. ``name`` is its place in a checkpoint."""

    name: str = ""

    def begin(self, job: Job) -> None:
        """Before the first step, also of a training that goes on (``restore`` comes after it, then)."""

    def gradients(self, job: Job, number: int) -> None:
        """The gradients of step ``number`` are there (unscaled), and not yet clipped. Called at every step: choose
        few."""

    def step(self, step: Step) -> None:
        """After a step."""

    def epoch(self, epoch: Epoch) -> Mapping[str, float] | None:
        """After an epoch. What it returns are further columns of the history's row."""

    def broke(
        self, job: Job, number: int, x: torch.Tensor, rows: NDArray[np.intp], what: str, parts: int
    ) -> str | None:
        """The ``what`` ('loss' or 'gradient') of step ``number`` is no number. ``x`` is the network's input, which goes
        through it in ``parts``; the weights are still those before the step. Other processes are no longer there.
        Returns where it began, for the error's message, if it can tell; what it raises is passed over."""

    def end(self, best_epoch: int, answers: NDArray[np.float32]) -> None:
        """After the last epoch, with the network at its best one. ``answers``, float32[n, classes], are the logits on
        val by which that one was chosen. Not called when a training is interrupted."""

    def broken_off(self, error: BaseException) -> None:
        """Instead of ``end``: the training was stopped (a KeyboardInterrupt, say) or failed. It may go on later, from
        its last checkpoint. Also called where it had not begun; let go of what is open."""

    def state(self) -> dict[str, Any]:
        """What it has to remember, for the checkpoint: tensors by name, and JSON-able values."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what ``state`` gave."""


def told_of_the_end(fit: Callable[P, ResultT]) -> Callable[P, ResultT]:
    """``fit``, which takes ``observers`` by name and calls their ``end``, telling them of any other end too."""

    @functools.wraps(fit)
    def told(*args: P.args, **kwargs: P.kwargs) -> ResultT:
        try:
            return fit(*args, **kwargs)
        except BaseException as error:
            observers: Any = kwargs.get("observers", ())
            for observer in observers:
                try:
                    observer.broken_off(error)
                except Exception as failed:  # the training's own error is the one to be told
                    console.say(f"warning: an observer of the training failed ({type(failed).__name__}: {failed})")
            raise

    return told
