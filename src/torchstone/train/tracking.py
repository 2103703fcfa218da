"""The observer that drives trackers.

What there is to tell waits until a checkpoint is about to be written, and goes out first: a training that is killed and
goes on tells no step twice and leaves none out. Only what a kill catches between the two is told again, under the same
numbers. A tracker that fails is named in a warning and left out from then on; the training never notices.
"""

from __future__ import annotations

import copy
import math
import random
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from torchstone.core import console, registry
from torchstone.core.contracts import Track, TrackedTraining, Tracker
from torchstone.data.augment import Augmenter
from torchstone.models import zoo
from torchstone.train.modes import judging
from torchstone.train.observe import Epoch, Observer, Step

if TYPE_CHECKING:
    from torchstone.train.job import Job

PROJECT = "torchstone"
POINTS = 2000
"""Steps of a training that are told, about: every one of a short training, every tenth of a long one."""
LOOKS = 20
"""Times that a training's weights are shown, at most."""
VALUES = 2**16
"""Of a layer, by which its histogram is made."""
PICTURES = 16
PLACED = 1000
"""Images that an embedding shows, at most."""
THUMBNAIL = 64
"""Pixels a side of an embedding's pictures, at most."""


def observers(names: Sequence[str], home: Path, title: str, options: Mapping[str, Any]) -> list[Observer]:
    """What drives the trackers of these names, if there are any; ``home`` is their folder. Raises a ConfigError for an
    unknown one and a MissingPackageError for one whose packages are not installed."""
    trackers = {name: registry.trackers.ready(name) for name in dict.fromkeys(names)}
    return [Tracking(trackers, home, title, options)] if trackers else []


@dataclass(frozen=True)
class _Point:
    """Numbers of one step; the losses are still where the training is."""

    step: int
    values: Mapping[str, float]
    losses: torch.Tensor | None = None


