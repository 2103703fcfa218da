"""Everything a run can be told, in one value: the flags of the command line and the keys of the TOML file are its
fields, with dashes for underscores."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError

from torchstone.core import files
from torchstone.core.errors import ConfigError, nearest, one_of
from torchstone.core.registry import trackers
from torchstone.core.run import Run, slug
from torchstone.core.values import Budget, Metric, Value
from torchstone.data import augment as augmentation
from torchstone.data.augment import PolicyName
from torchstone.data.split.cut import DESCRIPTION, By
from torchstone.search.objectives import OBJECTIVES, OF_CHAINS
from torchstone.train import recipes
from torchstone.train.recipe import Recipe

WISHES = tuple(name for name in Budget.model_fields if name != "schema_version")
"""What the budget asks for."""
JUDGING = ("chain", "finetune", "time_limit", "threads", "quartets", "skip_portraits", *WISHES)
"""What is said of the candidates and the verdict, not of the training."""
SEARCHING = ("trials", "objective", "storage", "takeover", "space")
"""What is said of a search, not of one training."""
ASIDE = ("name", "runs", "device", "cache_gb", "track")
"""What is said of where and how a run is made, not of what comes out."""
SHARED = ("audits", "cache", "ledger", "profiles", "sheets", "tracking")
"""Folders beside the runs that are no runs."""
SHORT = ("epochs", "batch", "lr", "augment", "patience", "workers")
"""Options of the recipe that are settings of their own; ``set`` takes them, too."""


FLAGS = {"time_limit": "for"}
"""Settings whose flag Python does not take as a name."""
DURATION = re.compile(r"(?P<number>\d+(\.\d+)?)\s*(?P<unit>[smh]?)")
UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}


def _duration(text: str) -> str:
    seconds_of(text)
    return text.strip()


class Settings(Value):
    """What ``run`` and ``train`` do. None leaves the choice to the model or the recipe."""

    data: str = Field(
        description="a folder of images, a table that lists them (CSV, JSONL, Parquet), a COCO file, or 'digits'"
    )
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

    recipe: str | None = Field(
        default=None,
        description=f"{', '.join(recipes.NAMED)} ('torchstone recipes' says what they are), or a TOML file; by default "
        "scratch, or finetune with --weights",
    )
    set: dict[str, Any] = Field(
        default={}, description="any option of the recipe, such as optimiser=sgd or freeze=backbone; may be repeated"
    )
    epochs: int | None = Field(default=None, ge=0, description="passes over the training part; 0 keeps the weights")
    batch: int | None = Field(default=None, ge=2, description="images a training step")
    lr: float | None = Field(default=None, gt=0, description="peak learning rate")
    augment: PolicyName | None = Field(
        default=None,
        description=augmentation.DESCRIPTION,
    )
    patience: int | None = Field(default=None, ge=1, description="epochs without progress on val before it stops")
    workers: int | None = Field(
        default=None, ge=0, description="processes that prepare batches, 0: none; by default by what that costs"
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="what trains; auto: a GPU where there is one"
    )
    cache_gb: float | None = Field(
        default=None, ge=0, description="10⁹ bytes of decoded images kept beside the runs; by default by the free disk"
    )
    track: tuple[str, ...] = Field(
        default=(), description=f"a tool that follows the training: {', '.join(trackers.names())}; may be repeated"
    )

    chain: tuple[str, ...] = Field(
        default=(), description="a chain to judge, such as prune=0.3+finetune=2+int8@openvino"
    )
    finetune: int = Field(default=2, ge=1, description="epochs of fine-tuning in the ladder's chains that train")
    time_limit: Annotated[str, AfterValidator(_duration)] | None = Field(
        default=None,
        description="time for the ladder, such as 20m or 1h: with more of it, it tries more; by default what is cheap "
        "and trainings of a few epochs",
    )
    threads: int = Field(default=1, ge=1, description="threads of each candidate while it is timed")
    quartets: int = Field(default=16, ge=16, description="paired measurements of each comparison")
    skip_portraits: bool = Field(
        default=False, description="leave out what is described but not compared: p99, all threads, requests, memory"
    )

    trials: int = Field(default=30, ge=1, description="trials of a search, over all its workers")
    objective: tuple[str, ...] = Field(
        default=(),
        description=f"what a search makes large or small: {', '.join(OBJECTIVES)}; several: the trials that "
        f"no other one beats; by default top1; with --compress {', '.join(OF_CHAINS)}, by default drop and speed",
    )
    storage: str | None = Field(
        default=None,
        description="where a search keeps its study: postgresql://USER@HOST/DATABASE, or sqlite:///FILE; by default a "
        "file of its own",
    )
    takeover: float = Field(
        default=60, ge=2, description="seconds without a sign of life after which a worker's trial is taken over"
    )
    space: Path | None = Field(
        default=None, description="of a search over chains, a TOML file that says what they are made of"
    )

    max_drop: float = Field(default=1.0, gt=0, lt=100, description="points of the metric that may be lost")
    metric: Metric = Field(
        default="top1", description="what the margin is about: top1, macro_f1, auroc, or ece (calibration error)"
    )
    confidence: float = Field(default=0.95, gt=0.5, lt=1, description="one-sided, over all looks at a test set")
    min_speedup: float | None = Field(default=None, gt=0, description="times faster than the baseline at batch 1")
    max_latency_ms: float | None = Field(default=None, gt=0, description="bound on the median at batch 1")
    max_size_mb: float | None = Field(default=None, gt=0, description="size of the model's files")

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**_lifted(values))
        except ValidationError as error:
            raise _refusal(error, type(self)) from None

    @property
    def budget(self) -> Budget:
        return Budget(**{name: getattr(self, name) for name in WISHES})

    @property
    def seconds(self) -> float | None:
        """Of ``time_limit``."""
        return None if self.time_limit is None else seconds_of(self.time_limit)

    @property
    def recipe_options(self) -> dict[str, Any]:
        """The options of the training recipe that were given, by flags of their own or by ``--set``."""
        return {**{name: getattr(self, name) for name in SHORT if getattr(self, name) is not None}, **self.set}

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
        aside = {*ASIDE, *JUDGING, *SEARCHING, *(option for option in SHORT if not _counts(option))}
        distinct = self.model_dump(mode="json", exclude=aside, exclude_defaults=True)
        if options := {name: value for name, value in distinct.pop("set", {}).items() if _counts(name)}:
            distinct["set"] = options
        distinct["data"] = self.data if not Path(self.data).exists() else str(Path(self.data).resolve())
        return Run(self.runs / f"{readable}-{files.digest(distinct)[:6]}")


def load_toml(path: Path) -> dict[str, Any]:
    """The keys of a TOML file, as field names of ``Settings``. An unknown key is a ConfigError that suggests the
    nearest right one."""
    content = files.read_toml(path, "the configuration")
    known = {flag(name): name for name in Settings.model_fields if name != "schema_version"}
    unknown = [key for key in content if flag(key) not in known]
    if unknown:
        raise one_of(ConfigError(f"unknown key '{key}' in '{path}'", hint=nearest(flag(key), known)) for key in unknown)
    return {known[flag(key)]: value for key, value in content.items()}


def settings(given: dict[str, Any], config: Path | None = None) -> Settings:
    """Settings from flags over a TOML file over defaults. A ConfigError names the value that is out of range."""
    layers = [_lifted(load_toml(config) if config else {}), _lifted(given)]
    values = {
        **layers[0],
        **layers[1],
        "set": {name: value for layer in layers for name, value in layer["set"].items()},
    }
    if "data" not in values:
        raise ConfigError("no data was named", hint='torchstone run FOLDER, or data = "FOLDER" in the TOML file')
    return Settings(**values)


def _lifted(values: dict[str, Any]) -> dict[str, Any]:
    """The values with ``set`` in its types, and what is a setting of its own taken out of it: however an option is
    given, the settings are the same. Raises a ConfigError where one is given twice, in two values."""
    options = values.get("set") or {}
    if not isinstance(options, dict):
        raise ConfigError(f"set = {options!r} is no table", hint='[set], and below it: optimiser = "sgd"')
    options = recipes.options_of(options)
    short = {name: options.pop(name) for name in SHORT if name in options}
    for name, value in short.items():
        other = values.get(name)
        if other is not None and other != value:
            raise ConfigError(f"{name} is given twice: {other} and {value}", hint=f"leave one of the two {name} out")
    return {**values, **short, "set": dict(sorted(options.items()))}


def _counts(option: str) -> bool:
    """Whether an option of the recipe changes what is trained."""
    return not Recipe.model_fields[option].exclude


def budget_of(**values: float | str | None) -> Budget:
    """A budget from flags; a ConfigError names the value that is out of range."""
    try:
        return Budget.model_validate(values)
    except ValidationError as error:
        raise _refusal(error, Budget) from None


def _refusal(error: ValidationError, kind: type[Value]) -> ConfigError:
    """All that was refused, each thing once."""
    refused = {str(one["loc"][0]): one for one in reversed(error.errors())}
    return one_of(
        ConfigError(f"{flag(name)} = {one['input']!r} is refused: {one['msg'].lower()}")
        if name in kind.model_fields
        else ConfigError(f"unknown setting '{name}'", hint=nearest(name, kind.model_fields))
        for name, one in reversed(refused.items())
    )


def flag(name: str) -> str:
    """``max_drop`` → ``max-drop``."""
    return FLAGS.get(name, name.replace("_", "-"))


def seconds_of(duration: str) -> float:
    """``90s``, ``20m``, ``1.5h`` or a number of seconds → seconds. Raises a ValueError for anything else."""
    found = DURATION.fullmatch(duration.strip())
    if found is None:
        raise ValueError("a time is a number with s, m or h behind it, such as 20m")
    return float(found["number"]) * UNITS[found["unit"]]


def command_line(value: Settings, verb: str) -> str:
    """What is typed for a training with these settings (``torchstone VERB …``), wherever they came from."""
    aside = {"schema_version", "data", *JUDGING, *SEARCHING}
    words = ["torchstone", verb, value.data]
    for name, content in value.model_dump(mode="json", exclude=aside, exclude_defaults=True).items():
        if name == "set":
            words += [word for option, one in content.items() for word in ("--set", f"{option}={_typed(one)}")]
        elif content is True:
            words.append(f"--{flag(name)}")
        else:
            each = content if isinstance(content, list) else [content]
            words += [word for one in each for word in (f"--{flag(name)}", _typed(one))]
    return shlex.join(words)


def _typed(content: Any) -> str:
    """A value as the command line takes it."""
    if isinstance(content, list | tuple):
        return ",".join(map(str, content))
    return "none" if content is None else str(content)


def to_toml(value: Settings) -> str:
    """The settings that differ from the defaults, as the TOML that gives them again."""
    rows = value.model_dump(mode="json", exclude_defaults=True)
    rows.pop("schema_version", None)
    options = rows.pop("set", {})
    lines = [f"{flag(name)} = {json.dumps(content)}\n" for name, content in rows.items()]
    if options:
        lines += ["\n[set]\n", *(f"{name} = {recipes.toml_value(content)}\n" for name, content in options.items())]
    return "".join(lines)
