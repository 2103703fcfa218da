"""A bundle, opened and proved: it has answered its golden images here as it did where it was made."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from torchstone.core import console, files, machine
from torchstone.core.contracts import Runner
from torchstone.core.errors import ArtifactError, MissingPackageError
from torchstone.core.registry import runtimes
from torchstone.core.values import Candidate, Preprocess
from torchstone.evaluate.metrics import softmax
from torchstone.export import bundle
from torchstone.runtimes import answers_alone, golden, open_candidate
from torchstone.serve.settings import ServeSettings

if TYPE_CHECKING:
    from numpy.typing import NDArray

GAIN = 0.95
"""A batch twice (compiled: four times) as large is used where an image costs at most this share of its time in it."""
REPEATS = 3
COMPILED = (4, 16)
"""Sizes that are tried where each takes a compiled copy of the model, in memory and in the seconds before the first
answer."""


@dataclass(frozen=True, kw_only=True)
class Served:
    """A model that may answer."""

    name: str
    directory: Path
    candidate: Candidate
    runners: dict[int, tuple[Runner, ...]]
    """By the batch size they are for, ascending; one for each session. One key alone: any size up to ``largest``."""
    largest: int
    """Images a batch."""
    steps: tuple[int, ...]
    """``steps[n]``: how many of n waiting images are best taken at once (n from 0 to ``largest``)."""

    @property
    def labels(self) -> tuple[str, ...]:
        return self.candidate.artifact.classes

    @property
    def bundle(self) -> str:
        """What an answer says of the model that gave it."""
        return self.candidate.artifact.id[:12]

    @cached_property
    def identity(self) -> bytes:
        """32 bytes that are others wherever an answer to the same image may be another: another model, another way to
        read images or to compute, in another version or on another kind of processor."""
        candidate = self.candidate
        how = candidate.options.model_dump(mode="json", exclude={"threads", "batch"})
        here = [machine.versions(), machine.cpu_name()]
        return bytes.fromhex(files.digest([candidate.artifact.id, candidate.runtime, how, *here]))

    @property
    def preprocess(self) -> Preprocess:
        return self.candidate.artifact.preprocess

    def take(self, waiting: int) -> int:
        return self.steps[min(waiting, self.largest)]

    def answer(self, pixels: NDArray[np.uint8], session: int) -> NDArray[np.float32]:
        """uint8[n, crop, crop, 3] → probabilities, float32[n, C]. One call at a time for each session."""
        size = next((size for size in self.runners if size >= len(pixels)), max(self.runners))
        return np.asarray(softmax(self.runners[size][session](pixels)["logits"]), np.float32)


def open_served(directory: Path, settings: ServeSettings, name: str) -> Served:
    """The bundle in ``directory``, proved on its golden images and warm.

    An ArtifactError where it is damaged or does not reproduce its answers on this CPU, a MissingPackageError where its
    runtime is not installed; where the bundle carries an FP32 model to fall back on, the hint names it, and with
    ``settings.fallback`` it is served.
    """
    try:
        return _opened(directory, settings, name)
    except (ArtifactError, MissingPackageError) as error:
        spare = directory / bundle.FALLBACK
        if not (spare / "artifact.json").is_file():
            raise
        if not settings.fallback:
            mend = f"{error.hint}; or " if isinstance(error, MissingPackageError) else ""
            hint = f"{mend}this bundle carries its FP32 model as well: serve it with --fallback, or as '{spare}'"
            raise ArtifactError(error.message, hint=hint) from error
        console.say(f"{name}: {error.message}; its FP32 model is served")
        return _opened(spare, settings, name)


def _opened(directory: Path, settings: ServeSettings, name: str) -> Served:
    candidate = bundle.load(directory)
    _without_torch(candidate)
    options = candidate.options.model_copy(update={"threads": settings.threads_each, "batch": 1})
    candidate = candidate.model_copy(update={"options": options})
    sessions = tuple(open_candidate(candidate) for _ in range(settings.sessions))
    for runner in sessions:
        golden.check(directory, candidate.artifact.preprocess, runner)
    pixels, _ = golden.load_images(directory, candidate.artifact.preprocess)

    def compiled(size: int) -> tuple[Runner, ...]:
        other = candidate.model_copy(update={"options": options.model_copy(update={"batch": size})})
        return tuple(open_candidate(other) for _ in range(settings.sessions))

    most = settings.max_batch if answers_alone(sessions[0], pixels) else 1
    fixed = runtimes.get(candidate.runtime).fixed_batch
    runners, costs = _measured(sessions, compiled if fixed else None, pixels, most)
    return Served(
        name=name, directory=directory, candidate=candidate, runners=runners, largest=max(costs),
        steps=_steps(costs, padded=fixed),
    )  # fmt: skip


def _without_torch(candidate: Candidate) -> None:
    """Serving goes without PyTorch: its import takes seconds and hundreds of megabytes, in every worker."""
    if candidate.runtime == "torch":
        raise ArtifactError(
            f"'{candidate.name}' runs in PyTorch, which the server does without",
            hint="make a bundle of one of its exports: add +onnx or +openvino to the chain",
        )
    decoder = candidate.artifact.preprocess.decoder
    if "torch" in decoder.split("-"):
        raise ArtifactError(
            f"its images are resized by PyTorch (decoder '{decoder}'), which the server does without",
            hint="leave the step 'decoder' out of the chain",
        )


def _measured(
    sessions: tuple[Runner, ...],
    compiled: Callable[[int], tuple[Runner, ...]] | None,
    pixels: NDArray[np.uint8],
    most: int,
) -> tuple[dict[int, tuple[Runner, ...]], dict[int, float]]:
    """The runners, and the seconds of a batch by its size: sizes grow as long as an image costs less in a larger batch.

    It is measured here, where it will run: on one CPU a large INT8 network gains nothing by batches, and its answers
    would only come later; a small one takes as long for eight images as for two.
    """
    runners = {1: sessions}
    costs = {1: _seconds(sessions[0], pixels, 1)}
    sizes = COMPILED if compiled else tuple(2**power for power in range(1, 11))
    for size in sizes:
        if size > most:
            break
        tried = compiled(size) if compiled else sessions
        seconds = _seconds(tried[0], pixels, size)
        before = max(costs)
        if seconds / size > GAIN * costs[before] / before:
            break
        costs[size] = seconds
        if compiled:
            runners[size] = tried
    return runners, costs


def _seconds(runner: Runner, pixels: NDArray[np.uint8], size: int) -> float:
    """The shortest of a few calls, after one that is not counted."""
    batch = np.resize(pixels, (size, *pixels.shape[1:]))
    times = []
    for _ in range(REPEATS + 1):
        before = time.perf_counter()
        runner(batch)
        times.append(time.perf_counter() - before)
    return min(times[1:])


def _steps(costs: dict[int, float], *, padded: bool) -> tuple[int, ...]:
    """For each number of waiting images, how many to take: all of them where any size can be run, else the number that
    makes an image cheapest, padding counted."""
    largest = max(costs)
    if not padded:
        return tuple(range(largest + 1))
    steps = [0]
    for waiting in range(1, largest + 1):
        size = min(costs, key=lambda size: costs[size] / min(size, waiting))
        steps.append(min(size, waiting))
    return tuple(steps)
