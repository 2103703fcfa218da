"""Several candidates and one level: how to test them so that the chance to pass any that should not stays below α.

In a fixed order each may have the whole of α, because the test ends at the first that does not pass. Without an order
α is split by Holm (1979), *A simple sequentially rejective multiple test procedure*, Scandinavian Journal of Statistics
6:65-70, which holds whatever the candidates have in common.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from torchstone.core.verdict import Procedure

NameT = TypeVar("NameT")
FoundT = TypeVar("FoundT")


def did_pass(row: Any) -> bool:
    """Whether a row of a verdict did."""
    return row.outcome == "pass"


def in_order(
    names: Sequence[NameT],
    level: float,
    test: Callable[[NameT, float], FoundT],
    passed: Callable[[FoundT], bool] = did_pass,
) -> dict[NameT, FoundT]:
    """Each at the full ``level``, up to and with the first that does not pass."""
    found: dict[NameT, FoundT] = {}
    for name in names:
        found[name] = test(name, level)
        if not passed(found[name]):
            break
    return found


def by_holm(
    names: Sequence[NameT],
    level: float,
    test: Callable[[NameT, float], FoundT],
    passed: Callable[[FoundT], bool] = did_pass,
) -> dict[NameT, FoundT]:
    """All of them. The k that have not passed are each tested at α/k, for as long as one of them passes: what it no
    longer needs goes to the others. One that passes keeps the level at which it did, one that does not has the last."""
    found: dict[NameT, FoundT] = {}
    waiting = list(names)
    while waiting:
        found |= {name: test(name, 1 - (1 - level) / len(waiting)) for name in waiting}
        still = [name for name in waiting if not passed(found[name])]
        if len(still) == len(waiting):
            break
        waiting = still
    return found


def judged(
    procedure: Procedure, names: Sequence[NameT], level: float, test: Callable[[NameT, float], FoundT]
) -> dict[NameT, FoundT]:
    """What met the test set by this procedure, and what came of it; what is missing did not meet it."""
    return _PROCEDURES[procedure](names, level, test)


def ended_by(name: str) -> str:
    """Why a candidate after ``name`` did not meet the test set."""
    return f"'{name}' came first and did not pass, which ends this look at the test set"


_PROCEDURES: dict[Procedure, Callable[..., dict[Any, Any]]] = {"fixed-order": in_order, "holm": by_holm}
