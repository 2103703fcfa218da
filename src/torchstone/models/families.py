"""The families of networks that are worth knowing, with what each member costs.

``families.json`` beside this file holds the numbers, so that they can be shown without PyTorch and at once;
``benchmarks/families.py --write`` computes them again, and a test holds them to what ``described`` finds.
"""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass
from pathlib import Path

from torchstone.core import files
from torchstone.core.errors import ConfigError, nearest

TABLE = Path(__file__).parent / "families.json"
SMALL_CLASSES, CLASSES = 10, 1000
"""That the costs are counted for: CIFAR-10's and MNIST's for networks of small images, ImageNet's for the others."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """Networks of one design."""

    name: str
    members: tuple[str, ...]
    """What ``--model`` takes."""
    source: str
    """Who described it."""
    known_for: str


@dataclass(frozen=True, kw_only=True)
class Member:
    """One network and what it costs for one image at the input it was designed for."""

    family: str
    name: str
    architecture: str
    parameters: int
    macs: int
    crop: int
    top1: float | None
    """Published top-1 on ImageNet's validation images, per cent: a hint at what the design can learn, measured by
    others with other recipes; None where there is none."""
    top1_source: str


FAMILIES = (
    Family(name="LeNet", members=("lenet5",), source="LeCun et al. 1998", known_for="digits, in microseconds"),
    Family(
        name="small ResNet",
        members=("resnet20", "resnet9"),
        source="He et al. 2016; Page 2018",
        known_for="32-pixel images; resnet9 is soon good",
    ),
    Family(name="AlexNet", members=("alexnet",), source="Krizhevsky et al. 2012", known_for="history"),
    Family(
        name="ResNet",
        members=("resnet18", "resnet34", "resnet50", "resnet152"),
        source="He et al. 2016",
        known_for="plain convolutions, which every runtime and every quantiser does well",
    ),
    Family(
        name="SE-ResNet",
        members=("seresnet18", "seresnet34", "seresnet50", "seresnet152"),
        source="Hu et al. 2018",
        known_for="ResNets that weigh their channels, for hardly more operations",
    ),
    Family(
        name="MobileNetV3",
        members=("mobilenetv3_small_100", "mobilenetv3_large_100"),
        source="Howard et al. 2019",
        known_for="few operations; suffers most from INT8",
    ),
    Family(
        name="EfficientNet",
        members=tuple(f"tf_efficientnet_b{number}" for number in range(8)),
        source="Tan and Le 2019",
        known_for="one design scaled by one number: efficientnet:PHI builds what lies between",
    ),
    Family(
        name="EfficientNet-Lite",
        members=tuple(f"tf_efficientnet_lite{number}" for number in range(5)),
        source="Liu 2020",
        known_for="EfficientNet without what INT8 and mobile runtimes do badly; --weights lite0, lite1, lite2",
    ),
)

TORCHVISION = "torchvision, first weights"
TOP1: dict[str, tuple[float, str]] = {
    "alexnet": (56.522, TORCHVISION),
    "resnet18": (69.758, TORCHVISION),
    "resnet34": (73.314, TORCHVISION),
    "resnet50": (76.130, TORCHVISION),
    "resnet152": (78.312, TORCHVISION),
    "mobilenetv3_small_100": (67.668, TORCHVISION),
    "mobilenetv3_large_100": (74.042, TORCHVISION),
    **{
        f"tf_efficientnet_b{number}": (top1, TORCHVISION)
        for number, top1 in enumerate((77.692, 78.642, 80.608, 82.008, 83.384, 83.444, 84.008, 84.122))
    },
    **{
        f"tf_efficientnet_lite{number}": (top1, "the authors' README, FP32")
        for number, top1 in enumerate((75.1, 76.7, 77.6, 79.8, 81.5))
    },
    "seresnet50": (76.71, "Hu et al. 2018, table 2"),
    "seresnet152": (78.43, "Hu et al. 2018, table 2"),
}


def classes_of(architecture: str) -> int:
    """How many classes the costs of an architecture (a full name) are counted for."""
    return CLASSES if ":" in architecture else SMALL_CLASSES


def described(family: Family, name: str) -> Member:
    """A member with its costs, counted now. Raises a MissingPackageError where its library is not installed."""
    from torchstone.models import zoo
    from torchstone.models.cost import cost

    architecture = zoo.resolve(name)
    crop = zoo.native_input(architecture).crop
    counted = cost(architecture, classes=classes_of(architecture), crop=crop)
    top1, source = TOP1.get(name, (None, ""))
    return Member(
        family=family.name, name=name, architecture=architecture, parameters=counted.parameters, macs=counted.macs,
        crop=crop, top1=top1, top1_source=source,
    )  # fmt: skip


def members(pattern: str | None = None) -> list[Member]:
    """The stored members whose name or family matches ``pattern`` (with * and ?, or a part of it: where it begins a
    word of some, the others are left out), in the families' order; a network of no family is counted now. A ConfigError
    where there is no such network."""
    known = [Member(**row) for row in files.read_json(TABLE)["members"]]
    if pattern is None:
        return known
    if set(pattern) & set("*?["):
        tests = [lambda word: fnmatch.fnmatch(_bare(word), _bare(pattern))]
    else:
        # 'lenet' is LeNet, though it stands in 'mobilenet' as well: where a word begins with it, that is meant
        tests = [lambda word: _begins(word, pattern), lambda word: _bare(pattern) in _bare(word)]
    for test in tests:
        if found := [one for one in known if test(one.name) or test(one.family)]:
            return found
    return [_other(pattern, known)]


def smaller(architecture: str) -> list[Member]:
    """The stored members of the family of an architecture (a full name) that multiply less and are made for images
    no larger, the largest first; none where it has no family."""
    known = [Member(**row) for row in files.read_json(TABLE)["members"]]
    found = next((one for one in known if one.architecture == architecture), None)
    if found is None:
        return []
    less = [one for one in known if one.family == found.family and one.macs < found.macs and one.crop <= found.crop]
    return sorted(less, key=lambda one: -one.macs)


def half_of(architecture: str) -> Member | None:
    """Of the ``smaller`` ones the largest that multiplies half as much at most, else the smallest of all; None where
    there is none."""
    less = smaller(architecture)
    own = next((one.macs for one in members() if one.architecture == architecture), 0)
    return next((one for one in less if 2 * one.macs <= own), less[-1] if less else None)


def _begins(name: str, pattern: str) -> bool:
    """Whether a word of ``name`` begins with ``pattern``; words begin after a space, a dash or an underscore."""
    starts = [0, *(place.end() for place in re.finditer(r"[ _-]", name))]
    return any(_bare(name[start:]).startswith(_bare(pattern)) for start in starts)


def _bare(name: str) -> str:
    """A name without what people write in different ways: ``SE-ResNet`` is ``seresnet``."""
    return name.lower().translate(str.maketrans("", "", " -_"))


def _other(name: str, known: list[Member]) -> Member:
    from torchstone.core.registry import missing_packages

    if set(name) & set("*?[") or missing_packages(("torch",)):
        names = [one.name for one in known]
        raise ConfigError(f"no family and no network of one is called '{name}'", hint=nearest(name, names))
    return described(Family(name="", members=(name,), source="", known_for=""), name)
