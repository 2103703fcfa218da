"""The training loop. It can be killed at any moment and goes on from its last checkpoint with the same numbers as if
it had never stopped: the order of the samples depends on (seed, epoch), their augmentation on (seed, epoch, sample),
what is mixed and dropped out on (seed, epoch, step). The number of workers changes nothing.

In several processes (``distributed``) each takes its share of every batch; what is summed is summed over all of them.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import NoReturn, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from torchstone.core import console, interrupts, machine, tables
from torchstone.core.contracts import ImageSet
from torchstone.core.errors import ConfigError, DataError
from torchstone.data.augment import Augmenter
from torchstone.data.loader import Batch, batches
from torchstone.data.sampling import class_weights, epoch_of, sources
from torchstone.evaluate import metrics
from torchstone.models.deployable import Deployable
from torchstone.train import distributed, regularise, schedule, sizes
from torchstone.train.checkpoint import Store
from torchstone.train.device import arithmetic, autocast, device
from torchstone.train.distributed import Ranks
from torchstone.train.job import Job
from torchstone.train.observe import Epoch, Observer, Step, told_of_the_end
from torchstone.train.recipe import Recipe
from torchstone.train.scores import cross_entropy, score, val_row
from torchstone.train.state import Progress, State, Sums
from torchstone.train.step import NotANumberError, rehearse, take
from torchstone.train.teaching import Teaching

__all__ = ["Progress", "arithmetic", "autocast", "device", "evaluate", "fit", "logits_of", "write_history"]

ItemT = TypeVar("ItemT")
CHECKPOINT_SHARE = 0.05
"""Of the time, which the writing of checkpoints takes at most (but after each epoch there is one in any case)."""


@told_of_the_end
def fit(
    model: Deployable,
    train: ImageSet,
    val: ImageSet,
    recipe: Recipe,
    seed: int,
    directory: Path,
    *,
    classes: Sequence[str] = (),
    policy_source: bytes | None = None,
    observers: Sequence[Observer] = (),
    teaching: Teaching | None = None,
) -> Progress:
    """Train ``model.network`` in place and leave it at its best epoch by ``recipe.metric`` on val.

    ``directory`` keeps the checkpoints; what an earlier, interrupted call left there is continued. ``classes`` are the
    names that a sampler's weights go by; ``policy_source`` is what the file of an augmentation policy holds
    (``augment.source_of``; None: read when it is needed). ``observers`` are told of every step and epoch in the first
    process. With ``teaching`` (prepared), it says how images are varied and what the loss is.
    """
    torch.set_num_threads(max(1, machine.usable_cores() // distributed.on_this_machine()))
    model.to(device())
    model.network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    regularise.dropouts(model.network, recipe)
    job = Job(
        model=model,
        train=train,
        val=val,
        recipe=recipe,
        seed=seed,
        directory=directory,
        classes=classes,
        outputs=outputs_of(model, train),
        crop=train.images(slice(0, 1)).shape[1],
        device=device(),
        policy_source=policy_source,
        ranks=distributed.here(),
        teaching=teaching,
    )
    _check(job)
    store = Store(directory, recipe.keep)
    if job.ranks.first:
        store.open()
    state = State(job, observers if job.ranks.first else ())
    for observer in state.observers:
        observer.begin(job)
    _go_on(state, store)
    progress = state.progress
    try:
        with distributed.synchronised_norms(model.network, job.ranks, job.device):
            while progress.epoch < recipe.epochs and progress.epoch - progress.best_epoch < recipe.patience:
                _epoch(state, store)
                _close_epoch(state, store)
    except NotANumberError as error:
        raise error.traced(state) from None
    job.ranks.as_the_first(None)  # until it has written the last checkpoint
    if progress.epoch:
        kept = store.best(progress.best_step)
        model.network.load_state_dict(kept["network"])
        for observer in state.observers:
            observer.end(progress.best_epoch, kept["answers"].numpy())
    model.cpu().eval()
    return progress


def _check(job: Job) -> None:
    """Raise the UserError of a recipe that does not go with these images, this network or these processes."""
    recipe, ranks = job.recipe, job.ranks
    if len(job.train) < recipe.batch:
        raise DataError(
            f"{len(job.train)} training images do not fill one batch of {recipe.batch}",
            hint="give more images or a smaller --batch",
        )
    if recipe.batch < 2 * ranks.size * recipe.accumulate:
        raise ConfigError(
            f"a batch of {recipe.batch} cannot go through {ranks.size} processes in {recipe.accumulate} parts: a part "
            "needs two images for its batch norms",
            hint=f"--batch {2 * ranks.size * recipe.accumulate} or more",
        )
    if job.teaching and (recipe.mixup or recipe.cutmix or recipe.class_weights or recipe.sampler != "shuffle"):
        raise ConfigError(
            "a teacher answers for single images, each as often as the others",
            hint="leave mixup, cutmix, class weights and samplers out where a network is taught",
        )
    sizes.check(job.model.network, recipe, job.crop, job.model.channels)
    if recipe.class_weights and recipe.sampler != "shuffle":
        console.say(
            f"warning: the sampler '{recipe.sampler}' and class weights both make up for uneven classes, so that rare "
            "ones count twice; leave one of them out unless that is meant"
        )


def outputs_of(model: Deployable, images: ImageSet) -> int:
    """How many logits the network gives."""
    model.eval()
    with torch.inference_mode():
        return model(torch.from_numpy(images.images(slice(0, 1))).to(device())).shape[1]


def _go_on(state: State, store: Store) -> None:
    """Take back the newest checkpoint that is whole, where there is one: the same in all processes."""
    ranks = state.job.ranks
    found = store.newest() if ranks.first else None
    name = ranks.as_the_first(found and found[0])
    if name is not None:
        state.restore(found[1] if found else store.load(name))
        console.say(f"training goes on {_place_of(state)}")
    if ranks.first:
        store.forget_after(state.number)


def _place_of(state: State) -> str:
    """How far a training is: 'after epoch 2 of 3', or 'in epoch 2 of 3, after batch 5 of 30'."""
    progress, job = state.progress, state.job
    if not progress.step:
        return f"after epoch {progress.epoch} of {job.recipe.epochs}"
    return f"in epoch {progress.epoch + 1} of {job.recipe.epochs}, after batch {progress.step} of {job.steps}"


def _epoch(state: State, store: Store) -> None:
    """The rest of one epoch, from batch ``progress.step``."""
    job, progress = state.job, state.progress
    state.prepare()
    rehearse(state)
    images, order = epoch_of(job.train, job.recipe.sampler, job.seed, progress.epoch, job.classes)
    weights = class_weights_of(job)
    pace = Pace(job.recipe.checkpoint_seconds)
    bar = f"epoch {progress.epoch + 1}/{job.recipe.epochs}"
    to_come = pace.timed(_rest_of(job, progress, images, order))
    alone = job.ranks.size == 1  # several processes stop together, or wait for each other in vain
    with interrupts.postponed(_say_stopping) if alone else nullcontext(lambda: False) as stopping:
        for batch in console.track(to_come, bar, job.steps, done=progress.step):
            _step(state, store, batch, images, weights, pace)
            if stopping():
                _stop(state, store)


def _step(state: State, store: Store, batch: Batch, images: ImageSet, weights: torch.Tensor | None, pace: Pace) -> None:
    """Take one step, tell of it, and write a checkpoint where it is time for one."""
    job, progress, sums = state.job, state.progress, state.progress.sums
    rate = state.set_rate()
    taken = take(state, batch, weights, due=pace.due)
    waited, seconds = pace.lap()
    step = Step(
        number=state.number,
        epoch=progress.epoch + 1,
        rows=batch.rows,
        items=sources(images, batch.rows),
        losses=taken.losses,
        lr=rate,
        gradient=taken.norm,
        waited=waited,
        seconds=seconds,
    )
    sums.add(loss=taken.loss, right=taken.right, images=taken.images, norm=taken.norm)
    sums.waited, sums.seconds = sums.waited + waited, sums.seconds + seconds
    progress.step += 1
    for observer in state.observers:
        observer.step(step)
    if taken.due and progress.step < job.steps:
        with pace.writing():
            _save(state, store)


def _say_stopping() -> None:
    console.say(
        "stopping after this batch: the checkpoint is being written … (Ctrl-C again stops at once, at the one before)"
    )


def _stop(state: State, store: Store) -> NoReturn:
    """Write the checkpoint and break off, with the word how to go on."""
    _save(state, store)
    raise KeyboardInterrupt(f"stopped {_place_of(state)}; the same command goes on from there")


def _rest_of(job: Job, progress: Progress, images: ImageSet, order: NDArray[np.intp]) -> Iterator[Batch]:
    """This process's share of the augmented batches of this epoch that are still to come."""
    recipe = job.recipe
    plan = [order[step * recipe.batch : (step + 1) * recipe.batch] for step in range(progress.step, job.steps)]
    make = Augmenter(recipe.augment, job.crop, job.seed, progress.epoch, job.policy_source)
    if job.teaching:
        make = job.teaching.augmenter(progress.epoch, job.crop)
    return batches(images, [job.ranks.share(rows) for rows in plan], make, workers=recipe.workers)


