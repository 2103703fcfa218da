"""Randomness that depends on what is asked alone: never on order, time, or the number of workers."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray


def seed_of(*parts: str | int) -> int:
    """A 63-bit seed for this combination, the same on every machine and Python version."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def sample_rows(labels: NDArray[np.int64], count: int, purpose: str) -> NDArray[np.intp]:
    """At most ``count`` rows, sorted; as many of each class as of any other, as far as there are. Always the same ones
    for the same labels and purpose."""
    order = generator(0, purpose, len(labels)).permutation(len(labels))
    shuffled = labels[order]
    turn = np.empty(len(labels), np.intp)  # how many of its class come before it
    for label in np.unique(shuffled):
        turn[shuffled == label] = np.arange((shuffled == label).sum())
    return np.sort(order[np.argsort(turn, kind="stable")[:count]])


def generator(*parts: str | int) -> np.random.Generator:
    """A numpy generator for this combination of seed, purpose, epoch, sample…"""
    return np.random.default_rng(seed_of(*parts))
