"""torchstone: from a folder of images to a classifier in production, with every claim on the way proven.

>>> import torchstone as ts
>>> verdict = ts.run(ts.Settings(data="flowers/", weights="lite0", max_drop=2))

Names are imported when they are first used, so that ``import torchstone`` costs nothing.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torchstone.config import Settings as Settings
    from torchstone.core.errors import TorchstoneError as TorchstoneError
    from torchstone.core.errors import UserError as UserError
    from torchstone.core.run import Run as Run
    from torchstone.core.values import Artifact as Artifact
    from torchstone.core.values import Budget as Budget
    from torchstone.core.values import Candidate as Candidate
    from torchstone.core.values import Finding as Finding
    from torchstone.core.values import Preprocess as Preprocess
    from torchstone.core.verdict import Verdict as Verdict
    from torchstone.doctor import doctor as doctor
    from torchstone.judge.verify import verify as verify
    from torchstone.pipeline import demo as demo
    from torchstone.pipeline import run as run
    from torchstone.runtimes import open_candidate as open_candidate
    from torchstone.stages.audit import audit as audit
    from torchstone.stages.compress import compress as compress
    from torchstone.stages.evaluate import evaluate as evaluate
    from torchstone.stages.judge import judge as judge
    from torchstone.stages.search import search as search
    from torchstone.stages.search_chains import search_chains as search_chains
    from torchstone.stages.train import train as train

_HOME = {
    "Artifact": "core.values",
    "Budget": "core.values",
    "Candidate": "core.values",
    "Finding": "core.values",
    "Preprocess": "core.values",
    "Run": "core.run",
    "Settings": "config",
    "TorchstoneError": "core.errors",
    "UserError": "core.errors",
    "Verdict": "core.verdict",
    "audit": "stages.audit",
    "compress": "stages.compress",
    "demo": "pipeline",
    "doctor": "doctor",
    "evaluate": "stages.evaluate",
    "judge": "stages.judge",
    "open_candidate": "runtimes",
    "run": "pipeline",
    "search": "stages.search",
    "search_chains": "stages.search_chains",
    "train": "stages.train",
    "verify": "judge.verify",
}
__all__ = [
    "Artifact",
    "Budget",
    "Candidate",
    "Finding",
    "Preprocess",
    "Run",
    "Settings",
    "TorchstoneError",
    "UserError",
    "Verdict",
    "audit",
    "compress",
    "demo",
    "doctor",
    "evaluate",
    "judge",
    "open_candidate",
    "run",
    "search",
    "search_chains",
    "train",
    "verify",
]


class _Public(ModuleType):
    """Several verbs share their name with the room that they use. Importing such a room would bind it here as a
    module; the function keeps the name, whatever was imported before (``from torchstone.judge import …`` still
    finds the room)."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Public


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'torchstone' has no attribute '{name}'")
    return getattr(importlib.import_module(f"torchstone.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
