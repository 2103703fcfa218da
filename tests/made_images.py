"""Images that the tests make: sound ones, of which no two look alike, and what can be wrong with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def picture(number: int, width: int = 24, height: int = 24) -> Image.Image:
    """Another picture for each number: noise with the spectrum of natural images, whose amplitude falls with the
    frequency (Field 1987), so that it is neither flat nor blurred nor like any other."""
    rng = np.random.default_rng(number)
    across, up = np.fft.fftfreq(width)[None, :], np.fft.fftfreq(height)[:, None]
    frequency = np.maximum(np.hypot(across, up), 1 / max(width, height))
    noise = rng.standard_normal((3, height, width))
    noise += 1.5 * noise.mean(axis=0)  # colours of natural images go together
    waves = np.fft.ifft2(np.fft.fft2(noise) / frequency).real
    pixels = 128 + 55 * (waves - waves.mean()) / waves.std()
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8).transpose(1, 2, 0))


def fill(root: Path, counts: dict[str, int], start: int = 0, side: int = 24) -> Path:
    """Class folders with that many different pictures, ``0.png``, ``1.png``, …; the first is ``picture(start)``."""
    number = start
    for name, count in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            picture(number, side, side).save(root / name / f"{index}.png")
            number += 1
    return root


def changed(image: Image.Image, gain: float, offset: float = 0.0) -> Image.Image:
    """Each value v becomes ``gain`` · v + ``offset``."""
    values = np.asarray(image, np.float64) * gain + offset
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))
