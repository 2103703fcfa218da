"""The judge's random numbers, made of the raw bits of PCG64.

Of its bit generators numpy promises that their streams stay as they are from version to version; of what a Generator
makes of them (``integers``, ``poisson``) it does not (NEP 19). A bound that was drawn must come out the same years
later, so what is made of the bits is written here.
"""

from __future__ import annotations

import hashlib
import math
from functools import cache
from importlib import metadata

import numpy as np
from numpy.typing import NDArray

from torchstone.core.seeding import seed_of
from torchstone.core.verdict import Draws

BIT_GENERATOR = np.random.PCG64
SHOWN = 512
"""Numbers of each kind that a stream is known by."""


class Stream:
    """Whole numbers at random: the same seed gives the same ones."""

    def __init__(self, seed: int) -> None:
        self._bits = BIT_GENERATOR(seed)

    def below(self, bound: int, shape: tuple[int, ...]) -> NDArray[np.int64]:
        """int64[shape] in 0..bound-1, ``bound`` ≤ 2³². Each is the upper half of 32 bits times the bound: no number is
        likelier than another by more than bound / 2³²."""
        count = math.prod(shape)
        bits = self._bits.random_raw(-(-count // 2))
        halves = np.stack([bits >> np.uint64(32), bits & np.uint64(0xFFFFFFFF)], axis=1).ravel()[:count]
        halves *= np.uint64(bound)
        halves >>= np.uint64(32)
        return halves.view(np.int64).reshape(shape)

    def poisson(self, shape: tuple[int, ...]) -> NDArray[np.int64]:
        """int64[shape] of mean 1, by the inverse of the distribution at 53 bits."""
        bits = self._bits.random_raw(math.prod(shape))
        uniform = (bits >> np.uint64(11)) * 2.0**-53
        return np.searchsorted(_poisson(), uniform, side="right").astype(np.int64).reshape(shape)


def described(resamples: int) -> Draws:
    """How a bootstrap of so many resamples draws here."""
    return Draws(
        bit_generator=BIT_GENERATOR.__name__, numpy=metadata.version("numpy"), resamples=resamples, stream=_known_by()
    )


@cache
def _poisson() -> NDArray[np.float64]:
    """P(at most k) of mean 1, for every k that 53 bits can reach."""
    return np.cumsum([math.exp(-1) / math.factorial(k) for k in range(19)])


@cache
def _known_by() -> str:
    """Digest of the first numbers of a seed that is always the same."""
    stream = Stream(seed_of("known by"))
    drawn = np.concatenate([stream.below(10_007, (SHOWN,)), stream.poisson((SHOWN,))])
    return hashlib.sha256(drawn.astype("<i8").tobytes()).hexdigest()
