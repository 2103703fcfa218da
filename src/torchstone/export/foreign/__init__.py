"""Model files that somebody else made: what one says of itself, and how it becomes an artifact. One file a format."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torchstone.core import registry
from torchstone.core.errors import ArtifactError, MissingPackageError
from torchstone.core.values import Format, InputSpec, OutputSpec

FORMATS: dict[str, Format] = {".onnx": "onnx", ".tflite": "tflite"}
"""Formats by the suffix of a file. Neither can hold code: pickles (``.pt``, ``.pth``, ``.pt2``) are not read."""
NEEDED = {"onnx": ("onnx", "onnxruntime"), "tflite": ("ai_edge_litert",)}


@dataclass(frozen=True, kw_only=True)
class Described:
    """What a model file says of itself."""

    format: Format
    input: InputSpec
    """As the file takes it, its colours as declared."""
    side: int | None
    """Pixels a side; None: any."""
    output: OutputSpec
    """Its name, and where the file says so, that it gives probabilities; the offset is to be found out."""
    outputs: int | None
    """Scores an image; None: the file does not say."""
    notes: tuple[str, ...] = ()


def back_end(path: Path) -> Any:
    """The module that reads this kind of file: ``describe(path, layout, output)``, ``adopted(path, artifact,
    directory)``, ``answered(path, artifact, pixels)`` and ``baked(artifact, directory)``.

    An ArtifactError for a file of another kind, a MissingPackageError where its packages are not there.
    """
    format = FORMATS.get(path.suffix.lower())
    if not path.is_file():
        raise ArtifactError(f"'{path}' is not a file", hint=f"name a model: {' or '.join(FORMATS)}")
    if format is None:
        raise ArtifactError(
            f"'{path.name}' is no kind of model that is imported",
            hint=f"understood: {' and '.join(FORMATS)}; files that unpickle are refused, export them to ONNX first",
        )
    missing = registry.missing_packages(NEEDED[format])
    if missing:
        raise MissingPackageError(f"importing '{path.name}'", missing)
    return importlib.import_module(f"torchstone.export.foreign.{format}_file")


def square(path: Path, height: int | None, width: int | None) -> int | None:
    """The side of a square image; an ArtifactError for another shape."""
    if height != width:
        raise ArtifactError(
            f"'{path}' takes images of {height} × {width} pixels", hint="only models of square images are imported"
        )
    return height
