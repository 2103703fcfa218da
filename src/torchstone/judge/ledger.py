"""How often each test set has been looked at, and what a look may still claim.

Every look at a test set that could change a choice uses it up a little. Of the total one-sided α = 1 - confidence,
look j spends α/2ʲ, so that all looks together never spend more than α; then new images are due. A look is the question
put to the test set (baseline, shortlist in its order, budget; or the figure of one model): the same question again is
the same look.

One file for each test fingerprint, shared by all runs below the same folder. A test set that grew out of earlier ones
holds their images still: it begins where their looks ended.
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
from torchstone.core.verdict import Procedure

PATIENCE = 30.0
"""Seconds to wait for another process that is writing its look down."""


def entry(
    baseline: Candidate, shortlist: Sequence[str], budget: Budget, procedure: Procedure = "fixed-order"
) -> dict[str, Any]:
    """The question put to the test set: the baseline, the candidates' ids in their order, the budget. Where the order
    counts for nothing, it does not make another question."""
    return entry_of_ids(baseline.id, shortlist, budget, procedure)


def entry_of_ids(
    baseline: str, shortlist: Sequence[str], budget: Budget, procedure: Procedure = "fixed-order"
) -> dict[str, Any]:
    """The same, of whatever is judged that has ids."""
    asked = {"baseline": baseline, "shortlist": list(shortlist), "budget": budget.model_dump(mode="json")}
    return asked if procedure == "fixed-order" else asked | {"shortlist": sorted(shortlist), "procedure": procedure}


def figure(candidate: Candidate) -> dict[str, Any]:
    """The question what one candidate reaches on the test set, by itself."""
    return {"figure_of": candidate.id}


def known(directory: Path, test_fingerprint: str, question: dict[str, Any]) -> int | None:
    """The number of the look at which this question was put, None where it was not."""
    return _read(directory / f"{test_fingerprint}.json").get(files.digest(question))


def look(directory: Path, test_fingerprint: str, question: dict[str, Any], earlier: Sequence[str] = ()) -> int:
    """The number of this look, counted from 1; a question that was put before keeps its number. ``earlier`` are the
    fingerprints of the test sets that this one grew out of (``Split.earlier_tests``).

    Safe against other processes; written before the test set is looked at, so that a killed run has spent it.
    """
    files.make_directory(directory)
    path = directory / f"{test_fingerprint}.json"
    digest = files.digest(question)
    try:
        with filelock.FileLock(directory / f".{test_fingerprint}.lock", timeout=PATIENCE):
            numbers = _read(path)
            if digest in numbers:
                return numbers[digest]
            number = 1 + looks(directory, test_fingerprint, earlier)
            stored = files.read_json(path)["looks"] if numbers else []
            at = datetime.now(UTC).isoformat(timespec="seconds")
            stored.append({"digest": digest, **question, "look": number, "at": at})
            files.write_json(path, {"schema_version": 1, "test_fingerprint": test_fingerprint, "looks": stored})
            return number
    except filelock.Timeout:
        raise StorageError(
            f"another process holds the ledger '{path}'", hint="wait for it to end and type the command again"
        ) from None


def looks(directory: Path, test_fingerprint: str, earlier: Sequence[str] = ()) -> int:
    """How many different questions this test set and the ``earlier`` ones have answered so far."""
    every = {test_fingerprint, *earlier}
    asked = [_read(directory / f"{one}.json") for one in every]
    last = max(_read(directory / f"{test_fingerprint}.json").values(), default=0)
    return max(sum(map(len, asked)), last)  # a number never comes twice, though an earlier ledger were lost


def stored(directory: Path, test_fingerprint: str) -> dict[str, Any]:
    """The ledger of this test set as it stands on the disk."""
    return files.read_json(directory / f"{test_fingerprint}.json")


def rows(content: Any, path: Path | str) -> list[dict[str, Any]]:
    """The looks of a stored ledger, each with its ``look``, its ``digest`` and the question that was put."""
    try:
        stored = enumerate(content["looks"], start=1)
        return [{**row, "digest": row["digest"], "look": int(row.get("look", place))} for place, row in stored]
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ArtifactError(
            f"'{path}' is not a ledger of looks", hint="restore it from a copy: without it, bounds cannot be trusted"
        ) from None


def level(confidence: float, number: int) -> float:
    """One-sided confidence of every bound at look ``number`` ≥ 1: 1 - (1 - confidence)/2^number."""
    if number < 1:
        raise ValueError(f"looks are counted from 1, got {number}")
    return 1 - (1 - confidence) / 2**number


def _read(path: Path) -> dict[str, int]:
    """The number of each look so far, by its digest."""
    if not path.exists():
        return {}
    return {row["digest"]: row["look"] for row in rows(files.read_json(path), path)}