class Tracking(Observer):
    """Tells ``trackers`` of a training: numbers of steps and epochs, the layers' weights, the graph, the first
    augmented images, and at the end the worst mistakes on val and where the network puts its images."""

    name = "tracking"

    def __init__(self, trackers: Mapping[str, Tracker], home: Path, title: str, options: Mapping[str, Any]) -> None:
        self._trackers = dict(trackers)
        self._home = home
        self._title = title
        self._options = plain(options)
        self._known_as: dict[str, str] = {}
        self._tracks: dict[str, Track] = {}
        self._points: list[_Point] = []
        self._layers: list[tuple[int, dict[str, NDArray[np.float32]]]] = []
        self._rows: dict[int, Mapping[str, float]] = {}
        self._logits: NDArray[np.float32] | None = None
        self._first: int | None = None

    def begin(self, job: Job) -> None:
        self._job = job
        self._every = max(1, math.ceil(job.all_steps / POINTS))

    def step(self, step: Step) -> None:
        if self._first is None:
            self._first = step.number
        if step.number % self._every == 0:
            values = {"lr": step.lr, "gradient": step.gradient, "seconds": step.seconds, "waited": step.waited}
            named = {f"step/{name}": value for name, value in values.items()}
            self._points.append(_Point(step.number, named, step.losses.mean()))

    def epoch(self, epoch: Epoch) -> None:
        last = self._last_of(epoch.number)
        self._points.append(_Point(last, {f"epoch/{name}": value for name, value in epoch.row.items()}))
        self._rows[epoch.number] = dict(epoch.row)
        every = math.ceil(self._job.recipe.epochs / LOOKS)
        if epoch.number % every == 0:
            self._layers.append((last, _weights(self._job.model.network)))

    def end(self, best_epoch: int, answers: NDArray[np.float32]) -> None:
        self._tell()
        if not self._tracks:
            return
        step = self._last_of(best_epoch)
        row = self._rows.get(best_epoch, {})
        outcome = _finite({"best_epoch": best_epoch, **{name: row[name] for name in row if name.startswith("val_")}})
        self._made("what the network says of val", lambda: self._tell_of_val(step))
        self._each("close", lambda track: track.close(outcome, finished=True))
        for tracker in self._tracks:
            self._say_where(tracker)
        self._tracks.clear()

    def broken_off(self, error: BaseException) -> None:
        """A training that failed tells its last steps. One that was stopped goes on from its last checkpoint, and tells
        of what came after it then."""
        if self._tracks and isinstance(error, Exception):
            self._tell()
        self._each("close", lambda track: track.close({}, finished=False))
        self._tracks.clear()

    def _last_of(self, epoch: int) -> int:
        """Number of an epoch's last step. A head on frozen features has one step, whatever the batch."""
        return max(0, epoch * self._job.steps - 1)

    def state(self) -> dict[str, Any]:
        self._tell()
        known = {name: track.id for name, track in self._tracks.items()}
        rows = [{**row, "epoch": number} for number, row in self._rows.items()]
        return {"known_as": {**self._known_as, **known}, "rows": rows}

    def restore(self, state: dict[str, Any]) -> None:
        self._known_as = dict(state["known_as"])
        self._rows = {int(row["epoch"]): row for row in state["rows"]}

    def _tell_of_val(self, step: int) -> None:
        vectors, logits, pictures = self._judged()
        captions = self._captions(logits)
        wrong = _worst(logits, self._job.val.labels[: len(logits)])
        if len(wrong):
            shown, lines = self._job.val.images(wrong), [captions[at] for at in wrong]
            self._each("pictures", lambda track: track.pictures(step, "mistakes", shown, lines))
        self._each("embedding", lambda track: track.embedding(step, vectors, captions, pictures))

    def _tell(self) -> None:
        """Send all that waits, and open the trackers before the first of it."""
        if not self._tracks and self._trackers:
            self._open()
        if not self._points:
            return
        known = [point.losses for point in self._points if point.losses is not None]
        losses = iter(torch.stack(known).tolist() if known else [])
        rows = []
        for point in self._points:
            loss = {} if point.losses is None else {"step/loss": next(losses)}
            rows.append((point.step, _finite({**loss, **point.values})))
        layers, self._points, self._layers = self._layers, [], []
        self._each("scalars", lambda track: track.scalars(rows))
        for step, weights in layers:
            self._each("weights", lambda track, at=step, of=weights: track.weights(at, of))
        self._each("flush", lambda track: track.flush())

    def _open(self) -> None:
        job, trackers = self._job, self._trackers
        self._trackers = {}
        first = job.all_steps if self._first is None else self._first
        name = f"{self._title}-{uuid.uuid4().hex[:6]}"
        for tracker, plugin in trackers.items():
            known = self._known_as.get(tracker)
            training = TrackedTraining(
                project=PROJECT, name=name, home=self._home, known_as=known, first_step=first, options=self._options
            )
            with self._guarded(tracker):
                self._home.mkdir(parents=True, exist_ok=True)
                self._tracks[tracker] = plugin.open(training)
                self._say_where(tracker)
        if set(self._tracks) <= set(self._known_as):
            return
        new = {tracker: track for tracker, track in self._tracks.items() if tracker not in self._known_as}
        self._made("the first images", lambda: self._tell_of_samples(new))
        self._made("the graph", lambda: self._tell_of_graph(new))

    def _say_where(self, tracker: str) -> None:
        if where := self._tracks[tracker].where:
            console.say(f"curves in {tracker}: {where}")

    def _tell_of_samples(self, tracks: Mapping[str, Track]) -> None:
        samples, lines = self._samples()
        for tracker, track in tracks.items():
            with self._guarded(tracker, "pictures"):
                track.pictures(0, "samples", samples, lines)

    def _tell_of_graph(self, tracks: Mapping[str, Track]) -> None:
        job = self._job
        network = copy.deepcopy(job.model.network).cpu().eval()
        example = zoo.input_like(job.crop, job.model.channels)
        for tracker, track in tracks.items():
            if tracker in self._tracks:
                with self._guarded(tracker, "graph"):
                    track.graph(network, example)

    def _made(self, what: str, tell: Callable[[], None]) -> None:
        """Tell of what has to be made first: a network or an image set may not allow it."""
        try:
            tell()
        except Exception as error:
            console.say(f"warning: the trackers go without {what} ({type(error).__name__}: {error})")

    def _each(self, what: str, call: Callable[[Track], None]) -> None:
        for tracker, track in list(self._tracks.items()):
            with self._guarded(tracker, what):
                call(track)

    @contextmanager
    def _guarded(self, tracker: str, what: str = "open") -> Iterator[None]:
        """Around a tracker's work: its failure is its own, and no generator has moved afterwards."""
        drawn = random.getstate(), np.random.get_state()
        try:
            with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
                warnings.simplefilter("ignore")
                yield
        except Exception as error:
            self._tracks.pop(tracker, None)
            said = str(error).strip().splitlines()
            console.say(
                f"warning: the tracker '{tracker}' failed ({what}: {type(error).__name__}"
                f"{': ' + said[0] if said else ''}); the training goes on without it"
            )
        finally:
            random.setstate(drawn[0])
            np.random.set_state(drawn[1])

    def _samples(self) -> tuple[NDArray[np.uint8], list[str]]:
        """Training images as the first epoch augments them, each class in its turn, and what they are."""
        job = self._job
        rows = _by_turns(job.train.labels, PICTURES)
        make = Augmenter(job.recipe.augment, job.crop, job.seed, 0, job.policy_source)
        return make(job.train.stored(rows), rows), [self._called(int(job.train.labels[row])) for row in rows]

    def _judged(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.uint8]]:
        """What the network's head is given of the first images of val, its logits, and small pictures of them."""
        job, network = self._job, self._job.model.network
        images = job.val.images(slice(0, PLACED))
        device = next(network.parameters()).device
        given: list[torch.Tensor] = []
        hook = zoo.head(network)[1].register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
        parts = [torch.from_numpy(images[start : start + 64]) for start in range(0, len(images), 64)]
        try:
            with judging(job.model), torch.inference_mode():
                logits = [job.model(part.to(device)).float().cpu() for part in parts]
        finally:
            hook.remove()
        vectors = torch.cat([part.float().cpu().flatten(2).mean(2) if part.ndim > 2 else part.float().cpu()
                             for part in given])  # fmt: skip
        small = images[:, :: math.ceil(images.shape[1] / THUMBNAIL), :: math.ceil(images.shape[2] / THUMBNAIL)]
        return vectors.numpy(), torch.cat(logits).numpy(), np.ascontiguousarray(small)

    def _captions(self, logits: NDArray[np.float32]) -> list[str]:
        labels = self._job.val.labels
        answers = logits.argmax(1)
        return [
            self._called(int(label)) + ("" if label == answer else f", taken for {self._called(int(answer))}")
            for label, answer in zip(labels, answers, strict=False)
        ]

    def _called(self, label: int) -> str:
        names = self._job.classes
        return names[label] if label < len(names) else str(label)


