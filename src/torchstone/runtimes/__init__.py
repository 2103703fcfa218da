"""Runtimes: one file each. They open an artifact's files and run them behind one contract, `core.contracts.Runner`."""

from __future__ import annotations

from torchstone.core.contracts import Runner
from torchstone.core.errors import ConfigError
from torchstone.core.registry import runtimes
from torchstone.core.values import Artifact, Candidate, Format, RuntimeOptions

__all__ = ["default_runtime", "open_artifact", "open_candidate"]


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
    """The runtime whose native format this is: torch, onnx → onnxruntime, openvino."""
    for name in runtimes.names():
        if runtimes.get(name).formats[0] == format:
            return name
    raise ConfigError(f"no runtime has '{format}' as its native format")
