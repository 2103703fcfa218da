"""Randomness that depends on what is asked alone: never on order, time, or the number of workers."""

from __future__ import annotations

import hashlib

import numpy as np


def seed_of(*parts: str | int) -> int:
    """A 63-bit seed for this combination, the same on every machine and Python version."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(*parts: str | int) -> np.random.Generator:
    """A numpy generator for this combination of seed, purpose, epoch, sample…"""
    return np.random.default_rng(seed_of(*parts))
