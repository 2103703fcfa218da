"""The training loop. It can be killed at any moment and goes on from its last checkpoint with the same numbers as if
it had never stopped: the order of the samples depends on (seed, epoch), their augmentation on (seed, epoch, sample),
what is mixed and dropped out on (seed, epoch, step). The number of workers changes nothing."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from torchstone.core import console, machine, seeding
from torchstone.core.contracts import ImageSet
from torchstone.core.errors import ArtifactError, DataError, TrainingError
from torchstone.data.augment import Augmenter
from torchstone.data.loader import Batch, batches
from torchstone.data.sampling import class_weights, epoch_of
from torchstone.models.deployable import Deployable
from torchstone.train import checkpoint, mixing, optim
from torchstone.train.recipe import Recipe

CHECKPOINT_SECONDS = 20.0
"""A killed run repeats at most this much work."""
BEST, LAST = "best.safetensors", "last.safetensors"


@dataclass
class Progress:
    """How far a run has come: what a checkpoint stores besides tensors."""

    epoch: int = 0
    step: int = 0
    """Batches done in this epoch."""
    loss_sum: float = 0.0
    seen: int = 0
    seconds: float = 0.0
    best: tuple[float, float] = (-1.0, 0.0)
    """Top-1 and negative loss on val (to four digits) of the best epoch so far."""
    best_epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Job:
    """What stays the same through all epochs."""

    model: Deployable
    optimiser: torch.optim.Optimizer
    train: ImageSet
    recipe: Recipe
    seed: int
    directory: Path
    classes: Sequence[str]
    outputs: int
    """Logits of the network."""
    weights: torch.Tensor | None
    """float32[outputs], of each class in the loss."""
    policy_source: bytes | None
    """Of an augmentation policy in a file (``augment.source_of``)."""

    @property
    def steps(self) -> int:
        """Batches an epoch; the last, smaller one is left out."""
        return len(self.train) // self.recipe.batch


def fit(
    model: Deployable,
    train: ImageSet,
    val: ImageSet,
    recipe: Recipe,
    seed: int,
    directory: Path,
    classes: Sequence[str] = (),
    policy_source: bytes | None = None,
) -> Progress:
    """Train ``model.network`` in place and leave it at its best epoch by val top-1.

    ``directory`` keeps the checkpoints; what an earlier, interrupted call left there is continued. ``classes`` are the
    names that a sampler's weights go by; ``policy_source`` is what the file of an augmentation policy holds
    (``augment.source_of``; None: read when it is needed).
    """
    if len(train) < recipe.batch:
        raise DataError(
            f"{len(train)} training images do not fill one batch of {recipe.batch}",
            hint="give more images or a smaller --batch",
        )
    torch.set_num_threads(machine.usable_cores())
    model.to(device())
    model.network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    optimiser = optim.optimiser(model.network, recipe)
    outputs = _outputs(model, train)
    job = Job(
        model=model,
        optimiser=optimiser,
        train=train,
        recipe=recipe,
        seed=seed,
        directory=directory,
        classes=classes,
        outputs=outputs,
        weights=_weights(train, outputs, recipe),
        policy_source=policy_source,
    )
    progress = Progress()
    if (directory / LAST).exists():
        progress = _continued(checkpoint.restore(directory / LAST, model.network, optimiser), directory)
        console.say(f"training goes on from epoch {progress.epoch + 1}, batch {progress.step + 1}")
    while progress.epoch < recipe.epochs and progress.epoch - progress.best_epoch < recipe.patience:
        _epoch(job, progress)
        _close_epoch(job, val, progress)
    checkpoint.restore(directory / BEST, model.network, optimiser)
    model.cpu().eval()
    return progress


def _outputs(model: Deployable, images: ImageSet) -> int:
    """How many logits the network gives."""
    model.eval()
    with torch.inference_mode():
        return model(torch.from_numpy(images.images(slice(0, 1))).to(device())).shape[1]


def _weights(images: ImageSet, outputs: int, recipe: Recipe) -> torch.Tensor | None:
    if not recipe.class_weights:
        return None
    if recipe.sampler != "shuffle":
        console.say(
            f"warning: the sampler '{recipe.sampler}' and class weights both make up for uneven classes, so that rare "
            "ones count twice; leave one of them out unless that is meant"
        )
    return torch.from_numpy(class_weights(images.labels, outputs, recipe.class_weights)).to(device())


def device() -> torch.device:
    """The first GPU where there is one, else the CPU. On a GPU, a resumed run is close to the one left alone, not equal
    to the bit: some of its kernels add in any order."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _continued(stored: dict[str, Any], directory: Path) -> Progress:
    try:
        return Progress(**stored)
    except TypeError:
        raise ArtifactError(
            f"the checkpoint in '{directory}' was written by another version of torchstone",
            hint=f"delete '{directory}': training starts again from the beginning",
        ) from None


def autocast(precision: str) -> Any:
    """The context in which the network computes in ``arithmetic(precision)``."""
    where, use = arithmetic(precision)
    return torch.autocast(where, dtype=torch.bfloat16, enabled=use == "bf16")


