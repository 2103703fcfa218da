"""Everything that changes while a training runs: what a checkpoint holds, and what a killed training needs to go on as
if it had never stopped."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from torchstone.core import console
from torchstone.core.errors import ArtifactError
from torchstone.train import device, distributed, freezing, optim, schedule, sizes
from torchstone.train.ema import Average
from torchstone.train.job import Job
from torchstone.train.observe import Observer


@dataclass
class Sums:
    """What has come together in an epoch."""

    loss: float = 0.0
    right: float = 0.0
    images: float = 0.0
    seconds: float = 0.0
    waited: float = 0.0
    """Of these seconds, until a batch was there."""
    norms: list[float] = field(default_factory=list)
    """Of each step's gradient."""

    def add(self, *, loss: float, right: float, images: float, norm: float) -> None:
        """Take in a step."""
        self.loss, self.right, self.images = self.loss + loss, self.right + right, self.images + images
        self.norms.append(norm)


@dataclass
class Progress:
    """How far a training has come."""

    epoch: int = 0
    """Finished ones."""
    step: int = 0
    """Batches done in the epoch that is under way."""
    parts: int = 1
    """In which a batch goes through the network: the recipe's, or more where that did not fit into memory."""
    processes: int = 1
    """Among which a batch is shared."""
    threads: int = 1
    """Of the first process: the order in which a CPU sums depends on them."""
    sums: Sums = field(default_factory=Sums)
    best: list[float] = field(default_factory=list)
    """What the best epoch so far scored (``scores.score``)."""
    best_epoch: int = 0
    best_step: int = 0
    """Of the whole training, after which that epoch ended."""
    history: list[dict[str, float]] = field(default_factory=list)


