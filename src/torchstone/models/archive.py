"""PyTorch's exported programs on disk (``.pt2``): written without a pickle, and opened only where there is none.

``torch.export.load`` unpickles whatever an archive asks it to (PyTorch 2.14: sample inputs, weights of tensor
subclasses, constants that are Python objects). Where a restricted unpickling refuses, it uses a full one, and it runs
libraries that were compiled into the archive. All of that is named in the archive's own tables, which are read here
first. What is left, the graph in JSON, still has its symbolic sizes read by SymPy's parser, which evaluates them as
Python: so an archive is opened where its hash is that of an artifact made here, and never imported from elsewhere.
"""

from __future__ import annotations

import json
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from torchstone.core.errors import ArtifactError

TABLES = ("data/weights/", "data/constants/")
"""Where an archive's tables of tensors lie, and the tensors themselves."""
EMPTY_TUPLE = 1024
"""Bytes that sample inputs may take at most: those of an empty pickle are some hundred."""


def save(program: torch.export.ExportedProgram, path: Path) -> None:
    """Write the program without its example inputs, and refuse to leave an archive that cannot be opened safely."""
    program.example_inputs = None
    with warnings.catch_warnings():
        # Of weights in channels_last, which are written as they lie in memory, with their strides.
        warnings.filterwarnings("ignore", "No complete tensor found", UserWarning)
        torch.export.save(program, path)
    check(path)


def load(path: Path) -> torch.nn.Module:
    """The archive's program as a module. An ArtifactError where opening it would unpickle or run something."""
    check(path)
    return torch.export.load(path).module()


def check(path: Path) -> None:
    """Raise an ArtifactError for an archive of which anything is unpickled, compiled or unknown."""
    try:
        with zipfile.ZipFile(path) as archive:
            reasons = [reason for name in archive.namelist() if (reason := _unsafe(archive, name))]
    except (zipfile.BadZipFile, OSError, ValueError, KeyError, AttributeError) as error:
        raise ArtifactError(
            f"'{path}' is no archive of torch.export: {error}", hint="delete its directory and run the command again"
        ) from None
    if reasons:
        raise ArtifactError(
            f"'{path}' is not opened: {reasons[0]}", hint="export the model again: add +pt2 to the chain of its weights"
        )


def _unsafe(archive: zipfile.ZipFile, name: str) -> str | None:
    """Why this member of the archive cannot be trusted, or None."""
    inside = name.split("/", 1)[1] if "/" in name else name
    if inside.startswith("data/aotinductor/") or inside.endswith(".so"):
        return f"it holds compiled code ('{inside}')"
    if inside.startswith("data/sample_inputs/") and archive.getinfo(name).file_size:
        return "it holds sample inputs, which are a pickle"
    if inside.startswith(TABLES):
        if inside.endswith(".pt"):
            return f"'{inside}' is a pickle"
        if inside.endswith(".json"):
            table: dict[str, Any] = json.loads(archive.read(name))["config"]
            pickled = [tensor for tensor, what in table.items() if what["use_pickle"]]
            if pickled:
                return f"'{pickled[0]}' is stored as a pickle"
    return None
