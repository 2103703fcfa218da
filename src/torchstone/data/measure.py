"""What the brightness of a picture tells about it: a few numbers, each independent of the picture's size.

All come from luma, as ITU-R BT.601 weighs red, green and blue, in 256 levels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

COLUMNS = (
    "luma_mean", "luma_p1", "luma_p5", "luma_p95", "luma_p99", "luma_std", "sharpness", "entropy",
)  # fmt: skip
"""The measures, in the order in which ``measure`` gives them; columns of the catalog's table."""

PERCENTILES = (1, 5, 95, 99)

SHORT_SIDE = 256
"""Pixels to which the shorter side is reduced (never enlarged) before sharpness is taken. What is lost is finer than a
model sees: a photograph of 12 million pixels that is soft at its finest is a sharp one at 256."""

LEVELS = np.arange(256) / 255.0


def luma_of(pixels: NDArray[np.uint8]) -> Image.Image:
    """The luma of uint8[height, width, 3] RGB, 0.299 R + 0.587 G + 0.114 B, as an 8-bit image."""
    return Image.fromarray(pixels).convert("L")


def measure(luma: Image.Image) -> NDArray[np.float32]:
    """float32[len(COLUMNS)]:

    - ``luma_mean``, the percentiles ``luma_p1``, ``luma_p5``, ``luma_p95``, ``luma_p99`` (the lowest level that at
      least so many percent of the pixels do not exceed) and the standard deviation ``luma_std``, all on 0..1;
    - ``sharpness`` (``sharpness``);
    - ``entropy`` of the histogram of luma in bits, 0..8.
    """
    counts = np.array(luma.histogram(), np.float64)
    shares = counts / counts.sum()
    mean = float(shares @ LEVELS)
    deviation = float(np.sqrt(shares @ (LEVELS - mean) ** 2))
    # 1e-9: a share such as 99 % of 200 pixels must not miss its level by a rounding error.
    percentiles = np.searchsorted(np.cumsum(shares), np.array(PERCENTILES) / 100 - 1e-9) / 255.0
    there = shares[shares > 0]
    entropy = max(0.0, -float(there @ np.log2(there)))
    return np.array([mean, *percentiles, deviation, sharpness(luma), entropy], np.float32)


def sharpness(luma: Image.Image) -> float:
    """How much detail there is in the finest octave, measured against the next: 2 · √(g₁ / g₂) - 1, at least 0.

    g₁ is the mean squared difference between neighbouring pixels, g₂ the same after 2 × 2 pixels are averaged to one.
    The spectrum of natural pictures falls with the square of the frequency (Field 1987), so that they have as much in
    each octave: a sharp photograph is near 0.7 whatever its size and contrast. Blurred or enlarged, it has nothing in
    the finest: differences then double with the distance, and the value is near 0. Noise alone gives 3. A picture of
    one colour, or one less than 4 pixels wide or high, has no such measure and counts as 0.
    """
    short = min(luma.size)
    if short > SHORT_SIDE:
        scale = SHORT_SIDE / short
        size = (max(1, round(luma.width * scale)), max(1, round(luma.height * scale)))
        luma = luma.resize(size, Image.Resampling.BOX)
    if min(luma.size) < 4:
        return 0.0
    fine = np.asarray(luma, np.float32)
    fine = fine[: fine.shape[0] // 2 * 2, : fine.shape[1] // 2 * 2]
    coarse = (fine[0::2, 0::2] + fine[1::2, 0::2] + fine[0::2, 1::2] + fine[1::2, 1::2]) * np.float32(0.25)
    below = _squared_differences(coarse)
    if below == 0:
        return 0.0
    return max(0.0, 2 * float(np.sqrt(_squared_differences(fine) / below)) - 1)


def _squared_differences(image: NDArray[np.float32]) -> float:
    """Mean squared difference between each pixel and the next to the right and below."""
    across, down = image[:, 1:] - image[:, :-1], image[1:] - image[:-1]
    return float(np.vdot(across, across) + np.vdot(down, down)) / (across.size + down.size)
