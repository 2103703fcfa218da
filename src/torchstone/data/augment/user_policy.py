"""torchvision's transforms as a policy: its automatic ones, a list of them in a TOML file, a function in a Python file.

Their random numbers come from the global generators of torch, numpy and ``random``. Those are seeded for each sample
and put back afterwards, with one thread, since torch adds in another order with more.
"""

from __future__ import annotations

import contextlib
import random
import threading
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from torchstone.core import registry
from torchstone.core.errors import ConfigError, MissingPackageError, nearest

Transform: TypeAlias = Callable[[torch.Tensor], Any]
"""uint8[3, h, w] → uint8[3, h', w']."""

LARGEST_FILE = 1_000_000
"""Bytes of a policy's file."""
DEEPEST, MOST = 5, 100
"""Transforms inside transforms, and transforms in one list."""
NOT_OF_ONE_IMAGE = {"MixUp", "CutMix", "FiveCrop", "TenCrop", "Lambda", "LinearTransformation", "Compose", "Transform"}

SMALLEST_TRIVIAL = 128
"""Pixels a side from which TrivialAugment's shifts leave most of an image."""

_one_at_a_time = threading.Lock()


def apply(
    transform: Transform, images: NDArray[np.uint8], seeds: NDArray[np.uint64], policy: str
) -> list[NDArray[np.uint8]]:
    """The transformed images, uint8[h, w, 3] each. A ConfigError tells what went wrong in ``policy``."""
    changed = []
    with _one_at_a_time, _own_generators():
        for image, seed in zip(images, seeds, strict=True):
            _seed(int(seed))
            tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1)
            try:
                result = transform(tensor)
            except Exception as error:  # code of the user's, or arguments that only fail on an image
                kind = type(error).__name__
                raise ConfigError(f"the augmentation policy '{policy}' failed: {kind}: {error}") from error
            changed.append(_checked(result, policy))
    return changed


def _checked(result: Any, policy: str) -> NDArray[np.uint8]:
    if not isinstance(result, torch.Tensor) or result.dtype != torch.uint8 or result.ndim != 3 or len(result) != 3:
        found = f"{result.dtype}{list(result.shape)}" if isinstance(result, torch.Tensor) else type(result).__name__
        raise ConfigError(
            f"the augmentation policy '{policy}' must give torch.uint8[3, height, width], it gives {found}",
            hint="leave ToDtype, Normalize and the like out: the network does that itself",
        )
    return result.permute(1, 2, 0).contiguous().numpy()


@contextlib.contextmanager
def _own_generators() -> Iterator[None]:
    """The global generators may be seeded inside; afterwards they are as they were."""
    before = torch.default_generator.get_state(), np.random.get_state(), random.getstate()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.default_generator.set_state(before[0])
        np.random.set_state(before[1])
        random.setstate(before[2])


def _seed(seed: int) -> None:
    torch.default_generator.manual_seed(seed >> 1)  # torch.manual_seed turns to every accelerator: 0.1 ms
    np.random.seed(seed & 0xFFFFFFFF)
    random.seed(seed)


@cache
def automatic(crop: int) -> Transform:
    """TrivialAugment, wide (Müller & Hutter 2021); mid-grey fills what a shift or a turn leaves empty. Its shifts are
    of up to 32 pixels, all of a small image: those get RandAugment (Cubuk et al. 2020), whose shifts are shares."""
    v2 = _transforms()
    chosen = v2.TrivialAugmentWide if crop >= SMALLEST_TRIVIAL else v2.RandAugment
    return chosen(interpolation=v2.InterpolationMode.BILINEAR, fill=128)


