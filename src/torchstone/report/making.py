"""How a candidate was made, step by step, and what became of the network on the way."""

from __future__ import annotations

import inspect
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from torchstone.core import registry
from torchstone.core.artifact import lineage
from torchstone.core.errors import ArtifactError, UserError
from torchstone.core.values import Artifact

TYPES = {
    "F64": "FP64", "F32": "FP32", "F16": "FP16", "BF16": "BF16", "I8": "INT8", "U8": "INT8", "FLOAT": "FP32",
    "DOUBLE": "FP64", "FLOAT16": "FP16", "BFLOAT16": "BF16", "INT8": "INT8", "UINT8": "INT8", "I4": "INT4",
    "U4": "INT4", "INT4": "INT4", "UINT4": "INT4",
}  # fmt: skip
"""What the formats call the types that weights have; tensors of another type are shapes and sums."""


@dataclass(frozen=True, kw_only=True)
class MadeStep:
    """One step of a candidate's chain."""

    spelt: str
    """As in the chain."""
    inserted: bool
    """A conversion that the chain did not spell out."""
    words: str
    """What such a step does."""
    options: tuple[tuple[str, str, str], ...]
    """Those that were chosen: name, value, what it means."""
    notes: tuple[str, ...]
    """What it had to say of this model."""
    seconds: float | None
    """Wall time that it took; None: not known."""


@dataclass(frozen=True, kw_only=True)
class Making:
    """From the baseline to a candidate."""

    steps: list[MadeStep]

    @property
    def seconds(self) -> float:
        """Of all steps whose time is known."""
        return sum(step.seconds or 0.0 for step in self.steps)

    @property
    def unknown(self) -> int:
        """Steps whose time is not known."""
        return sum(step.seconds is None for step in self.steps)


@dataclass(frozen=True, kw_only=True)
class Network:
    """Of the network that a candidate computes, before a format and its runtime rearranged it."""

    parameters: int
    macs: int
    """Multiply-accumulates of one image."""


def making_of(artifact: Artifact, baseline: Artifact) -> Making | None:
    """The steps since the baseline or, where it is no ancestor, since the model that the chain began with. None where
    an artifact between is gone."""
    try:
        way = lineage(artifact)
    except ArtifactError:
        return None
    start = next((at for at, one in enumerate(way) if one.id == baseline.id), 0)
    label, steps = way[start].chain, []
    for before, one in pairwise(way[start:]):
        follower = way[way.index(one) + 1].chain if one is not way[-1] else None
        inserted = follower is not None and not follower.startswith(f"{one.chain}+")
        spelt = one.chain.removeprefix(label).lstrip("+") or one.made_by.step
        steps.append(_step(one, before, spelt, inserted=inserted))
        label = label if inserted else one.chain
    return Making(steps=steps)


def _step(made: Artifact, before: Artifact, spelt: str, *, inserted: bool) -> MadeStep:
    words, options = "", ()
    if made.made_by.step in registry.steps.names():  # not one of a package that is no longer installed
        step = registry.steps.get(made.made_by.step)
        words = inspect.getdoc(inspect.getmodule(type(step))) or ""
        options = _chosen(step, made.made_by.config, spelt)
    return MadeStep(
        spelt=spelt,
        inserted=inserted,
        words=words.partition("\n\n")[0].partition(";")[0].rstrip(".").replace("\n", " "),
        options=options,
        notes=made.notes[len(before.notes) :],
        seconds=made.seconds,
    )


def _chosen(step: Any, config: Mapping[str, Any], spelt: str) -> tuple[tuple[str, str, str], ...]:
    """The options that are not as they would have been anyhow, and the one that the chain gives as the step's value."""
    chosen = []
    for name, field in step.Config.model_fields.items():
        value = config.get(name)
        said = name == step.value_option and "=" in spelt.partition(":")[0]
        if value is not None and (said or value != field.default):
            shown = f"{value:g}" if isinstance(value, float) else str(value)
            chosen.append((name, shown, field.description or ""))
    return tuple(chosen)


def source_of(artifact: Artifact) -> Artifact | None:
    """The torch model that it was made from last, or is; None where that is gone."""
    try:
        return next((one for one in reversed(lineage(artifact)) if one.format == "torch"), None)
    except ArtifactError:
        return None


def network_of(source: Artifact) -> Network | None:
    """Of a torch model; None where its weights are gone, or torch is missing."""
    if registry.missing_packages(("torch", "safetensors")) or not _stored(source):
        return None
    from torchstone.models import cost, store, zoo

    try:
        model = store.load(source)
        return Network(parameters=zoo.parameters(model.network), macs=cost.macs_of(model, source.preprocess.crop))
    except (UserError, ImportError):  # an architecture that is no longer there
        return None


def _stored(source: Artifact) -> bool:
    return any(name.endswith(".safetensors") and (source.directory / name).exists() for name in source.files)


def weights_of(artifact: Artifact) -> dict[str, float]:
    """In which types the weights are stored: shares that add up to 1, the largest first. Empty where the files do not
    say, or cannot be read here."""
    values: Counter[str] = Counter()
    try:
        for name in artifact.files:
            path = artifact.directory / name
            for type_name, shape in _tensors(path):
                values[TYPES.get(type_name.upper(), "")] += math.prod(shape)
    except (OSError, ValueError, KeyError, ElementTree.ParseError):
        return {}
    del values[""]
    whole = values.total()
    return {name: count / whole for name, count in values.most_common()} if whole else {}


def _tensors(path: Path) -> Sequence[tuple[str, Sequence[int]]]:
    """Type and shape of each stored tensor of a model's file."""
    if path.suffix == ".safetensors":
        with path.open("rb") as file:
            length = min(int.from_bytes(file.read(8), "little"), path.stat().st_size)  # of a damaged file: anything
            header = json.loads(file.read(length))
        return [(one["dtype"], one["shape"]) for name, one in header.items() if name != "__metadata__"]
    if path.suffix == ".xml":
        data = [layer.find("data") for layer in ElementTree.parse(path).iter("layer") if layer.get("type") == "Const"]
        return [
            (one.attrib["element_type"], [int(side) for side in one.attrib["shape"].split(",") if side.strip()])
            for one in data
            if one is not None
        ]
    if path.suffix == ".onnx" and not registry.missing_packages(("onnx",)):
        import onnx

        return [
            (onnx.TensorProto.DataType.Name(tensor.data_type), tensor.dims)
            for tensor in onnx.load(str(path)).graph.initializer
        ]
    return []