def plain(options: Mapping[str, Any]) -> dict[str, str | int | float | bool]:
    """The options of nested tables in one, and what is no plain value as text; what is not set is left out."""
    found: dict[str, str | int | float | bool] = {}
    for name, value in options.items():
        if isinstance(value, Mapping):
            found |= plain(value)
        elif value is not None:
            found[name] = value if isinstance(value, str | int | float) else ", ".join(map(str, value))
    return found


def _finite(values: Mapping[str, Any]) -> dict[str, float]:
    """Those that every tool can draw."""
    return {name: float(value) for name, value in values.items() if value is not None and math.isfinite(value)}


def _weights(network: nn.Module) -> dict[str, NDArray[np.float32]]:
    """Every layer's weights but those of norms and biases; of large ones some, evenly spread."""
    found = {}
    for name, parameter in network.named_parameters():
        if parameter.ndim > 1:
            values = parameter.detach().flatten()
            found[name.replace(".", "/")] = values[:: math.ceil(values.numel() / VALUES)].float().cpu().numpy().copy()
    return found


def _by_turns(labels: NDArray[np.int64], count: int) -> NDArray[np.intp]:
    """Rows of up to ``count`` images: the first of each class, then the second of each."""
    seen: dict[int, int] = {}
    turns = []
    for row, label in enumerate(labels.tolist()):
        seen[label] = seen.get(label, -1) + 1
        turns.append((seen[label], label, row))
    return np.array([row for _, _, row in sorted(turns)[:count]], dtype=np.intp)


def _worst(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.intp]:
    """Rows of the mistakes that the network is surest of."""
    wrong = np.flatnonzero(logits.argmax(1) != labels)
    margin = logits[wrong].max(1) - logits[wrong, labels[wrong]]
    return wrong[np.argsort(-margin, kind="stable")][:PICTURES]
