"""Layers back to floating point, most sensitive first: a number of them, or until INT8 costs no more than it may."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchstone.compress.int8 import Maker
from torchstone.core import console
from torchstone.core.artifact import identified
from torchstone.core.contracts import ImageSet
from torchstone.core.errors import ChainError
from torchstone.core.values import Artifact, Candidate
from torchstone.evaluate import metrics, predict
from torchstone.runtimes import default_runtime, open_artifact

RANKED_BY = 32
"""Calibration images on which layers are compared."""


@dataclass(frozen=True, kw_only=True)
class Rescued:
    """What was written in the end."""

    floating: tuple[str, ...]
    """Layers in floating point, the most sensitive first."""
    drop: float
    """Points of top-1 on val, against the model before the step."""


def rescue(
    artifact: Artifact,
    val: ImageSet,
    pixels: NDArray[np.uint8],
    config: Any,
    out_dir: Path,
    quantiser: Maker,
) -> Rescued:
    """Write into ``out_dir`` the INT8 model with the fewest layers in floating point whose top-1 on ``val`` is at most
    ``config.max_drop`` points below the artifact's own.

    A layer's sensitivity is how far the logits of some calibration images move when it alone is quantised. How many of
    the most sensitive ones have to go back is found by doubling and bisection: each number that is tried is a model
    that meets val. Raises a ChainError when all of them would have to.
    """
    whole = _top1(artifact, val)
    with tempfile.TemporaryDirectory(prefix="torchstone-") as scratch, quantiser(artifact, pixels, config) as maker:
        drops: dict[int, float] = {}
        ranked: list[str] = []

        def place(kept: int) -> Path:
            return Path(scratch) / str(kept)

        def holds(kept: int) -> bool:
            place(kept).mkdir()
            maker.write(place(kept), ranked[:kept])
            drops[kept] = whole - _top1(identified(artifact, place(kept)), val)
            console.say(
                f"{kept} of {len(maker.layers)} layers in floating point: {drops[kept]:+.2f} points lost on val"
            )
            return drops[kept] <= config.max_drop

        fewest = 0
        if not holds(0):
            ranked += _by_sensitivity(artifact, _some(pixels), config, quantiser)
            fewest = _fewest(holds, len(ranked) - 1)
        for file in place(fewest).iterdir():
            shutil.move(file, out_dir / file.name)
    return Rescued(floating=tuple(ranked[:fewest]), drop=drops[fewest])


def keep(
    artifact: Artifact, pixels: NDArray[np.uint8], config: Any, out_dir: Path, quantiser: Maker
) -> tuple[str, ...]:
    """Write into ``out_dir`` the INT8 model whose ``config.keep`` most sensitive layers compute in floating point, and
    return their names, the most sensitive first. It asks calibration images alone, and no label. Raises a ChainError
    where no layer would be left in INT8."""
    with quantiser(artifact, pixels, config) as maker:
        if config.keep >= len(maker.layers):
            raise ChainError(
                f"{config.keep} layers asked to stay in floating point, and the network has {len(maker.layers)}",
                hint=f"int8:keep={max(1, len(maker.layers) // 8)}, or leave 'int8' out",
            )
        kept = _by_sensitivity(artifact, _some(pixels), config, quantiser)[: config.keep]
        maker.write(out_dir, kept)
    return tuple(kept)


def _fewest(holds: Callable[[int], bool], most: int) -> int:
    """The smallest number from 1 to ``most`` that holds, if more never hold worse."""
    fails, kept = 0, 1
    while kept <= most and not holds(kept):
        fails, kept = kept, min(2 * kept, most) if kept < most else most + 1
    if kept > most:
        raise ChainError(
            f"INT8 keeps to the drop allowed with {most} of {most + 1} layers in floating point neither",
            hint="allow more (int8:max_drop=1), calibrate otherwise, or leave 'int8' out",
        )
    while kept - fails > 1:
        middle = (fails + kept) // 2
        fails, kept = (fails, middle) if holds(middle) else (middle, kept)
    return kept


def _some(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Calibration images to compare layers on: spread over all of them, which stand in the order of their classes."""
    return pixels[np.linspace(0, len(pixels) - 1, min(RANKED_BY, len(pixels))).round().astype(int)]


def _by_sensitivity(artifact: Artifact, pixels: NDArray[np.uint8], config: Any, quantiser: Maker) -> list[str]:
    """The layers, those first that move the logits most when they alone are in INT8."""
    expected = open_artifact(artifact)(pixels)["logits"]
    quick = config.model_copy(update={"bias": "none"})  # a correction makes up for what shall be seen
    moved: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="torchstone-") as scratch, quantiser(artifact, pixels, quick) as maker:
        for number, layer in enumerate(console.track(maker.layers, "sensitivity of each layer", len(maker.layers))):
            place = Path(scratch) / str(number)
            place.mkdir()
            maker.write(place, [other for other in maker.layers if other != layer])
            found = open_artifact(identified(artifact, place))(pixels)["logits"]
            moved[layer] = float(np.square(found - expected).mean())
    return sorted(moved, key=lambda layer: -moved[layer])


def _top1(artifact: Artifact, images: ImageSet) -> float:
    """Per cent."""
    name = artifact.chain or artifact.architecture
    found = predict.answer(
        Candidate(name=name, artifact=artifact, runtime=default_runtime(artifact.format)), images, "val"
    )
    return 100 * metrics.top1(found.labels, metrics.predicted_classes(found.scores))
