"""Between torchstone's contract (uint8 RGB images in, logits out) and what a model file itself takes and gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from torchstone.core.contracts import Runner, Runtime
from torchstone.core.errors import ArtifactError
from torchstone.core.values import Artifact, OutputSpec, RuntimeOptions

if TYPE_CHECKING:
    from numpy.typing import NDArray

Forward = Callable[["NDArray"], "NDArray"]
"""What a runtime adds: the model's own input for N images → its raw scores [N, C + class_offset], any N ≥ 1."""


def check(name: str, runtime: Runtime, artifact: Artifact, options: RuntimeOptions) -> None:
    """Refuse what ``runtime`` does not declare, so that nothing falls back in silence."""
    if artifact.format not in runtime.formats:
        raise ArtifactError(
            f"runtime '{name}' opens {' and '.join(runtime.formats)}; this artifact is {artifact.format}",
            hint=f"export it first: add +{runtime.formats[0]} to its chain",
        )
    if options.precision not in runtime.precisions:
        raise ArtifactError(
            f"runtime '{name}' has no {options.precision} arithmetic; it has {', '.join(runtime.precisions)}",
            hint=f"use {options.precision} in another runtime, such as openvino or torch",
        )
    if artifact.input.dtype == "uint8" and not artifact.input.normalised:
        raise ArtifactError(
            "bytes cannot be normalised before a model is given them", hint="its input is float32, or it normalises"
        )


def model_file(artifact: Artifact, suffix: str) -> Path:
    """The artifact's only file that ends in ``suffix``."""
    found = [name for name in artifact.files if name.endswith(suffix)]
    if len(found) != 1:
        raise ArtifactError(
            f"'{artifact.directory}' should hold one {suffix} file, and lists {len(found)}",
            hint="delete the directory and run the same command again",
        )
    path = artifact.directory / found[0]
    if not path.is_file():
        raise ArtifactError(f"'{path}' is missing", hint="delete the directory and run the same command again")
    return path


def refused(name: str, path: Path, error: Exception) -> ArtifactError:
    """What a runtime's own exception (each has its own classes) looks like to the user."""
    reason = " ".join(str(error).split())[:400] or type(error).__name__
    return ArtifactError(
        f"runtime '{name}' cannot open '{path}': {reason}",
        hint="the file may be damaged (delete its directory and run again), or need another version of the runtime",
    )


def runner(name: str, path: Path, artifact: Artifact, forward: Forward) -> Runner:
    """A Runner around ``forward``, after it has answered one image: a model that cannot run is refused here."""
    made = ModelRunner(artifact, forward)
    crop = artifact.preprocess.crop
    try:
        made(np.zeros((1, crop, crop, 3), np.uint8))
    except Exception as error:
        raise refused(name, path, error) from error
    return made


class ModelRunner:
    """Checks the batch, gives the model the input it wants, and makes logits of what it answers."""

    def __init__(self, artifact: Artifact, forward: Forward) -> None:
        self._image = (artifact.preprocess.crop, artifact.preprocess.crop, 3)
        self._classes = len(artifact.classes)
        self._artifact = artifact
        self._forward = forward

    def __call__(self, batch: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]]:
        if batch.dtype != np.uint8 or batch.ndim != 4 or batch.shape[1:] != self._image or not len(batch):
            raise ValueError(
                f"a batch is uint8[N, {', '.join(map(str, self._image))}], not {batch.dtype}{[*batch.shape]}"
            )
        logits = to_logits(self._forward(to_input(batch, self._artifact)), self._artifact.output)
        if logits.shape != (len(batch), self._classes):
            expected = [len(batch), self._classes]
            raise ValueError(f"the model gives {[*logits.shape]} where {expected} (images, classes) was expected")
        return {"logits": logits}


def to_input(batch: NDArray[np.uint8], artifact: Artifact) -> NDArray:
    """uint8[N, H, W, 3] RGB → what the model file wants. Nothing is copied for torchstone's own exports."""
    spec = artifact.input
    images: NDArray = batch
    if spec.dtype == "float32":
        images = images.astype(np.float32)
    if not spec.normalised:
        mean, std = (
            np.array(values, np.float32) * 255 for values in (artifact.preprocess.mean, artifact.preprocess.std)
        )
        images = (images - mean) / std
    if spec.colour == "bgr":
        images = images[..., ::-1]
    if spec.layout == "NCHW":
        images = images.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(images)


def to_logits(raw: NDArray, spec: OutputSpec) -> NDArray[np.float32]:
    """float32[N, C]. Probabilities become their logarithms: the logits up to a constant, which no softmax sees. Sides
    of length 1 behind the classes, as fully convolutional networks have them, are left out."""
    scores = raw.reshape(raw.shape[:2]) if raw.ndim > 2 and raw[0, 0].size == 1 else raw
    scores = scores[:, spec.class_offset :].astype(np.float32, copy=False)
    if spec.kind == "probabilities":
        scores = np.log(np.maximum(scores, np.finfo(np.float32).tiny))
    return scores


def in_chunks(fill: Forward, size: int) -> Forward:
    """Calls of ``fill``, which takes at most ``size`` images at once, for any number of them."""

    def forward(batch: NDArray) -> NDArray:
        if len(batch) <= size:
            return fill(batch)
        return np.concatenate([fill(batch[start : start + size]) for start in range(0, len(batch), size)])

    return forward