class State:
    """The moving parts of a training."""

    def __init__(self, job: Job, observers: Sequence[Observer]) -> None:
        self.job = job
        self.network = job.model.network
        self.optimiser = distributed.sharded(
            optim.optimiser(self.network, job.recipe),
            job.recipe.shard,
            job.ranks,
            optim.KINDS[job.recipe.optimiser].entries,
        )
        self.scaler = device.scaler(job.recipe.precision)
        self.average = Average(self.network, job.recipe.ema) if job.recipe.ema else None
        self.observers = observers
        self.progress = Progress(parts=job.recipe.accumulate, processes=job.ranks.size, threads=torch.get_num_threads())
        self.precision = device.arithmetic(job.recipe.precision)[1]
        self.trained: nn.Module | None = None
        """What a batch goes through: the network, in several processes wrapped (``distributed.wrapped``)."""
        self.side = 0
        """Pixels of the images that it was tried with."""
        self.proven = False
        """Whether a batch of this size went through in ``progress.parts``."""
        self._buffers: list[tuple[list[torch.Tensor], list[torch.Tensor]]] = []
        """Of each type the network's, and copies of them."""

    @property
    def number(self) -> int:
        """Steps taken in the whole training."""
        return self.progress.epoch * self.job.steps + self.progress.step

    def prepare(self) -> None:
        """Get ready for an epoch, or for the rest of one: what is frozen, modes, and the size of the images."""
        job, network, epoch = self.job, self.network, self.progress.epoch
        changed = freezing.freeze(network, job.recipe, epoch)
        freezing.train_mode(network, job.recipe)
        side = sizes.side(job.recipe, epoch, job.crop)
        self.proven &= side <= self.side and not changed
        self.side = side
        if self.trained is None or changed:
            self.trained = distributed.wrapped(network, job.ranks, job.device)

    def keep_buffers(self) -> None:
        """Note what the network keeps beside its parameters, such as a batch norm's statistics."""
        if not self._buffers:
            by_type: dict[torch.dtype, list[torch.Tensor]] = {}
            for buffer in self.network.buffers():
                by_type.setdefault(buffer.dtype, []).append(buffer)
            self._buffers = [(own, [one.clone() for one in own]) for own in by_type.values()]
        for own, kept in self._buffers:
            torch._foreach_copy_(kept, own)  # pyright: ignore[reportPrivateImportUsage] (one kernel for all of them)

    def put_buffers_back(self) -> None:
        """Undo what has happened to them since they were noted."""
        for own, kept in self._buffers:
            torch._foreach_copy_(own, kept)  # pyright: ignore[reportPrivateImportUsage]

    def alone(self) -> AbstractContextManager[None]:
        """Inside, gradients stay in this process: they are averaged when the batch's last part comes."""
        return self.trained.no_sync() if isinstance(self.trained, DistributedDataParallel) else nullcontext()

    def set_rate(self) -> float:
        """Set what the schedule says of the next step; returns the learning rate."""
        recipe, steps = self.job.recipe, self.job.all_steps
        rate, momentum = schedule.rate(recipe, self.number, steps), schedule.momentum(recipe, self.number, steps)
        optim.set_rate(self.optimiser, rate)
        if momentum is not None:
            optim.set_momentum(self.optimiser, momentum)
        return rate

    def stored(self) -> dict[str, Any]:
        """All of it, for a checkpoint. In several processes all of them call it; the first one's counts."""
        return {
            "training": self.job.identity,
            "progress": asdict(self.progress),
            "network": self.network.state_dict(),
            "optimiser": distributed.state_of(self.optimiser, self.job.ranks),
            "scaler": self.scaler.state_dict(),
            "average": self.average.state_dict() if self.average else {},
            "observers": {one.name: one.state() for one in self.observers if one.name},
        }

    def restore(self, stored: dict[str, Any]) -> None:
        """Take back what ``stored`` gave. Raises an ArtifactError for the state of another training, and for one in
        which something is missing."""
        try:
            self._restore(stored)
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError(
                f"a checkpoint in '{self.job.directory}' does not hold what this version expects "
                f"({type(error).__name__}: {error})",
                hint=f"delete '{self.job.directory}': training starts again from the beginning",
            ) from error

    def _restore(self, stored: dict[str, Any]) -> None:
        self._compare(stored["training"])
        self._restore_progress(stored["progress"])
        self.network.load_state_dict(stored["network"])
        self._restore_optimiser(stored["optimiser"])
        self.scaler.load_state_dict(stored["scaler"])
        if self.average:
            self.average.load_state_dict(stored["average"])
        for one in self.observers:
            if one.name in stored["observers"]:
                one.restore(stored["observers"][one.name])

    def _restore_progress(self, stored: dict[str, Any]) -> None:
        """What is counted comes back; what follows from the machine is this one's."""
        now = self.progress
        self.progress = Progress(**{**stored, "sums": Sums(**stored["sums"])})
        if self.progress.processes != now.processes:  # the parts were those of another share
            self.progress.parts = now.parts
        if self.progress.threads != now.threads and self.job.device.type == "cpu":
            console.say(
                f"warning: the training began with {self.progress.threads} threads of the processor and goes on with "
                f"{now.threads}: sums come in another order, and its end is close to that of one left alone, not "
                "equal to the bit"
            )
        self.progress.processes, self.progress.threads = now.processes, now.threads

    def _restore_optimiser(self, stored: dict[str, Any]) -> None:
        """Entries go back as they were made: a momentum lies in memory like its parameter."""
        parameters = [parameter for group in self.optimiser.param_groups for parameter in group["params"]]
        state = {
            int(number): {name: _laid_out_like(parameters[int(number)], value) for name, value in entries.items()}
            for number, entries in stored.items()
        }
        self.optimiser.load_state_dict({"param_groups": _numbered(self.optimiser), "state": state})

    def _compare(self, stored: dict[str, Any]) -> None:
        mine = self.job.identity
        other = sorted(name for name in mine.keys() | stored.keys() if mine.get(name) != stored.get(name))
        if other:
            told = ", ".join(f"{name} = {stored.get(name)!r}, not {mine.get(name)!r}" for name in other)
            raise ArtifactError(
                f"the checkpoints in '{self.job.directory}' are of another training: {told}",
                hint="train into another directory, or delete this one",
            )


def _laid_out_like(parameter: torch.Tensor, value: Any) -> Any:
    if not isinstance(value, torch.Tensor) or value.shape != parameter.shape:
        return value
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _numbered(optimiser: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """The optimiser's groups with the numbers of their parameters, as ``state_dict`` has them."""
    count = itertools.count()
    return [{**group, "params": [next(count) for _ in group["params"]]} for group in optimiser.param_groups]
