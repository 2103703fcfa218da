"""What ``int8`` asks of the file that makes it for one runtime: ``compress/int8/RUNTIME.py`` is such a back end. A new
one has to be named in ``steps/int8.py`` as well (``targets``, and in ``accepts`` the format that it begins with), and
in ``stages/ladder.py`` if it is to be tried unasked."""

from __future__ import annotations

import importlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, Self, cast

import numpy as np
from numpy.typing import NDArray

from torchstone.core.values import Artifact


class Quantising(Protocol):
    """Makes INT8 models of one artifact, from one calibration; to be used in a ``with``."""

    layers: Sequence[str]
    """Names of what can be put back to floating point, in the order of the graph."""
    depthwise: Sequence[str]
    """Those of them that are depthwise convolutions."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def write(self, out_dir: Path, floating: Collection[str] = ()) -> None:
        """Write the model's files, in which the layers named in ``floating`` compute as before."""
        ...


class Maker(Protocol):
    def __call__(self, artifact: Artifact, pixels: NDArray[np.uint8], config: Any) -> Quantising:
        """``pixels``, uint8[n, H, W, 3], are what it calibrates on."""
        ...


class Backend(Protocol):
    """Imports without its packages; they are imported where they are used."""

    @property
    def REQUIRES(self) -> tuple[str, ...]:  # noqa: N802
        """Packages."""
        ...

    @property
    def OPTIONS(self) -> Mapping[str, tuple[str, ...] | None]:  # noqa: N802
        """Options of the step that not every back end has, with the values that they may have here; None: any."""
        ...

    @property
    def Quantiser(self) -> Maker: ...  # noqa: N802


def backend(target: str) -> Backend:
    """That of one runtime."""
    return cast("Backend", importlib.import_module(f"{__name__}.{target}"))
