"""Distillation: a network learns from another one's answers beside the labels.

A teacher is worth most where it answers for the very pixels that the student sees (Beyer et al. 2022: 'a good teacher
is consistent'), and asking it anew in every epoch can cost more than the training. So the ways in which an image is
varied are bounded: an epoch shows one of ``views`` augmentations of the whole part, in turn. What an augmentation does
depends on (seed, view, sample) alone, so that the teacher is asked once for each view, for exactly the images of the
student, and its answers are kept on the disk under its id: further students, other losses and an interrupted training
find them.
"""

from __future__ import annotations

import io
import math
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, assert_never

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from torchstone.core import console, files
from torchstone.core.contracts import ImageSet
from torchstone.core.errors import ChainError
from torchstone.core.machine import usable_cores
from torchstone.core.values import Artifact, RuntimeOptions
from torchstone.data import augment
from torchstone.data.augment import POLICIES, Augmenter
from torchstone.data.cache import NOT_PIXELS
from torchstone.data.loader import batches
from torchstone.runtimes import open_artifact
from torchstone.train import losses
from torchstone.train.recipe import Recipe

VERSION = 1
"""Of what is kept of a teacher's answers: raise it when that changes."""
BATCH = 64
"""Images that the teacher is asked for at once."""
SIZE = {"resize", "crop"}
"""Fields of a preprocessing by which the same view of an image gets more pixels or fewer."""
ROUNDED = 1.0
"""Pixels by which a resized image may miss its share."""
SEED = 0
"""Of the views: the same ones for all students of a teacher."""


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """What a student makes of its teacher's answers.

    ``kd`` (Hinton et al. 2015): ``share`` of the loss is the divergence from the teacher's softened probabilities, the
    rest the loss of the labels. ``dkd`` (Zhao et al. 2022, formula 7): that divergence is taken apart into how sure the
    teacher is of the right class (``alpha``) and how it ranks the others (``beta``), and added to the loss of the
    labels.
    """

    method: Literal["kd", "dkd"] = "kd"
    temperature: float = 4.0
    share: float = 0.9
    alpha: float = 1.0
    beta: float = 8.0

    def per_image(
        self, logits: torch.Tensor, targets: torch.Tensor, taught: torch.Tensor, recipe: Recipe
    ) -> torch.Tensor:
        """float32[n]: the loss of each image. ``logits`` and ``taught``, the teacher's, are float[n, classes];
        ``targets`` int64[n]. Both divergences are multiplied by T², so that their gradients keep their size."""
        logits, taught = logits.float(), taught.float()
        labels = losses.per_image(logits, targets, recipe, None)
        softness = self.temperature**2
        if self.method == "kd":
            return (1 - self.share) * labels + self.share * softness * _divergence(
                taught / self.temperature, logits / self.temperature
            )
        if self.method == "dkd":
            target, others = _decoupled(taught / self.temperature, logits / self.temperature, targets)
            return labels + softness * (self.alpha * target + self.beta * others)
        assert_never(self.method)


@dataclass(frozen=True, kw_only=True)
class Teaching:
    """A teacher, and how a training listens to it. ``prepare`` it before the training."""

    teacher: Artifact
    images: ImageSet
    """The training part, as the teacher sees it."""
    distillation: Distillation
    views: int
    """Ways in which an image is shown; an epoch takes the next one."""
    policy: str
    """Of augmentation, by name."""
    cache: Path
    """A folder for answers."""
    _open: dict[int, NDArray[np.float32]] = field(default_factory=dict, repr=False)

    @property
    def identity(self) -> dict[str, Any]:
        """What makes it another training when it differs; JSON-able."""
        return {
            "teacher": self.teacher.id,
            "views": self.views,
            "augment": augment.identity(self.policy, None),
            **asdict(self.distillation),
        }

    def augmenter(self, epoch: int, crop: int) -> Augmenter:
        """How the images of an epoch are varied, for who sees ``crop`` pixels a side of them."""
        return Augmenter(self.policy, crop, SEED, epoch % self.views)

    def taught(self, rows: NDArray[np.intp], epoch: int) -> torch.Tensor:
        """float32[n, classes]: the teacher's logits for these images as the epoch shows them."""
        return torch.from_numpy(self._answers(epoch % self.views)[rows])

    def prepare(self) -> float:
        """Ask the teacher for every view that is not there yet; returns the seconds that took."""
        started = time.monotonic()
        missing = [view for view in range(self.views) if not self._path(view).exists()]
        runner = None
        for view in console.track(missing, f"{self.teacher.architecture} answers", len(missing)):
            runner = runner or open_artifact(self.teacher, self._options())
            self._ask(runner, view)
        return time.monotonic() - started

    def _ask(self, runner: Any, view: int) -> None:
        order = np.arange(len(self.images))
        plan = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
        varied = self.augmenter(view, self.teacher.preprocess.crop)
        found = [runner(batch.pixels.numpy())["logits"] for batch in batches(self.images, plan, varied)]
        buffer = io.BytesIO()
        np.save(buffer, np.concatenate(found), allow_pickle=False)
        files.write_bytes(self._path(view), buffer.getvalue())

    def _answers(self, view: int) -> NDArray[np.float32]:
        if view not in self._open:
            self._open[view] = np.load(self._path(view), mmap_mode="r", allow_pickle=False)
        return self._open[view]

    def _path(self, view: int) -> Path:
        pixels = self.teacher.preprocess.model_dump(mode="json", exclude=NOT_PIXELS)
        images = [self.teacher.split_fingerprint, len(self.images), pixels]
        key = files.digest([VERSION, self.teacher.id, images, augment.identity(self.policy, None), SEED])
        return self.cache / "teachers" / key[:32] / f"view-{view}.npy"

    def _options(self) -> RuntimeOptions:
        on_gpu = self.teacher.format == "torch" and torch.cuda.is_available()
        return RuntimeOptions(
            threads=usable_cores(),
            precision=self.teacher.precision,
            batch=min(BATCH, len(self.images)),
            provider="cuda" if on_gpu else "cpu",
        )


