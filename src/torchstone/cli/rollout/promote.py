"""Serve the candidate from now on, proven or not; the numbers as they stand are kept."""

from __future__ import annotations

from torchstone.cli._options import JSON
from torchstone.cli.rollout._store import STATE, STORE


def command(*, state: STATE = None, store: STORE = None, json: JSON = False) -> int:
    from torchstone.cli.rollout._store import end_by_hand

    return end_by_hand(state, store, "promoted", json)
