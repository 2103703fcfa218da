"""How often each test set has been looked at, and what a look may still claim.

Every look at a test set that could change a choice uses it up a little. Of the total one-sided α = 1 - confidence,
look j spends α/2ʲ, so that all looks together never spend more than α; then new images are due. A look is the question
put to the test set (baseline, shortlist in its order, budget): the same question again is the same look.

One file for each test fingerprint, shared by all runs below the same folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import filelock

from torchstone.core import files
from torchstone.core.errors import ArtifactError, StorageError
from torchstone.core.values import Budget, Candidate

PATIENCE = 30.0
"""Seconds to wait for another process that is writing its look down."""


def entry(baseline: Candidate, shortlist: Sequence[str], budget: Budget) -> dict[str, Any]:
    """The question put to the test set: the baseline, the candidates' ids in their order, the budget."""
    return {"baseline": baseline.id, "shortlist": list(shortlist), "budget": budget.model_dump(mode="json")}


def look(directory: Path, test_fingerprint: str, question: dict[str, Any]) -> int:
    """The number of this look, counted from 1; a question that was put before keeps its number.

    Safe against other processes; written before the test set is looked at, so that a killed run has spent it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{test_fingerprint}.json"
    digest = files.digest(question)
    try:
        with filelock.FileLock(directory / f".{test_fingerprint}.lock", timeout=PATIENCE):
            looks = _read(path)
            if digest in looks:
                return looks.index(digest) + 1
            stored = files.read_json(path)["looks"] if looks else []
            stored.append({"digest": digest, **question, "at": datetime.now(UTC).isoformat(timespec="seconds")})
            files.write_json(path, {"schema_version": 1, "test_fingerprint": test_fingerprint, "looks": stored})
            return len(stored)
    except filelock.Timeout:
        raise StorageError(
            f"another process holds the ledger '{path}'", hint="wait for it to end and type the command again"
        ) from None


def looks(directory: Path, test_fingerprint: str) -> int:
    """How many different questions this test set has answered so far."""
    return len(_read(directory / f"{test_fingerprint}.json"))


def level(confidence: float, number: int) -> float:
    """One-sided confidence of every bound at look ``number`` ≥ 1: 1 - (1 - confidence)/2^number."""
    if number < 1:
        raise ValueError(f"looks are counted from 1, got {number}")
    return 1 - (1 - confidence) / 2**number


def _read(path: Path) -> list[str]:
    """Digests of the looks so far, in their order."""
    if not path.exists():
        return []
    try:
        return [row["digest"] for row in files.read_json(path)["looks"]]
    except (KeyError, TypeError):
        raise ArtifactError(
            f"'{path}' is not a ledger of looks", hint="restore it from a copy: without it, bounds cannot be trusted"
        ) from None
