"""The values that flow between the stages: frozen, keyword-only, with a JSON round trip."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from torchstone.core import files
from torchstone.core.errors import ArtifactError

Format = Literal["torch", "onnx", "openvino", "pt2", "tensorrt", "tflite"]
Part = Literal["train", "val", "calib", "test"]
Precision = Literal["f32", "bf16"]
Severity = Literal["error", "warning", "info"]
Decision = Literal["drop", "review"]
Outcome = Literal["pass", "fail", "undecided", "void"]
Metric = Literal["top1", "macro_f1", "auroc", "ece"]

PARTS: tuple[Part, ...] = ("train", "val", "calib", "test")
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")
"""The gravest first."""
METRICS: dict[Metric, str] = {"top1": "top-1", "macro_f1": "macro F1", "auroc": "AUROC", "ece": "calibration error"}
"""What a margin can be about, as it is printed. AUROC is of each class against the rest, averaged over the classes; the
calibration error has 15 bins of equal width."""
LESS_IS_BETTER: frozenset[Metric] = frozenset({"ece"})
"""Metrics that a worse model has more of; all others are worse where they fall."""

CATALOG_VERSION = 3
"""Of the catalog's columns and what they mean: raise it when either changes."""


class Value(BaseModel):
    """Base of the values: unknown fields are refused, nothing can be changed after it is made."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    schema_version: int = 1

    def save(self, path: Path) -> None:
        files.write_json(path, self.model_dump(mode="json"))

    @classmethod
    def load(cls, path: Path) -> Self:
        """The value stored at ``path``; an ArtifactError names the file and the field that does not fit."""
        content = files.read_json(path)
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            first, *others = error.errors(include_url=False, include_input=False)
            where = ".".join(map(str, first["loc"])) or "all of it"
            more = f", and {len(others)} more" if others else ""
            raise ArtifactError(
                f"'{path}' is no valid {cls.__name__}: {where}: {first['msg'][:1].lower()}{first['msg'][1:]}{more}",
                hint="was it made by another version of torchstone?",
            ) from None

    def digest(self) -> str:
        """Hex digest of the content."""
        return files.digest(self.model_dump(mode="json"))


class Finding(Value):
    """What a check noticed: of the data, of the machine or of a training run."""

    check: str
    severity: Severity
    message: str
    hint: str | None = None
    items: tuple[str, ...] = Field(
        default=(), description="what it is about, the worst first; stored findings name the first few alone"
    )
    scores: tuple[float, ...] = Field(default=(), description="of each item, where the check ranks them")
    suggested: tuple[str, ...] = Field(default=(), description="for each item, the class it seems to belong to")
    groups: tuple[tuple[str, ...], ...] = Field(
        default=(), description="items to be looked at side by side, the one to keep first"
    )
    decision: Decision | None = Field(default=None, description="what a cleaned catalog does with each of the items")
    tries: tuple[str, ...] = Field(
        default=(), description="options of the recipe that the hint proposes first, such as lr=0.01"
    )
    follows: str | None = Field(
        default=None, description="the check whose finding explains this one: what to try stands there"
    )
    evidence: dict[str, Any] = {}

    @property
    def grave(self) -> int:
        """Key of an order in which the gravest come first."""
        return SEVERITIES.index(self.severity)


class Catalog(Value):
    """What a data set holds. ``table`` is a Parquet file with one row for each usable image:

    - ``item`` (str, unique), ``path`` (str, what the reader opens), ``label`` (int32, index into ``classes``);
    - ``sha256`` (of the decoded RGB pixels, so that re-encoded copies count as one), ``picture`` (int32: images that
      show the same picture, re-compressed, resized, mirrored, trimmed or brightened, share the number);
    - ``group`` (str or null: items that must not be separated), ``part`` (str or null: the source's own split),
      ``time`` (str or null, ISO 8601);
    - ``width``, ``height`` (int32, pixels), ``format`` (str, what the content is), ``bytes`` (int64, encoded),
      ``converted`` (str: the rules of decoding that had something to do, joined by commas);
    - what ``data.measure`` takes from the pixels, a float32 column each;
    - for items cut from pictures: ``box_picture`` and ``box_x0`` … ``box_annotator`` (``contracts.Box``).
    """

    schema_version: int = CATALOG_VERSION
    root: str
    reader: str
    task: Literal["classification"] = "classification"
    classes: tuple[str, ...]
    images: int
    fingerprint: str = Field(description="digest of the sorted (sha256, label) pairs: the same images, the same value")
    table: Path

    @classmethod
    def load(cls, path: Path) -> Self:
        """The catalog stored at ``path``; an ArtifactError where its table is of another version than is read here."""
        content = files.read_json(path)
        version = content.get("schema_version") if isinstance(content, dict) else None
        if isinstance(version, int) and version != CATALOG_VERSION:
            root = content.get("root", "DATA")
            raise ArtifactError(
                f"'{path}' is a catalog of version {version}; this torchstone reads version {CATALOG_VERSION}",
                hint=f"read the images again: torchstone train {shlex.quote(str(root))}, with the run's --name if it "
                "has one",
            )
        return super().load(path)


class Split(Value):
    """Which item belongs to which part. ``table`` is a Parquet file of ``item``, ``part`` (null: left out) and
    ``sha256``."""

    seed: int
    sizes: dict[Part, int]
    fingerprint: str = Field(description="digest over all four parts")
    test_fingerprint: str = Field(description="digest of the test images and labels alone: what the ledger counts by")
    earlier_tests: tuple[str, ...] = Field(
        default=(), description="test fingerprints of the splits that this one went on from, the first one first"
    )
    table: Path


IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's pixels on the 0..1 scale, red, green, blue: what most weights from elsewhere were trained with."""


class Preprocess(Value):
    """How an encoded image becomes uint8[crop, crop, 3]; stored with the weights, applied everywhere by one function.

    ``mean`` and ``std`` are on the 0..1 scale, in the order red, green, blue; they are applied inside the exported
    graph, or where ``InputSpec.normalised`` is false, on the way into a file from elsewhere.

    ``resize_mode`` is ``short`` (the shorter side becomes ``resize`` pixels, then a centre crop) or ``squash`` (both
    sides become ``resize``).
    ``decoder`` is ``pillow``, or ``simplejpeg-torch``: JPEG files decoded by simplejpeg, large ones at a fraction of
    their size, and all images resized by PyTorch. It is faster, and not quite the same.
    """

    decoder: Literal["pillow", "simplejpeg-torch"] = "pillow"
    decoder_version: str
    exif_rotation: Literal["apply", "ignore"] = "apply"
    alpha: Literal["white"] = "white"
    sixteen_bit: Literal["scale"] = "scale"
    cmyk: Literal["convert"] = "convert"
    animation: Literal["first-frame"] = "first-frame"
    resize_mode: Literal["short", "squash"] = "short"
    resize: int = Field(gt=0)
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bilinear"
    antialias: Literal[True] = True
    crop: int = Field(gt=0)
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    colour: Literal["rgb"] = "rgb"
    channels: Literal[1, 3] = Field(default=3, description="1: the graph takes the luma (ITU-R 601) of the RGB pixels")


class InputSpec(Value):
    """What the model file itself wants. The default is torchstone's own contract; a file from elsewhere may want its
    images in another order, and normalised by whoever calls it."""

    name: str = "image"
    layout: Literal["NHWC", "NCHW"] = "NHWC"
    dtype: Literal["uint8", "float32"] = "uint8"
    colour: Literal["rgb", "bgr"] = "rgb"
    normalised: bool = Field(
        default=True, description="the graph normalises its pixels itself; false: it is given what ``Preprocess`` says"
    )


class OutputSpec(Value):
    """What the model file gives."""

    name: str = "logits"
    kind: Literal["logits", "probabilities"] = "logits"
    class_offset: int = Field(default=0, description="index of the first real class (1 where index 0 is 'background')")


class MadeBy(Value):
    """The step that made an artifact."""

    step: str
    version: int
    config: dict[str, Any] = {}


class Artifact(Value):
    """A model on disk. ``id`` is a hash of its files and how they are read; ``key`` a hash of all that went into it
    (the place where a run looks before it builds)."""

    id: str
    key: str
    directory: Path = Field(default=Path(), exclude=True)
    format: Format
    files: dict[str, str] = Field(description="file name: sha256")
    architecture: str
    architecture_options: dict[str, Any] = {}
    task: Literal["classification"] = "classification"
    classes: tuple[str, ...]
    preprocess: Preprocess
    input: InputSpec = InputSpec()
    output: OutputSpec = OutputSpec()
    precision: Precision = Field(
        default="f32", description="the arithmetic its floating-point layers are meant to run in"
    )
    mirrored: bool = Field(
        default=False, description="its logits are the mean of those of an image and of its mirror image"
    )
    parent: str | None = None
    made_by: MadeBy
    chain: str = Field(default="", description="the steps from the trained model to here")
    notes: tuple[str, ...] = Field(default=(), description="what the steps of its chain have to say of it, in order")
    seconds: float | None = Field(
        default=None,
        description="wall time that its own step took, with what interrupted attempts left; None: not known",
    )
    split_fingerprint: str
    environment: dict[str, Any] = {}

    @property
    def steps(self) -> tuple[str, ...]:
        """Names of the steps of its chain, as they were written: without the conversions between them."""
        return tuple(re.findall(r"(?:^|\+)([a-z0-9_]+)", self.chain))

    @property
    def size_mb(self) -> float:
        """Size of the model's files as shipped, in 10⁶ bytes."""
        return sum((self.directory / name).stat().st_size for name in self.files) / 1e6


class RuntimeOptions(Value):
    """How a runtime executes: everything that changes speed or numbers is explicit."""

    threads: int = Field(default=1, gt=0)
    precision: Precision = "f32"
    batch: int = Field(default=1, gt=0, description="the batch size that the model is compiled for, where that matters")
    provider: Literal["cpu", "cuda"] = "cpu"


class Candidate(Value):
    """An artifact in a runtime with its options: what is judged and what is served."""

    name: str = Field(description="as typed and as printed: 'int8@openvino'")
    artifact: Artifact
    runtime: str
    options: RuntimeOptions = RuntimeOptions()
    free: bool = Field(default=False, description="costs nothing to make: the baseline's weights, unchanged")

    @property
    def id(self) -> str:
        return files.digest([self.artifact.id, self.runtime, self.options.model_dump(mode="json")])

    def repeats(self, baseline: Candidate) -> bool:
        """Whether its sums are those of ``baseline``, as the export has proven: the same weights in float32, on the
        same pixels. Not of everything that is free: half precision, another decoder or size answer otherwise."""
        ours, theirs = self.artifact, baseline.artifact
        exported = self.free and ours.made_by.step == ours.format and self.options.precision == "f32"
        return exported and ours.preprocess == theirs.preprocess and ours.mirrored == theirs.mirrored

    @property
    def description(self) -> dict[str, Any]:
        """All but the artifact, which lies in a directory of its own: what ``described`` takes back."""
        return self.model_dump(mode="json", include={"name", "runtime", "options", "free"})

    @classmethod
    def described(cls, artifact: Artifact, description: Any, path: Path) -> Candidate:
        """The candidate of this artifact; an ArtifactError names ``path`` when the description does not fit."""
        try:
            return cls.model_validate({**description, "artifact": artifact})
        except (TypeError, ValueError) as error:
            raise ArtifactError(f"'{path}' does not describe a candidate: {error}") from None

    @property
    def slug(self) -> str:
        """A directory name: readable, and unique by its hash."""
        plain = "".join(letter if letter.isalnum() or letter in "=." else "-" for letter in self.name)
        return f"{plain[:48]}-{self.id[:8]}"


class Budget(Value):
    """What a candidate has to keep to. A criterion that is None is not judged."""

    max_drop: float = Field(
        default=1.0, gt=0, lt=100, description="points of the metric that may be lost against the baseline"
    )
    metric: Metric = Field(default="top1", description="what the margin is about")
    confidence: float = Field(
        default=0.95, gt=0.5, lt=1, description="total one-sided confidence over all looks at a test set"
    )
    min_speedup: float | None = Field(default=None, gt=0, description="times faster than the baseline at batch 1")
    max_latency_ms: float | None = Field(
        default=None, gt=0, description="bound on the median at batch 1, in milliseconds"
    )
    max_size_mb: float | None = Field(default=None, gt=0, description="size of the model's files, in 10⁶ bytes")