def class_weights_of(job: Job) -> torch.Tensor | None:
    """float32[outputs], of each class in the loss."""
    if not job.recipe.class_weights:
        return None
    return torch.from_numpy(class_weights(job.train.labels, job.outputs, job.recipe.class_weights)).to(job.device)


def _close_epoch(state: State, store: Store) -> None:
    """Evaluate on val, note the epoch, keep the weights if they are the best so far, and write the checkpoint."""
    job, progress, network = state.job, state.progress, state.job.model.network
    with state.average.applied(network) if state.average else nullcontext():
        job.ranks.same_buffers(network)
        logits = logits_of(job.model, job.val, state.precision, ranks=job.ranks)
        row = _row(state, logits)
        scored = score(job.recipe.metric, row)
        progress.epoch += 1
        progress.step, progress.sums = 0, Sums()
        if scored > progress.best:
            progress.best, progress.best_epoch, progress.best_step = scored, progress.epoch, state.number
            if job.ranks.first:
                store.save_best(state.number, {"network": network.state_dict(), "answers": torch.from_numpy(logits)})
        for observer in state.observers:
            told = Epoch(number=progress.epoch, row=row, logits=logits, labels=job.val.labels)
            row.update(observer.epoch(told) or {})
    progress.history.append(row)
    console.say(
        f"epoch {progress.epoch:>3}/{job.recipe.epochs}  loss {row['train_loss']:.3f}  val loss {row['val_loss']:.3f}  "
        f"val top-1 {row['val_top1']:.2f} %  {row['seconds']:.0f} s"
    )
    _save(state, store)


