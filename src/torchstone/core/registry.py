"""Plug-ins by file stem. A folder's stems are listed without importing anything; one file is imported when it is
asked for. Other packages join through entry points of the same group."""

from __future__ import annotations

import importlib
import importlib.util
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from torchstone.core.contracts import Check, Profiler, Reader, Runtime, Step, Tracker
from torchstone.core.errors import ConfigError, MissingPackageError, nearest
from torchstone.core.privacy import no_telemetry

PluginT = TypeVar("PluginT")
PACKAGE = Path(__file__).parent.parent


class Registry(Generic[PluginT]):
    """All plug-ins of one kind: the files of ``folders`` (inside the package) and the entry points of ``group``.

    Files that begin with an underscore are shared by several plug-ins, and none themselves; nor are ``not_plugins``,
    which other rooms import by name.
    """

    def __init__(self, kind: str, folders: tuple[str, ...], group: str, *, not_plugins: tuple[str, ...] = ()) -> None:
        self.kind = kind
        self.group = group
        self._folders = folders
        self._not_plugins = frozenset(not_plugins)

    def names(self) -> list[str]:
        """Sorted names of all plug-ins, without importing any."""
        return sorted(self._modules())

    def get(self, name: str) -> PluginT:
        """The plug-in of that name. Its packages may still be missing: see ``ready``."""
        modules = self._modules()
        if name not in modules:
            raise ConfigError(f"unknown {self.kind} '{name}'", hint=nearest(name, modules))
        no_telemetry()
        module, _, attribute = modules[name].partition(":")
        return cast(PluginT, getattr(importlib.import_module(module), attribute)())

    def ready(self, name: str, *more: str) -> PluginT:
        """The plug-in, after making sure that what it needs (and ``more``) can be imported."""
        plugin = self.get(name)
        missing = missing_packages((*cast(Any, plugin).requires, *more))
        if missing:
            raise MissingPackageError(f"{self.kind} '{name}'", missing)
        return plugin

    def _modules(self) -> dict[str, str]:
        """name: 'module:Class'."""
        found = {
            file.stem: f"torchstone.{folder.replace('/', '.')}.{file.stem}:{class_name(file.stem)}"
            for folder in self._folders
            for file in (PACKAGE / folder).glob("*.py")
            if not file.stem.startswith("_") and file.stem not in self._not_plugins
        }
        for point in _entry_points(self.group):
            if point.name in found:
                raise ConfigError(f"two {self.kind}s are called '{point.name}': torchstone's own and {point.value}")
            found[point.name] = point.value
        return found


def class_name(stem: str) -> str:
    """``mnist_idx`` → ``MnistIdx``."""
    return "".join(word.capitalize() for word in stem.split("_"))


@cache
def _entry_points(group: str) -> tuple[Any, ...]:
    return tuple(entry_points(group=group))


def missing_packages(names: tuple[str, ...]) -> list[str]:
    """Those of ``names`` that are not installed (found without importing them)."""
    missing = []
    for name in names:
        try:
            found = importlib.util.find_spec(name) is not None
        except (ImportError, ValueError):
            found = False
        if not found:
            missing.append(name)
    return missing


readers: Registry[Reader] = Registry("reader", ("data/readers",), "torchstone.readers")
steps: Registry[Step] = Registry("step", ("compress/steps", "export/formats"), "torchstone.steps")
runtimes: Registry[Runtime] = Registry(
    "runtime", ("runtimes",), "torchstone.runtimes", not_plugins=("adapt", "golden", "parity")
)
profilers: Registry[Profiler] = Registry("profiler", ("evaluate/profilers",), "torchstone.profilers")
data_checks: Registry[Check] = Registry(
    "data check", ("audit",), "torchstone.data_checks", not_plugins=("clean", "features", "probe", "two_sample")
)
machine_checks: Registry[Check] = Registry("machine check", ("doctor",), "torchstone.machine_checks")
training_checks: Registry[Check] = Registry("training check", ("train/coach",), "torchstone.training_checks")
trackers: Registry[Tracker] = Registry("tracker", ("train/trackers",), "torchstone.trackers")
