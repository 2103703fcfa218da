"""Do two small pictures show the same? One is laid on the other, shifted and stretched a little; edges are compared.

The image registration of Lucas and Kanade (1981), for many pairs at once: Gauss-Newton steps on four numbers, the
stretch and the shift along each axis, from coarse to fine. numpy alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Images = NDArray[np.float32]
    """float32[n, side, side], brightness."""

MOST = 0.3
"""Bound on stretch and shift, as a share of half a side: twice what trimming 12 % of each side asks for."""

LONGEST_STEP = 0.1

OVERLAP = 0.6
"""Share of the picture that must lie on the other."""

FINE_STEPS = 3

AROUND = 2
"""Times that the energy of the gradients is smoothed to tell what is usual around each of them: about 3 pixels."""

FAINT = 3.0
"""Levels (of 255) a pixel below which a gradient is as likely noise or what JPEG left of it."""

HOPELESS = 0.7
"""Score of the halved pictures, not evened, below which the full ones are not looked at."""

COARSE = ((2, 0.6), (2, HOPELESS))
"""Steps on the halved pictures, and the score that they must have reached. Of 1,600 planted copies, all are above 0.61
after the first two steps and above 0.8 after the others; two of three other candidates are below 0.6."""


def scores(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> NDArray[np.float32]:
    """float32[n]: how well uint8[n, side, side] ``a`` matches ``b`` where it fits best, -1..1.

    The correlation of the gradients of both, each divided by the gradients around it. Pictures of a kind have the same
    large shapes, so that their brightness correlates, and one bold outline (a ball, a flower on black) makes gradients
    correlate; only in the same picture is the detail everywhere in the same places. A change of brightness or contrast
    changes next to nothing. Pairs that overlap by less than OVERLAP have -1.
    """
    half_a, half_b = halved(a.astype(np.float32)), halved(b.astype(np.float32))
    smooth_a, smooth_b = blurred(half_a), blurred(half_b)
    places = np.zeros((len(a), 4), np.float32)
    found = np.empty(len(a), np.float32)
    rest = np.arange(len(a))
    for steps, wanted in COARSE:
        for _ in range(steps):
            places[rest] = _step(smooth_a[rest], smooth_b[rest], places[rest])
        found[rest] = _correlation(half_a[rest], half_b[rest], places[rest], 0)
        rest = rest[found[rest] >= wanted]
    if len(rest):
        full_a, full_b = blurred(a[rest].astype(np.float32)), blurred(b[rest].astype(np.float32))
        placed = places[rest]
        for _ in range(FINE_STEPS):
            placed = _step(full_a, full_b, placed)
        found[rest] = _correlation(full_a, full_b, placed, AROUND)
    return found


def halved(images: Images) -> Images:
    """Each 2 × 2 pixels averaged to one."""
    rows = images[:, 0::2] + images[:, 1::2]
    return np.asarray((rows[:, :, 0::2] + rows[:, :, 1::2]) / 4, np.float32)


def blurred(images: Images) -> Images:
    """Smoothed by (1, 2, 1) / 4 along each axis, which leaves nothing that a step of a pixel could jump over."""
    wide = np.pad(images, ((0, 0), (1, 1), (1, 1)), "edge")
    rows = wide[:, :-2] + 2 * wide[:, 1:-1] + wide[:, 2:]
    return np.asarray((rows[:, :, :-2] + 2 * rows[:, :, 1:-1] + rows[:, :, 2:]) / 16, np.float32)


def gradients(images: Images) -> tuple[Images, Images]:
    """Central differences across and down in levels a pixel, 0 along the border."""
    across, down = np.zeros_like(images), np.zeros_like(images)
    np.subtract(images[:, :, 2:], images[:, :, :-2], out=across[:, :, 1:-1])
    np.subtract(images[:, 2:], images[:, :-2], out=down[:, 1:-1])
    half = np.float32(0.5)
    return across * half, down * half


def _laid(images: Images, places: NDArray[np.float32]) -> tuple[Images, Images]:
    """The images sampled (linearly) at their places, and 1 where there is something of them to see, else 0.

    A place is stretch and shift across, stretch and shift down, in coordinates that are -1..1 over the picture: the
    pixel at x shows what the image has at (1 + stretch) · x + shift.
    """
    side = images.shape[1]
    grid = _grid(side)
    weights, seen = [], []
    for axis in (0, 2):
        at = ((1 + places[:, axis, None]) * grid + places[:, axis + 1, None] + 1) * (side / 2) - 0.5
        seen.append(((at > -0.5) & (at < side - 0.5)).astype(np.float32))
        distance = np.abs(np.clip(at, 0, side - 1)[:, :, None] - np.arange(side, dtype=np.float32))
        weights.append(np.maximum(0, 1 - distance))
    laid = weights[1] @ images @ weights[0].transpose(0, 2, 1)
    return laid, seen[1][:, :, None] * seen[0][:, None, :]


def _step(a: Images, b: Images, places: NDArray[np.float32]) -> NDArray[np.float32]:
    """Places at which ``a`` fits ``b`` better: one step of Gauss and Newton, the brightness of both normalised."""
    count, side = len(a), a.shape[1]
    grid = _grid(side)
    laid, seen = _laid(a, places)
    (one, deviation), (other, _) = _normalised(laid, seen), _normalised(b, seen)
    across, down = gradients(laid)
    # Per pixel of the source, for the shift: what is stretched has gradients as much larger.
    across *= seen * (side / 2) / deviation / (1 + places[:, 0, None, None])
    down *= seen * (side / 2) / deviation / (1 + places[:, 2, None, None])
    slopes = np.stack([across * grid, across, down * grid[:, None], down], axis=1).reshape(count, 4, side * side)
    slopes -= slopes.mean(axis=2, keepdims=True)
    normal = slopes @ slopes.transpose(0, 2, 1)
    wanted = slopes @ (other - one).reshape(count, side * side, 1)
    damping = 1e-3 * np.trace(normal, axis1=1, axis2=2)[:, None, None] / 4 + 1e-6
    move = np.linalg.solve(normal + damping * np.eye(4, dtype=np.float32), wanted)[:, :, 0]
    return np.clip(places + np.clip(move, -LONGEST_STEP, LONGEST_STEP), -MOST, MOST)


def _correlation(a: Images, b: Images, places: NDArray[np.float32], around: int) -> NDArray[np.float32]:
    """Of the gradients, where both pictures have them; divided by those ``around`` them unless that is 0."""
    laid, seen = _laid(a, places)
    inner = np.zeros_like(seen)  # where a gradient has both its neighbours
    inner[:, 1:-1, 1:-1] = (
        seen[:, 1:-1, 1:-1] * seen[:, 2:, 1:-1] * seen[:, :-2, 1:-1] * seen[:, 1:-1, 2:] * seen[:, 1:-1, :-2]
    )
    (across_a, down_a), (across_b, down_b) = _evened(laid, around), _evened(b, around)
    common = ((across_a * across_b + down_a * down_b) * inner).sum(axis=(1, 2))
    energies = [
        ((across**2 + down**2) * inner).sum(axis=(1, 2)) for across, down in ((across_a, down_a), (across_b, down_b))
    ]
    found = common / np.sqrt(np.maximum(energies[0] * energies[1], 1e-6))
    found[seen.mean(axis=(1, 2)) < OVERLAP] = -1
    return found


def _evened(images: Images, around: int) -> tuple[Images, Images]:
    """Gradients across and down, in units of what is usual around them (smoothed ``around`` times)."""
    across, down = gradients(images)
    if around:
        usual = across**2 + down**2
        for _ in range(around):
            usual = blurred(usual)
        usual = np.sqrt(usual) + FAINT
        across /= usual
        down /= usual
    return across, down


def _normalised(images: Images, seen: Images) -> tuple[Images, Images]:
    """The images with mean 0 and norm 1 over what is seen of them, and what their deviations were divided by."""
    count = np.maximum(seen.sum(axis=(1, 2), keepdims=True), 1)
    apart = (images - (images * seen).sum(axis=(1, 2), keepdims=True) / count) * seen
    norm = np.maximum(np.sqrt((apart**2).sum(axis=(1, 2), keepdims=True)), 1e-3)
    return apart / norm, norm


def _grid(side: int) -> NDArray[np.float32]:
    """float32[side]: where the centres of the pixels lie on -1..1."""
    return ((np.arange(side, dtype=np.float32) + 0.5) * (2 / side) - 1).astype(np.float32)