def arithmetic(precision: str) -> tuple[str, str]:
    """Device and precision. ``auto`` is BF16 where the processor multiplies it natively (there it is about twice as
    fast), else float32."""
    where = device().type
    on_cpu = bool({"avx512_bf16", "amx_bf16"} & machine.cpu_flags())
    native = torch.cuda.is_bf16_supported(including_emulation=False) if where == "cuda" else on_cpu
    return where, "bf16" if precision == "bf16" or (precision == "auto" and native) else "f32"


def evaluate(model: Deployable, images: ImageSet, precision: str, batch: int = 64) -> tuple[float, float]:
    """Mean cross-entropy (nats) and top-1 (per cent)."""
    model.eval()
    loss, right = 0.0, 0
    with torch.inference_mode(), autocast(precision):
        for start in range(0, len(images), batch):
            rows = slice(start, start + batch)
            labels = torch.from_numpy(images.labels[rows]).to(device())
            logits = model(torch.from_numpy(images.images(rows)).to(device())).float()
            loss += functional.cross_entropy(logits, labels, reduction="sum").item()
            right += int((logits.argmax(1) == labels).sum())
    return loss / len(images), 100.0 * right / len(images)


def _epoch(job: Job, progress: Progress) -> None:
    """The rest of one epoch, from batch ``progress.step``."""
    recipe = job.recipe
    job.model.train()
    saved = started = time.monotonic()
    before = progress.seconds
    bar = f"epoch {progress.epoch + 1}/{recipe.epochs}"
    for batch in console.track(_rest_of(job, progress), bar, job.steps - progress.step):
        number = progress.epoch * job.steps + progress.step
        for group in job.optimiser.param_groups:
            group["lr"] = optim.rate(recipe, number, recipe.epochs * job.steps)
        loss = _step(job, batch, number)
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss became {loss} in epoch {progress.epoch + 1}",
                hint=f"lower the learning rate: --lr {recipe.lr / 5:g}",
            )
        progress.loss_sum += loss * len(batch.labels)
        progress.seen += len(batch.labels)
        progress.step += 1
        progress.seconds = before + time.monotonic() - started
        if time.monotonic() - saved > CHECKPOINT_SECONDS:
            checkpoint.save(job.directory / LAST, job.model.network, job.optimiser, vars(progress))
            saved = time.monotonic()


def _rest_of(job: Job, progress: Progress) -> Iterator[Batch]:
    """The augmented batches of this epoch that are still to come."""
    recipe = job.recipe
    images, order = epoch_of(job.train, recipe.sampler, job.seed, progress.epoch, job.classes)
    plan = [order[step * recipe.batch : (step + 1) * recipe.batch] for step in range(progress.step, job.steps)]
    crop = job.train.images(slice(0, 1)).shape[1]
    make = Augmenter(recipe.augment, crop, job.seed, progress.epoch, job.policy_source)
    return batches(images, plan, make, workers=recipe.workers)


def _step(job: Job, batch: Batch, number: int) -> float:
    """One batch forward, backward and down the gradient; returns its mean loss. ``number`` counts the steps of the
    whole training."""
    model, recipe = job.model, job.recipe
    torch.manual_seed(seeding.seed_of(job.seed, "step", number))
    x = model.normalise(batch.pixels.to(device(), non_blocking=True))
    targets = batch.labels.to(device(), non_blocking=True)
    if recipe.mixup or recipe.cutmix or job.weights is not None:
        # As shares of classes: with these, torch's weighted mean divides by the images, not by their weights.
        targets = mixing.one_hot(targets, job.outputs)
        x, targets = mixing.mixed(x, targets, mixup=recipe.mixup, cutmix=recipe.cutmix, seed=job.seed, step=number)
    x = x.contiguous(memory_format=torch.channels_last)
    with autocast(recipe.precision):
        logits = model.network(x)
        loss = functional.cross_entropy(logits, targets, weight=job.weights, label_smoothing=recipe.label_smoothing)
    job.optimiser.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.network.parameters(), recipe.clip)
    job.optimiser.step()
    return loss.item()


def _close_epoch(job: Job, val: ImageSet, progress: Progress) -> None:
    """Evaluate on val, note the epoch, keep the weights if they are the best so far, and write the checkpoint."""
    model, optimiser, recipe, directory = job.model, job.optimiser, job.recipe, job.directory
    val_loss, val_top1 = evaluate(model, val, recipe.precision)
    progress.epoch += 1
    progress.history.append(
        {
            "epoch": progress.epoch,
            "train_loss": progress.loss_sum / max(1, progress.seen),
            "val_loss": val_loss,
            "val_top1": val_top1,
            "lr": optimiser.param_groups[0]["lr"],
            "seconds": progress.seconds,
        }
    )
    latest = progress.history[-1]
    console.say(
        f"epoch {progress.epoch:>3}/{recipe.epochs}  loss {latest['train_loss']:.3f}  val loss {val_loss:.3f}  "
        f"val top-1 {val_top1:.2f} %  {progress.seconds:.0f} s"
    )
    progress.step, progress.loss_sum, progress.seen, progress.seconds = 0, 0.0, 0, 0.0
    found = (val_top1, -round(val_loss, 4))
    if found > tuple(progress.best):  # a checkpoint gives a list back
        progress.best, progress.best_epoch = found, progress.epoch
        checkpoint.save(directory / BEST, model.network, optimiser, vars(progress))
    checkpoint.save(directory / LAST, model.network, optimiser, vars(progress))
