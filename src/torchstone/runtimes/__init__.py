"""Runtimes: one file each. They open an artifact's files and run them behind one contract, `core.contracts.Runner`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from torchstone.core.contracts import Runner
from torchstone.core.errors import ConfigError
from torchstone.core.registry import runtimes
from torchstone.core.values import Artifact, Candidate, Format, RuntimeOptions

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["answers_alone", "default_runtime", "open_artifact", "open_candidate"]


def open_candidate(candidate: Candidate) -> Runner:
    """The candidate's model, loaded, checked and warm.

    Raises a ConfigError for an unknown runtime, a MissingPackageError for one that is not installed, and an
    ArtifactError when the runtime refuses the model or the options.
    """
    return open_artifact(candidate.artifact, candidate.options, runtime=candidate.runtime)


def open_artifact(artifact: Artifact, options: RuntimeOptions | None = None, *, runtime: str | None = None) -> Runner:
    """The artifact in ``runtime`` (by default the native one of its format). Raises as ``open_candidate``."""
    plugin = runtimes.ready(runtime or default_runtime(artifact.format))
    return plugin.open(artifact, options or RuntimeOptions())


def default_runtime(format: Format) -> str:
    """The runtime whose native format this is (onnx → onnxruntime, tflite → litert), else one that opens it (pt2 →
    torch)."""
    opening = [name for name in runtimes.names() if format in runtimes.get(name).formats]
    if not opening:
        raise ConfigError(f"no runtime opens '{format}'")
    return min(opening, key=lambda name: runtimes.get(name).formats.index(format))


def answers_alone(runner: Runner, pixels: NDArray[np.uint8]) -> bool:
    """Whether an image's answer is the same whoever shares its batch, asked of ``pixels``, uint8[n, H, W, 3]. Dynamic
    quantisation finds its ranges over the whole batch: such a model is given one image at a time."""
    half = (len(pixels) + 1) // 2
    some, others = pixels[:half], 255 - pixels[:half]
    here = runner(np.concatenate([some, some]))["logits"][:half]
    there = runner(np.concatenate([some, others]))["logits"][:half]
    return np.array_equal(here, there)
