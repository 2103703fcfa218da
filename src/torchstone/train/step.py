"""One step of the optimiser: a batch forward, backward, and down the gradient."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import nn

from torchstone.core import console, seeding
from torchstone.core.errors import TrainingError
from torchstone.data.loader import Batch
from torchstone.train import losses, mixing, sizes
from torchstone.train.device import autocast

if TYPE_CHECKING:
    from torchstone.train.observe import Observer
    from torchstone.train.state import State

ResultT = TypeVar("ResultT")
CLIP_SLACK = 1e-6
"""That torch adds to the norm before it divides by it."""
SMALLEST_PART = 2
"""Images that go through the network together: a batch norm compares them."""
UNCLEAR = "could not create a primitive"
"""oneDNN's word where it has no memory for its code or workspace, and for some other faults."""


class NotANumberError(TrainingError):
    """A loss or gradient is no number; ``traced`` says where it began."""

    def __init__(self, state: State, batch: Batch, x: torch.Tensor, what: str, where: str = "") -> None:
        job, progress, recipe = state.job, state.progress, state.job.recipe
        self.batch, self.x, self.what = batch, x, what
        super().__init__(
            f"the {what} is no longer a number in epoch {progress.epoch + 1}, batch {progress.step + 1}{where}; the "
            f"last checkpoint before it is kept in '{job.directory}'",
            hint=f"lower the learning rate: --lr {recipe.lr / 5:g}"
            + (", or --set precision=bf16" if state.scaler.is_enabled() else ""),
        )

    def traced(self, state: State) -> NotANumberError:
        """The same with where it began, if an observer can tell. To be called where no module of the network waits for
        other processes: these have raised their errors."""
        told = [self._asked(observer, state) for observer in state.observers]
        where = "".join(f"; {text}" for text in told if text)
        return NotANumberError(state, self.batch, self.x, self.what, where)

    def _asked(self, observer: Observer, state: State) -> str | None:
        try:
            return observer.broke(state.job, state.number, self.x, self.batch.rows, self.what, state.progress.parts)
        except Exception:  # such as no memory for one more look
            return None


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What came of a step; sums are those of all processes."""

    losses: torch.Tensor
    """float32[n] of this process's images."""
    loss: float
    """Sum over the batch."""
    right: float
    images: float
    norm: float
    """Of the gradient, before it was clipped; infinite where float16 overflowed and the step was left out."""
    due: bool
    """Whether the first process wants a checkpoint now."""


def take(state: State, batch: Batch, weights: torch.Tensor | None, *, due: bool) -> Taken:
    """Take the next step with this process's share of the batch. Raises a TrainingError before the weights are changed
    where loss or gradient is no number."""
    job, recipe = state.job, state.job.recipe
    parameters = [parameter for parameter in job.model.network.parameters() if parameter.requires_grad]
    x, targets = _seen(state, batch, weights)
    taught = job.teaching and job.teaching.taught(batch.rows, state.progress.epoch).to(job.device, non_blocking=True)
    found, right = _out_of_memory_halves(state, lambda: _backward(state, x, targets, weights, taught))
    state.scaler.unscale_(state.optimiser)
    for observer in state.observers:
        observer.gradients(job, state.number)
    norm = nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
    loss, hits, size = torch.stack([found.sum(), right, norm]).tolist()  # the one time that a GPU is waited for
    broken = not math.isfinite(size) and not state.scaler.is_enabled()
    loss, hits, images, anywhere, wanted = job.ranks.sum(
        [loss, hits, len(x), broken, due and job.ranks.first], job.device
    )
    if anywhere or not math.isfinite(loss):
        raise NotANumberError(state, batch, x, "gradient" if math.isfinite(loss) else "loss")
    if recipe.clip and not size + CLIP_SLACK <= recipe.clip:  # else it would multiply everything by one
        nn.utils.clip_grads_with_norm_(parameters, recipe.clip, norm)
    state.scaler.step(state.optimiser)
    state.scaler.update()
    if state.average:
        state.average.update(job.model.network)
    return Taken(losses=found, loss=loss, right=hits, images=images, norm=size, due=bool(wanted))