def check_teacher(teacher: Artifact, student: Artifact, policy: str) -> None:
    """Raise the ChainError of a teacher whose answers say nothing of this student's images, as ``policy`` varies them.

    Their sizes may differ: what the policies draw are shares of an image, so that both see the same view of it, to a
    pixel. Only what torchvision draws depends on the size."""
    if teacher.classes != student.classes:
        raise ChainError(
            f"the classes of the teacher '{teacher.architecture}' are not those of the student",
            hint="both have to be trained on the same data",
        )
    if teacher.split_fingerprint != student.split_fingerprint:
        raise ChainError(
            f"the teacher '{teacher.architecture}' was trained on another split: it may have seen what is tested",
            hint="name a model of this run",
        )
    ours, theirs = (one.preprocess.model_dump(exclude={*NOT_PIXELS, *SIZE}) for one in (student, teacher))
    if ours != theirs:
        other = next(name for name in ours if ours[name] != theirs[name])
        raise ChainError(
            f"teacher and student see other pixels: {other} is {theirs[other]} and {ours[other]}",
            hint="a teacher answers for the very images of the student: give both the same decoder and rules",
        )
    small, large = student.preprocess, teacher.preprocess
    if (small.crop, small.resize) == (large.crop, large.resize):
        return
    sizes = f"the teacher {large.crop} pixels of {large.resize} and the student {small.crop} of {small.resize}"
    if abs(small.resize - large.resize * small.crop / large.crop) > ROUNDED:
        raise ChainError(
            f"teacher and student see other parts of an image: {sizes}",
            hint="'resolution' keeps the part that is seen: make one of the two from the other by it",
        )
    chosen = POLICIES[policy]
    if chosen is not None and chosen.automatic:
        raise ChainError(
            f"augment={policy} varies an image by other rules at another size: {sizes}",
            hint="augment=standard does the same at every size",
        )


def alone(epochs: int, views: int, teacher_macs: int, student_macs: int) -> int:
    """Epochs in which a student trains alone for as long as one whose teacher answers ``views`` times: a step goes
    forward once and backward at twice that cost."""
    return epochs + math.ceil(views * teacher_macs / (3 * student_macs))


def _divergence(taught: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """float32[n]: Kullback and Leibler's, of the student's probabilities from the teacher's."""
    log_p, log_q = functional.log_softmax(taught, 1), functional.log_softmax(logits, 1)
    return functional.kl_div(log_q, log_p, reduction="none", log_target=True).sum(1)


def _decoupled(taught: torch.Tensor, logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """float32[n] each: the divergence of (right class, any other), and that among the others."""
    right = functional.one_hot(targets, logits.shape[1]).bool()

    def both(values: torch.Tensor) -> torch.Tensor:
        inside = values[right]
        outside = values.masked_fill(right, -torch.inf).logsumexp(1)
        return torch.stack([inside, outside], dim=1)

    others = [values[~right].view(len(values), -1) for values in (taught, logits)]
    return _divergence(both(taught), both(logits)), _divergence(*others)
