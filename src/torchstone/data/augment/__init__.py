"""Random changes to training images. What happens to a sample depends on (seed, epoch, sample) alone: not on the batch
it is in, the order of batches, the number of workers or of threads.

The policies below draw their numbers from a counter-based generator and change a whole batch at once; where they use
torchvision's transforms, and for a policy of your own (``user_policy``), the global generators are seeded for each
sample and put back afterwards.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from enum import IntEnum, auto
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator

from torchstone.core import seeding
from torchstone.core.errors import ConfigError, nearest
from torchstone.core.values import Preprocess
from torchstone.data.preprocess import stored_side

if TYPE_CHECKING:
    from torchstone.data.augment.warp import Planes

VERSION = 2
"""Of what the named policies do: raised when one of them gives other pixels."""

PADDING = 8
"""Where the stored image has no room around the crop, it is continued by crop / PADDING pixels, reflected."""

CHUNK_PIXELS = 2**16
"""Output pixels that are worked on at once. With more, every buffer is fresh memory from the system, which costs more
than the work."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What may happen to an image besides a random crop; each amount is drawn evenly from its range."""

    flip: bool = False
    """Mirrored left to right, half of the time."""
    quarter_turns: bool = False
    rotation: float = 0.0
    """Degrees either way."""
    scale: float = 0.0
    """Enlarged or shrunk by up to this share."""
    automatic: bool = False
    """TrivialAugment, or RandAugment for small images (``user_policy.automatic``)."""
    hue: float = 0.0
    """Degrees either way. Hue, saturation and value change by the linear maps of ``warp.colour_matrices``."""
    saturation: float = 0.0
    value: float = 0.0
    contrast: float = 0.0
    """Shares by which these rise or fall."""
    noise: float = 0.0
    """Largest standard deviation of Gaussian noise, on the 0..1 scale; half of the images get none."""
    erase: float = 0.0
    """Probability that a rectangle becomes noise (Random Erasing, Zhong et al. 2020)."""

    @property
    def warps(self) -> bool:
        return bool(self.rotation or self.scale)

    @property
    def repaints(self) -> bool:
        return bool(self.hue or self.saturation or self.value or self.contrast or self.noise or self.erase)


POLICIES: dict[str, Policy | None] = {
    "none": None,
    "light": Policy(),
    "mirror": Policy(flip=True),
    "standard": Policy(flip=True, rotation=15, scale=0.2, hue=20, saturation=0.2, value=0.2),
    "strong": Policy(flip=True, quarter_turns=True, automatic=True, value=0.2, contrast=0.2, noise=0.05, erase=0.25),
    "medical": Policy(rotation=15, scale=0.2),
}
"""``none``: the evaluation's own pixels. ``light``: a random crop. ``mirror``: mirrored besides, as is usual for
CIFAR-10. ``standard``, ``strong``: for photos. What mirrors is wrong for digits, text and signs, and never chosen by
itself. ``medical``: no flips, no colours."""

MIRRORING = tuple(name for name, policy in POLICIES.items() if policy and policy.flip)
DESCRIPTION = (
    f"how training images are varied: {', '.join(POLICIES)} ({' and '.join(MIRRORING)} mirror them: not for digits, "
    "text, signs; strong turns them, too), a TOML file of torchvision transforms, or file.py:function"
)


def check_policy(policy: str) -> str:
    """``policy`` itself; a ConfigError where it names none and no file that could hold one. The file is not opened."""
    if policy in POLICIES:
        return policy
    path, _ = _file_of(policy)
    if path is None:
        raise ConfigError(
            f"unknown augmentation policy '{policy}'",
            hint=f"{nearest(policy, POLICIES)} (or FILE.toml, FILE.py:FUNCTION)",
        )
    if not path.is_file():
        raise ConfigError(f"the augmentation policy '{policy}' does not exist", hint=nearest(policy, POLICIES))
    return policy


def _check_named(policy: str) -> str:
    if policy not in POLICIES:
        raise ConfigError(f"unknown augmentation policy '{policy}'", hint=nearest(policy, POLICIES))
    return policy


PolicyName = Annotated[str, AfterValidator(check_policy)]
"""A policy as settings and recipes hold it."""
NamedPolicy = Annotated[str, AfterValidator(_check_named)]
"""One of ``POLICIES``: where the name alone must say what was done."""


def source_of(policy: str) -> bytes | None:
    """What the file of a policy holds now, for ``Augmenter`` and ``identity``; None for a name. Raises a ConfigError
    where it cannot be read."""
    from torchstone.data.augment import user_policy

    path, _ = _file_of(policy)
    return None if path is None else user_policy.read(path)


def identity(policy: str, source: bytes | None) -> list[str | int]:
    """What an artifact's key says of the policy: another content of its file (``source_of``), another value. Modules
    that a ``file.py`` imports in its turn are not looked at."""
    _, function = _file_of(policy)
    return [policy, VERSION] if source is None else [function, hashlib.sha256(source).hexdigest()]


