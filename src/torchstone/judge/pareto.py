"""The Pareto front: what no other beats in everything at once. Each is a row of losses, of which less is better."""

from __future__ import annotations

from collections.abc import Sequence


def beats(mine: Sequence[float], its: Sequence[float]) -> bool:
    """Nowhere larger, and somewhere smaller."""
    pairs = list(zip(mine, its, strict=True))
    return all(own <= other for own, other in pairs) and any(own < other for own, other in pairs)


def beaten_by(losses: Sequence[Sequence[float]], place: int) -> list[int]:
    """The places of those that beat the one at ``place``."""
    return [other for other, its in enumerate(losses) if beats(its, losses[place])]


def front(losses: Sequence[Sequence[float]]) -> list[int]:
    """The places of those that nothing beats, in their order. Equal ones are all on it."""
    return [place for place in range(len(losses)) if not beaten_by(losses, place)]
