"""INT8 but for the depthwise convolutions."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from torchstone.compress.int8 import Maker
from torchstone.core.errors import ChainError
from torchstone.core.values import Artifact


class Sparing:
    """A quantiser (compress.int8.Quantising) that asks for no depthwise layer in INT8. ``layers`` are the others."""

    def __init__(self, maker: Maker, artifact: Artifact, pixels: NDArray[np.uint8], config: Any) -> None:
        self._whole = maker(artifact, pixels, config)
        self.layers: Sequence[str] = ()
        self.depthwise: Sequence[str] = ()

    def __enter__(self) -> Self:
        self._whole.__enter__()
        self.depthwise = self._whole.depthwise
        self.layers = [layer for layer in self._whole.layers if layer not in self.depthwise]
        if not self.depthwise or not self.layers:
            self._whole.__exit__()
            raise ChainError(
                f"the network has {'no' if not self.depthwise else 'nothing but'} depthwise convolutions",
                hint="leave out 'depthwise=float'" if not self.depthwise else "leave 'int8' out",
            )
        return self

    def __exit__(self, *_: object) -> None:
        self._whole.__exit__()

    def write(self, out_dir: Path, floating: Collection[str] = ()) -> None:
        self._whole.write(out_dir, [*self.depthwise, *floating])


def sparing(maker: Maker) -> Maker:
    return partial(Sparing, maker)