def _file_of(policy: str) -> tuple[Path | None, str]:
    """The file behind a policy, None for a name; and its function's name, empty for TOML."""
    if policy in POLICIES:
        return None, ""
    if policy.endswith(".toml"):
        return Path(policy), ""
    path, _, function = policy.rpartition(":")
    return (Path(path), function) if path.endswith(".py") and function.isidentifier() else (None, "")


class Draw(IntEnum):
    """Which of a sample's random numbers."""

    TOP = 0
    LEFT = 1
    FLIP = 2
    TURN = auto()
    ANGLE = auto()
    SCALE = auto()
    HUE = auto()
    SATURATION = auto()
    VALUE = auto()
    CONTRAST = auto()
    NOISE = auto()
    ERASE = auto()
    ERASE_AREA = auto()
    ERASE_ASPECT = auto()
    ERASE_TOP = auto()
    ERASE_LEFT = auto()
    NOISE_SEED = auto()
    TRANSFORM_SEED = auto()


@dataclass(frozen=True)
class Augmenter:
    """The policy for one epoch, for ``data.loader.batches``: small, picklable, the same in every process."""

    policy: str
    crop: int
    seed: int
    epoch: int
    source: bytes | None = field(default=None, repr=False)
    """What the file of a policy of your own holds (``source_of``). A training takes it once: a file that is edited
    meanwhile changes nothing, and the artifact's key stays true. None: the file as it is now."""

    def __call__(self, stored: NDArray[np.uint8], rows: NDArray[np.intp]) -> NDArray[np.uint8]:
        """uint8[n, s, s, 3] with s ≥ crop → uint8[n, crop, crop, 3]; ``rows`` are the samples' fixed numbers in the
        training part. A ConfigError says what is wrong with what a policy of your own returned."""
        if self.policy not in POLICIES:
            return self._by_the_user(stored, rows)
        policy = POLICIES[self.policy]
        if policy is None:
            start = (stored.shape[1] - self.crop) // 2
            return np.ascontiguousarray(stored[:, start : start + self.crop, start : start + self.crop])
        if not policy.warps:
            stored = self._cut(stored, rows, policy)
            if policy.automatic:
                stored = self._automatic(stored, rows)
            if not policy.repaints:
                return stored
        return self._computed(stored, rows, policy)

    def _computed(self, stored: NDArray[np.uint8], rows: NDArray[np.intp], policy: Policy) -> NDArray[np.uint8]:
        """What is done in floating point: the warp of stored images, and new colours."""
        from torchstone.data.augment import warp

        out = np.empty((len(stored), self.crop, self.crop, 3), np.uint8)
        step = max(1, CHUNK_PIXELS // self.crop**2)
        for start in range(0, len(stored), step):
            chunk = slice(start, start + step)
            pixels, samples = stored[chunk], rows[chunk]
            planes = self._warped(pixels, samples, policy) if policy.warps else warp.to_planes(pixels)
            out[chunk] = warp.to_bytes(self._repainted(planes, samples, policy))
        return out

    def _automatic(self, pixels: NDArray[np.uint8], rows: NDArray[np.intp]) -> NDArray[np.uint8]:
        from torchstone.data.augment import user_policy

        seeds = _bits(self.seed, self.epoch, rows, Draw.TRANSFORM_SEED)
        return np.stack(user_policy.apply(user_policy.automatic(self.crop), pixels, seeds, self.policy))

    def _cut(self, stored: NDArray[np.uint8], rows: NDArray[np.intp], policy: Policy) -> NDArray[np.uint8]:
        """Crops at random places, flipped and turned: pixels are moved, none is computed."""
        crop = self.crop
        if stored.shape[1] == crop:
            margin = max(1, crop // PADDING)
            stored = np.pad(stored, ((0, 0), (margin, margin), (margin, margin), (0, 0)), mode="reflect")
        room = stored.shape[1] - crop + 1
        top = (self._uniform(rows, Draw.TOP) * room).astype(np.intp)
        left = (self._uniform(rows, Draw.LEFT) * room).astype(np.intp)
        flip = (self._uniform(rows, Draw.FLIP) < 0.5) & policy.flip
        turns = (self._uniform(rows, Draw.TURN) * 4).astype(np.intp) * policy.quarter_turns
        out = np.empty((len(stored), crop, crop, 3), np.uint8)
        for row in range(len(stored)):
            window = stored[row, top[row] : top[row] + crop, left[row] : left[row] + crop]
            window = window[:, ::-1] if flip[row] else window
            out[row] = np.rot90(window, turns[row]) if turns[row] else window
        return out

    def _warped(self, stored: NDArray[np.uint8], rows: NDArray[np.intp], policy: Policy) -> Planes:
        """Crop, flip, rotation and scale as one resampling."""
        from torchstone.data.augment import warp

        slack = stored.shape[1] - self.crop
        reach = slack / 2 if slack else max(1, self.crop // PADDING)
        return warp.warp(
            stored,
            shift=np.stack(
                [self._between(rows, Draw.TOP, -reach, reach), self._between(rows, Draw.LEFT, -reach, reach)]
            ),
            degrees=self._between(rows, Draw.ANGLE, -policy.rotation, policy.rotation),
            scale=self._between(rows, Draw.SCALE, 1 - policy.scale, 1 + policy.scale),
            flip=(self._uniform(rows, Draw.FLIP) < 0.5) & policy.flip,
            crop=self.crop,
        )

    def _repainted(self, planes: Planes, rows: NDArray[np.intp], policy: Policy) -> Planes:
        """Colours, noise and erasing, where the policy has them."""
        from torchstone.data.augment import warp

        def factor(draw: Draw, amount: float) -> NDArray[np.float64]:
            return self._between(rows, draw, 1 - amount, 1 + amount)

        if policy.hue or policy.saturation or policy.value or policy.contrast:
            planes = warp.recolour(
                planes,
                hue=self._between(rows, Draw.HUE, -policy.hue, policy.hue),
                saturation=factor(Draw.SATURATION, policy.saturation),
                value=factor(Draw.VALUE, policy.value),
                contrast=factor(Draw.CONTRAST, policy.contrast),
            )
        if policy.noise:
            sigma = np.maximum(0.0, self._between(rows, Draw.NOISE, -policy.noise, policy.noise))
            planes = warp.add_noise(planes, sigma, _bits(self.seed, self.epoch, rows, Draw.NOISE_SEED))
        if policy.erase:
            draws = (Draw.ERASE_AREA, Draw.ERASE_ASPECT, Draw.ERASE_TOP, Draw.ERASE_LEFT)
            numbers = np.stack([self._uniform(rows, draw) for draw in draws], axis=1)
            chosen = self._uniform(rows, Draw.ERASE) < policy.erase
            planes = warp.erase(planes, chosen, numbers, _bits(self.seed, self.epoch, rows, Draw.ERASE))
        return planes

    def _by_the_user(self, stored: NDArray[np.uint8], rows: NDArray[np.intp]) -> NDArray[np.uint8]:
        """A policy of TOML or Python sees the stored image; what is larger than the crop is then cropped at random."""
        from torchstone.data.augment import user_policy

        path, function = _file_of(self.policy)
        assert path is not None
        source = user_policy.read(path) if self.source is None else self.source
        transform = user_policy.load(path, source, function, self.crop)
        seeds = _bits(self.seed, self.epoch, rows, Draw.TRANSFORM_SEED)
        top, left = self._uniform(rows, Draw.TOP), self._uniform(rows, Draw.LEFT)
        out = np.empty((len(stored), self.crop, self.crop, 3), np.uint8)
        for row, image in enumerate(user_policy.apply(transform, stored, seeds, self.policy)):
            height, width = image.shape[0] - self.crop + 1, image.shape[1] - self.crop + 1
            if height < 1 or width < 1:
                raise ConfigError(
                    f"the augmentation policy '{self.policy}' gives {image.shape[1]} × {image.shape[0]} pixels, and "
                    f"the network sees {self.crop} × {self.crop}",
                    hint='size = "crop" stands for the size that the network sees',
                )
            y, x = int(top[row] * height), int(left[row] * width)
            out[row] = image[y : y + self.crop, x : x + self.crop]
        return out

    def _uniform(self, rows: NDArray[np.intp], draw: Draw) -> NDArray[np.float64]:
        return uniform(self.seed, self.epoch, rows, draw=draw)

    def _between(self, rows: NDArray[np.intp], draw: Draw, low: float, high: float) -> NDArray[np.float64]:
        return low + (high - low) * self._uniform(rows, draw)


def rehearse(policy: str, preprocess: Preprocess) -> None:
    """Apply the policy to an image of noise: raises the ConfigError of a policy of your own that cannot work, before
    anything is read or trained."""
    side = stored_side(preprocess)
    noise = seeding.generator(0, "rehearsal").integers(0, 256, (1, side, side, 3), dtype=np.uint8)
    Augmenter(policy, preprocess.crop, 0, 0)(noise, np.zeros(1, np.intp))


def uniform(seed: int, epoch: int, samples: NDArray[np.intp], *, draw: int) -> NDArray[np.float64]:
    """A number in [0, 1) for each (seed, epoch, sample, draw)."""
    return (_bits(seed, epoch, samples, draw) >> np.uint64(11)).astype(np.float64) / 2.0**53


def _bits(seed: int, epoch: int, samples: NDArray[np.intp], draw: int) -> NDArray[np.uint64]:
    """64 random bits for each (seed, epoch, sample, draw): SplitMix64's finaliser (Steele et al. 2014), twice."""
    with np.errstate(over="ignore"):
        state = np.uint64(seed % 2**64) + np.uint64(epoch) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(int(draw) << 56)
        return _mix(_mix(samples.astype(np.uint64) * np.uint64(0xD1B54A32D192ED03) + state) ^ state)


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