def _row(state: State, logits: NDArray[np.float32]) -> dict[str, float]:
    """What the history says of the epoch that ends; shares of val are in per cent."""
    sums = state.progress.sums
    norms = [norm for norm in sums.norms if math.isfinite(norm)]
    return {
        "epoch": state.progress.epoch + 1,
        "train_loss": sums.loss / sums.images,
        "train_top1": 100 * sums.right / sums.images,
        **val_row(logits, state.job.val.labels, state.job.outputs),
        "lr": schedule.rate(state.job.recipe, state.number - 1, state.job.all_steps),
        "seconds": sums.seconds,
        "images_per_second": sums.images / sums.seconds,
        "waited_share": sums.waited / sums.seconds,
        "gradient": statistics.median(norms) if norms else 0.0,
    }


def evaluate(model: Deployable, images: ImageSet, precision: str, batch: int = 64) -> tuple[float, float]:
    """Mean cross-entropy (nats) and top-1 (per cent)."""
    logits = logits_of(model, images, precision, batch)
    return cross_entropy(logits, images.labels), 100 * metrics.top1(images.labels, metrics.predicted_classes(logits))


def logits_of(
    model: Deployable, images: ImageSet, precision: str, batch: int = 64, ranks: Ranks | None = None
) -> NDArray[np.float32]:
    """float32[n, classes] of all ``images``. Of several ``ranks`` each takes every so many batches, so that their
    number changes no digit."""
    ranks = ranks or Ranks()
    model.eval()
    logits: torch.Tensor | None = None
    with torch.inference_mode(), autocast(precision):
        for number, start in enumerate(range(0, len(images), batch)):
            if number % ranks.size != ranks.rank and logits is not None:
                continue
            rows = slice(start, start + batch)
            found = model(torch.from_numpy(images.images(rows)).to(device())).float()
            logits = torch.zeros(len(images), found.shape[1], device=found.device) if logits is None else logits
            if number % ranks.size == ranks.rank:
                logits[rows] = found
        assert logits is not None
        return ranks.add(logits).cpu().numpy()


def _save(state: State, store: Store) -> None:
    """Write the checkpoint, and what is known so far of each epoch as a table beside it."""
    stored = state.stored()
    if state.job.ranks.first:
        store.save(state.number, stored)
        if state.progress.history and not state.progress.step:
            write_history(store.directory / "history.parquet", state.progress)


def write_history(path: Path, progress: Progress) -> None:
    """A row an epoch; a value that an observer did not give in an epoch is missing there."""
    names = list(dict.fromkeys(name for row in progress.history for name in row))
    columns = {name: [row.get(name) for row in progress.history] for name in names}
    tables.write(path, tables.frame(columns), {"best_epoch": progress.best_epoch})


class Pace:
    """The clock of an epoch: what its steps take, and when the next checkpoint is due."""

    def __init__(self, checkpoint_seconds: float) -> None:
        self._pause = checkpoint_seconds
        self._saved = self._mark = time.monotonic()
        self._got = self._mark
        self._writing = 0.0

    def timed(self, items: Iterator[ItemT]) -> Iterator[ItemT]:
        """``items``, with a look at the clock before and after each."""
        self._mark = time.monotonic()
        for item in items:
            self._got = time.monotonic()
            yield item
            self._mark = time.monotonic()

    def lap(self) -> tuple[float, float]:
        """Seconds until the item was there, and until now."""
        return self._got - self._mark, time.monotonic() - self._mark

    @property
    def due(self) -> bool:
        """Whether it is time for a checkpoint: their writing takes a small share of the time."""
        pause = max(self._pause, self._writing / CHECKPOINT_SHARE) if self._pause else 0.0
        return time.monotonic() - self._saved >= pause

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Around the writing of a checkpoint."""
        started = time.monotonic()
        yield
        self._saved = time.monotonic()
        self._writing = self._saved - started
