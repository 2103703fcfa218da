"""Random changes to training images. What happens to a sample depends on (seed, epoch, sample) alone: not on the
batch it is in, the order of batches, or the number of workers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from torchstone.core.errors import ConfigError, nearest

POLICIES = ("none", "light", "standard")
"""``none``: the evaluation's own pixels. ``light``: a random crop. ``standard``: a random crop and a horizontal flip
(wrong for digits, text and signs, so it is never chosen by itself)."""

PADDING = 8
"""Where the stored image has no room around the crop, it is padded by crop / PADDING pixels, reflected."""


def check_policy(policy: str) -> None:
    if policy not in POLICIES:
        raise ConfigError(f"unknown augmentation policy '{policy}'", hint=nearest(policy, POLICIES))


def augment(
    stored: NDArray[np.uint8], samples: NDArray[np.intp], crop: int, policy: str, seed: int, epoch: int
) -> NDArray[np.uint8]:
    """uint8[n, s, s, 3] → uint8[n, crop, crop, 3]; ``samples`` are the rows' fixed numbers in the training part."""
    side = stored.shape[1]
    if policy == "none":
        start = (side - crop) // 2
        return np.ascontiguousarray(stored[:, start : start + crop, start : start + crop])
    if side == crop:
        margin = max(1, crop // PADDING)
        stored = np.pad(stored, ((0, 0), (margin, margin), (margin, margin), (0, 0)), mode="reflect")
    room = stored.shape[1] - crop + 1
    top = (uniform(seed, epoch, samples, draw=0) * room).astype(np.intp)
    left = (uniform(seed, epoch, samples, draw=1) * room).astype(np.intp)
    flip = uniform(seed, epoch, samples, draw=2) < 0.5 if policy == "standard" else np.zeros(len(stored), bool)
    out = np.empty((len(stored), crop, crop, 3), np.uint8)
    for row in range(len(stored)):
        window = stored[row, top[row] : top[row] + crop, left[row] : left[row] + crop]
        out[row] = window[:, ::-1] if flip[row] else window
    return out


def uniform(seed: int, epoch: int, samples: NDArray[np.intp], *, draw: int) -> NDArray[np.float64]:
    """A number in [0, 1) for each (seed, epoch, sample, draw): SplitMix64's finaliser (Steele et al. 2014), twice."""
    with np.errstate(over="ignore"):
        state = np.uint64(seed) + np.uint64(epoch) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(draw << 56)
        mixed = _mix(_mix(samples.astype(np.uint64) * np.uint64(0xD1B54A32D192ED03) + state) ^ state)
    return (mixed >> np.uint64(11)).astype(np.float64) / 2.0**53


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