def rehearse(state: State) -> None:
    """In several processes, let a blank batch go through before the first real one. One whose memory does not suffice
    would leave the others waiting: so each tries alone first, and all then take as many parts as the neediest.

    The second time they go through together: torch arranges what it averages together by what it saw the first time,
    and a training that goes on has to find the arrangement of the one that was killed.
    """
    job, progress, network = state.job, state.progress, state.job.model.network
    if job.ranks.size == 1 or state.proven:
        return
    images = -(-job.recipe.batch // job.ranks.size)
    x = torch.zeros(images, job.model.channels, state.side, state.side, device=job.device)
    x = x.contiguous(memory_format=torch.channels_last)
    targets = torch.zeros(images, dtype=torch.int64, device=job.device)
    buffers = {name: value.clone() for name, value in network.named_buffers()}
    together, state.trained = state.trained, None
    _out_of_memory_halves(state, lambda: _backward(state, x, targets, None))
    state.trained = together
    progress.parts = job.ranks.largest(progress.parts, job.device)
    _backward(state, x, targets, None)
    state.optimiser.zero_grad()
    for name, value in network.named_buffers():
        value.copy_(buffers[name])


def _seen(state: State, batch: Batch, weights: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """What the network sees, float32[n, channels, side, side], and the targets: int64[n], or float32[n, classes]."""
    job, recipe = state.job, state.job.recipe
    x = job.model.normalise(batch.pixels.to(job.device, non_blocking=True))
    targets = batch.labels.to(job.device, non_blocking=True)
    x = sizes.resized(x, state.side)
    if recipe.mixup or recipe.cutmix or weights is not None:
        # As shares of classes: with these, torch's weighted mean divides by the images, not by their weights.
        targets = mixing.one_hot(targets, job.outputs)
        draw = state.number * job.ranks.size + job.ranks.rank
        x, targets = mixing.mixed(x, targets, mixup=recipe.mixup, cutmix=recipe.cutmix, seed=job.seed, step=draw)
    return x.contiguous(memory_format=torch.channels_last), targets


def _backward(
    state: State,
    x: torch.Tensor,
    targets: torch.Tensor,
    weights: torch.Tensor | None,
    taught: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of the mean loss of the whole batch; the loss of each image here, and how many of them were right.
    ``taught`` are a teacher's logits."""
    job, recipe, parts = state.job, state.job.recipe, state.progress.parts
    network = state.trained or job.model.network
    torch.manual_seed(seeding.seed_of(job.seed, "step", state.number, *([job.ranks.rank] if job.ranks.rank else [])))
    share = recipe.batch / job.ranks.size  # gradients are averaged over the processes
    found, right = [], []
    answers = [None] * parts if taught is None else taught.tensor_split(parts)
    split = zip(x.tensor_split(parts), targets.tensor_split(parts), answers, strict=True)
    for number, (images, wanted, answer) in enumerate(split):
        last = number == parts - 1
        with nullcontext() if last else state.alone():
            with autocast(state.precision):
                logits = network(images)
            if job.teaching and answer is not None:
                each = job.teaching.distillation.per_image(logits, wanted, answer, recipe)
            else:
                each = losses.per_image(logits, wanted, recipe, weights)
            loss = each.sum() / share
            if recipe.l1 and last:
                loss = loss + recipe.l1 * losses.l1(job.model.network)
            if number == 0:
                state.optimiser.zero_grad()  # not sooner: the memory that it frees is what the backward pass takes
            state.scaler.scale(loss).backward()
        found.append(each.detach())
        labels = wanted if wanted.ndim == 1 else wanted.argmax(1)
        right.append((logits.detach().argmax(1) == labels).sum())
    return torch.cat(found), torch.stack(right).sum().float()


def _out_of_memory_halves(state: State, attempt: Callable[[], ResultT]) -> ResultT:
    """What ``attempt`` gives; where memory does not suffice, the batch goes through the network in twice as many parts
    from then on. In several processes that was tried before (``rehearse``), and is an error here."""
    state.keep_buffers()
    while True:
        try:
            result = attempt()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            why = (str(error).strip() or type(error).__name__).splitlines()[0]
            if UNCLEAR in why:
                why += " (which oneDNN also says of a layer that it cannot compute at all)"
        else:
            state.proven = True
            return result
        # Out here: the error's traceback holds what filled the memory.
        state.optimiser.zero_grad()
        if state.job.device.type == "cuda":
            torch.cuda.empty_cache()
        halve(state, why)
        state.put_buffers_back()  # batch norms have seen a part of this batch already


def halve(state: State, why: str) -> None:
    """Twice as many parts, with a warning; a TrainingError where they would be too small."""
    progress, recipe, ranks = state.progress, state.job.recipe, state.job.ranks
    images = recipe.batch // ranks.size
    if images // (2 * progress.parts) < SMALLEST_PART or (ranks.size > 1 and state.proven):
        raise TrainingError(
            f"a batch of {recipe.batch} does not fit into memory"
            + (f" in {progress.parts} parts" if progress.parts > 1 else "")
            + f": {why}",
            hint=f"--set accumulate={2 * progress.parts}"
            if images // (2 * progress.parts) >= SMALLEST_PART
            else "a smaller --image-size or network",
        )
    progress.parts *= 2
    console.say(
        f"warning: {images // (progress.parts // 2)} images do not fit into memory at once: a batch goes through in "
        f"{progress.parts} parts from now on. Batch norms see the parts: a smaller --batch may do better"
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocator, the GPU's or the CPU's, had no more to give; or may have had: a smaller part will tell."""
    texts = ("DefaultCPUAllocator", "not enough memory", "bad_alloc", "could not create a memory", UNCLEAR)
    return isinstance(error, torch.cuda.OutOfMemoryError | MemoryError) or any(text in str(error) for text in texts)