def read(path: Path) -> bytes:
    """The content of a policy's file; a ConfigError where it cannot be read."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise ConfigError(f"the augmentation policy '{path}' cannot be read: {error.strerror}") from None
    if len(content) > LARGEST_FILE:
        raise ConfigError(f"'{path}' is larger than the {LARGEST_FILE / 1e6:g} MB that a policy may be")
    return content


@cache
def load(path: Path, content: bytes, function: str, crop: int) -> Transform:
    """The policy in the ``content`` of a TOML file, or of the ``function`` in that of a Python file. ``path`` is what
    they are called. Raises a ConfigError that names what is wrong.

    The TOML file has a table ``[[transform]]`` for each step: ``name``, of ``torchvision.transforms.v2``, and its
    arguments; "crop" stands for the pixels a side that the network sees::

        [[transform]]
        name = "RandomResizedCrop"
        size = "crop"
        scale = [0.6, 1.0]

        [[transform]]
        name = "RandomApply"
        p = 0.3
        transforms = [{ name = "GaussianBlur", kernel_size = 5 }]
    """
    return _function(path, content, function) if function else _composed(path, content, crop)


def _function(path: Path, content: bytes, name: str) -> Transform:
    module = ModuleType(path.stem)
    module.__file__ = str(path)
    try:  # not by the import system, which takes a file edited within the same second for the one it has compiled
        exec(compile(content, path, "exec"), vars(module))
    except Exception as error:  # code of the user's
        raise ConfigError(f"'{path}' cannot be imported: {type(error).__name__}: {error}") from error
    function = getattr(module, name, None)
    if not callable(function):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise ConfigError(f"'{path}' holds no function '{name}'", hint=nearest(name, known))
    return function


def _composed(path: Path, source: bytes, crop: int) -> Transform:
    try:
        content = tomllib.loads(source.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"'{path}' is not TOML: {error}") from None
    unknown = sorted(content.keys() - {"transform"})
    if unknown or "transform" not in content:
        wrong = f"holds '{unknown[0]}'" if unknown else "holds no [[transform]]"
        raise ConfigError(f"'{path}' {wrong}", hint="a policy is a [[transform]] table for each step, with its name")
    return _transforms().Compose(_listed(content["transform"], path, crop, depth=1))


def _listed(rows: Any, path: Path, crop: int, depth: int) -> list[Transform]:
    if not isinstance(rows, list) or not rows or len(rows) > MOST or depth > DEEPEST:
        raise ConfigError(
            f"the transforms in '{path}' must be lists of 1 to {MOST} tables, {DEEPEST} deep at most",
            hint="begin each with [[transform]]",
        )
    return [_transform(row, path, crop, depth) for row in rows]


def _transform(row: Any, path: Path, crop: int, depth: int) -> Transform:
    known = _known()
    if not isinstance(row, dict) or not isinstance(row.get("name"), str):
        raise ConfigError(f"a transform in '{path}' has no name", hint='name = "RandomHorizontalFlip"')
    name = row["name"]
    if name in ("MixUp", "CutMix"):
        raise ConfigError(f"'{name}' in '{path}' mixes two images", hint=f"give --set {name.lower()}=0.2 instead")
    if name not in known:
        raise ConfigError(f"unknown transform '{name}' in '{path}'", hint=nearest(name, known))
    nested = {"transforms": _listed(row["transforms"], path, crop, depth + 1)} if "transforms" in row else {}
    try:
        arguments = {key: _argument(key, value, crop) for key, value in row.items() if key != "name"}
        return known[name](**{**arguments, **nested})
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        reason = str(error).rpartition("__init__() ")[2]
        raise ConfigError(f"'{name}' in '{path}' refuses its arguments: {reason}") from None


def _argument(key: str, value: Any, crop: int) -> Any:
    """What TOML cannot say: the crop, and torchvision's two enumerations."""
    v2 = _transforms()
    if value == "crop":
        return crop
    if key == "interpolation" and isinstance(value, str):
        return v2.InterpolationMode(value)
    if key == "policy" and isinstance(value, str):
        return v2.AutoAugmentPolicy(value)
    return value


@cache
def _known() -> dict[str, Any]:
    """torchvision's transforms of one image, by name."""
    v2 = _transforms()
    return {
        name: kind
        for name, kind in vars(v2).items()
        if isinstance(kind, type) and issubclass(kind, v2.Transform) and name not in NOT_OF_ONE_IMAGE
    }


def _transforms() -> Any:
    if registry.missing_packages(("torchvision",)):
        raise MissingPackageError("this augmentation policy", ("torchvision",))
    from torchvision.transforms import v2

    return v2
