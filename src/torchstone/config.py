"""Everything a run can be told, in one value: the flags of the command line and the keys of the TOML file are its
fields, with dashes for underscores."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from torchstone.core import files
from torchstone.core.errors import ConfigError, nearest
from torchstone.core.run import Run, slug
from torchstone.core.values import Budget, Value
from torchstone.data import augment as augmentation
from torchstone.data import sampling
from torchstone.data.augment import PolicyName
from torchstone.data.sampling import SamplerName
from torchstone.data.split.cut import DESCRIPTION, By

LADDER = (
    "onnx",
    "openvino",
    "bf16@openvino",
    "int8@onnxruntime",
    "int8@openvino",
    "prune=0.3+finetune={finetune}+int8@openvino",
)
"""What is tried when no chain is named: what costs nothing first, then each compression alone, then both."""


JUDGING = (
    "chain",
    "finetune",
    "threads",
    "quartets",
    *(name for name in Budget.model_fields if name != "schema_version"),
)
"""What is said of the candidates and the verdict, not of the training."""
SHARED = ("audits", "cache", "ledger", "sheets")
"""Folders beside the runs that are no runs."""


class Settings(Value):
    """What ``run`` and ``train`` do. None leaves the choice to the model or the recipe."""

    data: str = Field(description="a folder of images, or 'digits'")
    name: str | None = Field(default=None, description="name of the run; by default made of data, model and options")
    runs: Path = Field(default=Path("runs"), description="folder of all runs, their cache and their ledger")
    seed: int = Field(default=0, ge=0, description="of split, weights, order and augmentation")
    test_fraction: float = Field(default=0.2, gt=0, lt=1, description="of all images, if the source has no test part")
    split_by: By = Field(default="quota", description=DESCRIPTION)
    previous_split: Path | None = Field(default=None, description="a split.parquet whose images stay in their parts")

    model: str | None = Field(
        default=None, description="lenet5, resnet9, resnet20, or any of timm and torchvision; by default by the images"
    )
    weights: str | None = Field(default=None, description="start from a file, or from lite0, lite1, lite2 (ImageNet)")
    image_size: int | None = Field(default=None, ge=8, description="pixels a side that the network sees")
    small_input: bool = Field(default=False, description="adapt the first layers to images of about 32 pixels")
    channels: Literal[1, 3] = Field(default=3, description="1: the network sees the luma alone")

    epochs: int | None = Field(default=None, ge=0, description="passes over the training part; 0 keeps the weights")
    batch: int | None = Field(default=None, ge=2, description="images a training step")
    optimiser: Literal["adamw", "sgd"] | None = Field(default=None, description="sgd is Nesterov's")
    lr: float | None = Field(default=None, gt=0, description="peak learning rate")
    weight_decay: float | None = Field(default=None, ge=0, description="not applied to norms and biases")
    label_smoothing: float | None = Field(default=None, ge=0, lt=1, description="share of the target spread evenly")
    augment: PolicyName | None = Field(
        default=None,
        description=augmentation.DESCRIPTION,
    )
    mixup: float | None = Field(
        default=None, ge=0, description="blend images in pairs, and their labels: MixUp's alpha, such as 0.2; 0: off"
    )
    cutmix: float | None = Field(
        default=None, ge=0, description="paste a piece of one image into another: CutMix's alpha, such as 1; 0: off"
    )
    sampler: SamplerName | None = Field(default=None, description=sampling.DESCRIPTION)
    class_weights: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="let rare classes count more in the loss: beta, such as 0.999, at most below 1; 0: all alike",
    )
    workers: int | None = Field(
        default=None, ge=0, description="processes that prepare batches, 0: none; by default by what that costs"
    )
    cache_gb: float | None = Field(
        default=None, ge=0, description="10⁹ bytes of decoded images kept beside the runs; by default by the free disk"
    )
    precision: Literal["auto", "f32", "bf16"] | None = Field(default=None, description="arithmetic of the training")
    patience: int | None = Field(default=None, ge=1, description="epochs without progress on val before it stops")

    chain: tuple[str, ...] = Field(
        default=(), description="a chain to judge, such as prune=0.3+finetune=2+int8@openvino"
    )
    finetune: int = Field(default=2, ge=1, description="epochs of fine-tuning in the ladder's pruned chain")
    threads: int = Field(default=1, ge=1, description="threads of each candidate while it is timed")
    quartets: int = Field(default=16, ge=16, description="paired measurements of each comparison")

    max_drop: float = Field(default=1.0, gt=0, lt=100, description="points of top-1 that may be lost")
    confidence: float = Field(default=0.95, gt=0.5, lt=1, description="one-sided, over all looks at a test set")
    min_speedup: float | None = Field(default=None, gt=0, description="times faster than the baseline at batch 1")
    max_latency_ms: float | None = Field(default=None, gt=0, description="bound on the median at batch 1")
    max_size_mb: float | None = Field(default=None, gt=0, description="size of the model's files")

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise _refusal(error, type(self)) from None

    @property
    def budget(self) -> Budget:
        return Budget(**{name: getattr(self, name) for name in Budget.model_fields if name != "schema_version"})

    @property
    def recipe_options(self) -> dict[str, Any]:
        """The options of the training recipe that were given."""
        names = (
            "epochs",
            "batch",
            "optimiser",
            "lr",
            "weight_decay",
            "label_smoothing",
            "augment",
            "mixup",
            "cutmix",
            "sampler",
            "class_weights",
            "workers",
            "precision",
            "patience",
        )
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    @property
    def chains(self) -> tuple[str, ...]:
        """The chains to judge: those named, or the ladder."""
        return self.chain or tuple(text.format(finetune=self.finetune) for text in LADDER)

    @property
    def run(self) -> Run:
        """Where this run lies. The same settings find the same run; a setting that changes what is trained
        makes another one; one that changes only what is tried and judged does not."""
        if self.name:
            name = slug(self.name)
            if name in SHARED:
                raise ConfigError(f"a run cannot be called '{name}': that folder is shared by all runs")
            return Run(self.runs / name)
        model = self.model or self.weights or "auto"
        readable = slug(f"{Path(self.data).name or 'data'}-{Path(model).stem}")
        aside = {"name", "runs", "workers", "cache_gb", *JUDGING}
        distinct = self.model_dump(mode="json", exclude=aside, exclude_defaults=True)
        distinct["data"] = self.data if not Path(self.data).exists() else str(Path(self.data).resolve())
        return Run(self.runs / f"{readable}-{files.digest(distinct)[:6]}")


def load_toml(path: Path) -> dict[str, Any]:
    """The keys of a TOML file, as field names of ``Settings``. An unknown key is a ConfigError that suggests the
    nearest right one."""
    try:
        content = tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise ConfigError(f"the configuration '{path}' does not exist") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, IsADirectoryError) as error:
        raise ConfigError(f"'{path}' is not TOML: {error}") from None
    known = {flag(name): name for name in Settings.model_fields if name != "schema_version"}
    found = {}
    for key, value in content.items():
        if flag(key) not in known:
            raise ConfigError(f"unknown key '{key}' in '{path}'", hint=nearest(flag(key), known))
        found[known[flag(key)]] = value
    return found


def settings(given: dict[str, Any], config: Path | None = None) -> Settings:
    """Settings from flags over a TOML file over defaults. A ConfigError names the value that is out of range."""
    values = {**(load_toml(config) if config else {}), **given}
    if "data" not in values:
        raise ConfigError("no data was named", hint='torchstone run FOLDER, or data = "FOLDER" in the TOML file')
    return Settings(**values)


def budget_of(**values: float | None) -> Budget:
    """A budget from flags; a ConfigError names the value that is out of range."""
    try:
        return Budget.model_validate(values)
    except ValidationError as error:
        raise _refusal(error, Budget) from None


def _refusal(error: ValidationError, kind: type[Value]) -> ConfigError:
    first = error.errors()[0]
    name = str(first["loc"][0])
    if name not in kind.model_fields:
        return ConfigError(f"unknown setting '{name}'", hint=nearest(name, kind.model_fields))
    return ConfigError(f"{flag(name)} = {first['input']!r} is refused: {first['msg'].lower()}")


def flag(name: str) -> str:
    """``max_drop`` → ``max-drop``."""
    return name.replace("_", "-")


def to_toml(value: Settings) -> str:
    """The settings that differ from the defaults, as the TOML that gives them again."""
    rows = value.model_dump(mode="json", exclude_defaults=True)
    rows.pop("schema_version", None)
    return "".join(f"{flag(name)} = {json.dumps(content)}\n" for name, content in rows.items())
