"""What is watched of a rollout: counts of differences between the candidate and the stable model, and their evidence.

Every monitor looks at something bad that an answer can be: wrong, an error, slow. The difference X is bad(candidate) -
bad(stable), so that its mean is what the candidate adds of it. In shadow mode both models answer the same request, and
X is of one pair. In a canary they answer different ones: there X is of a block, the share of bad answers among its
candidate's minus that among its stable one's. Blocks are put together in the order in which answers come, without a
look at them, so that the mean of X is the same difference; but X varies more, and more labels are needed. Both sides of
a block must be of one time: where one arm gets more than its share, its oldest answers are given up.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from torchstone.judge import betting

Arm = Literal["stable", "canary"]


class Given(NamedTuple):
    """One answer, as a monitor of answers looks at it."""

    failed: bool
    milliseconds: float
    """0: from the cache."""
    slow_ms: float | None
    """What takes longer is slow; None where that is not known yet, or where this answer helped to find it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Monitor:
    """Something bad that the answers of a candidate may be more often."""

    margin: float
    """What the candidate may add to its share, unless another is asked for."""
    harm: float
    """Of the harmless candidates, at most this share is rolled back by it."""
    promotion: float
    """Of those worse by the margin, at most this share is held to be no worse."""
    what: str
    """What the bad answers are called."""
    adds: str
    """The beginning of the sentence that says what it has found."""
    bad: Callable[[Given], bool | None] | None
    """Whether an answer is; None where it says nothing of that. No function: it is wrong by its true label."""


def _slow(given: Given) -> bool | None:
    if given.slow_ms is None or given.failed or given.milliseconds <= 0:
        return None
    return given.milliseconds > given.slow_ms


MONITORS: dict[str, Monitor] = {
    "accuracy": Monitor(
        margin=0.005, harm=0.04, promotion=0.04, what="wrong answers", adds="the drop of accuracy is", bad=None
    ),
    "errors": Monitor(
        margin=0.005, harm=0.005, promotion=0.05, what="errors", adds="the candidate adds failed requests: they are",
        bad=lambda given: given.failed,
    ),
    "latency": Monitor(
        margin=0.05, harm=0.005, promotion=0.05, what="slow answers", adds="the candidate adds slow answers: they are",
        bad=_slow,
    ),
}  # fmt: skip
"""Of the 5 % of harmless candidates that may be rolled back, accuracy spends the most: its labels are few and dear,
while each request says whether it failed and how long it took. A candidate that is worse by a margin is promoted with
at most 5 %: all must hold, so nothing is shared out between them, but accuracy has two ways to be shown and shares its
5 % between labels and AGREEMENT."""

OF_ANSWERS = {name: monitor.bad for name, monitor in MONITORS.items() if monitor.bad is not None}
"""Those that need no labels."""

AGREEMENT = 0.01
"""Level at which models that hardly ever differ are held to be equally good."""

PENDING = 8
"""Blocks whose answers may wait for the other arm; beyond that the oldest are given up. Answers that waited for long
met other images than those they would be compared with: what changes in the traffic would be taken for a difference
between the models. With two equal arms, one answer in 17 is given up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """Differences between two answers to the same request."""

    worse: int = 0
    """Bad in the candidate alone."""
    better: int = 0
    """Bad in the stable model alone."""
    same: int = 0

    def add(self, candidate: Sequence[bool], stable: Sequence[bool]) -> Pairs:
        """With more pairs: whether each was bad."""
        both = list(zip(candidate, stable, strict=True))
        worse, better = both.count((True, False)), both.count((False, True))
        return Pairs(worse=self.worse + worse, better=self.better + better, same=self.same + len(both) - worse - better)

    @property
    def observations(self) -> int:
        return self.worse + self.better + self.same

    def seen(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The differences that can occur and how often each did, as ``judge.betting`` takes them."""
        return betting.PAIRED, np.array([self.worse, self.better, self.same], np.float64)

    def row(self) -> dict[str, Any]:
        return {"worse": self.worse, "better": self.better, "same": self.same}

    @classmethod
    def of_row(cls, row: dict[str, Any]) -> Pairs:
        return cls(**row)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arms:
    """Differences between blocks of answers to different requests: ``sizes`` of the stable model's and the candidate's
    make one block."""

    sizes: tuple[int, int]
    blocks: Counter[tuple[int, int]] = field(default_factory=Counter)
    """How often a block had so many bad answers of the stable model and so many of the candidate."""
    stable: str = ""
    """Answers that wait for the other arm, the oldest first: 1 is bad."""
    canary: str = ""
    dropped: tuple[int, int] = (0, 0)
    """Answers that were given up."""

    @classmethod
    def of_weight(cls, weight: float) -> Arms:
        """Empty, with the block that a share ``weight`` of the requests for the candidate fills evenly."""
        ratio = (1 - weight) / weight
        return cls(sizes=(max(1, round(ratio)), max(1, round(1 / ratio))))

    def add(self, answers: Iterable[tuple[Arm, bool]]) -> Arms:
        """With more answers, in the order in which they came: whose, and whether it was bad."""
        waiting, dropped = (deque(self.stable), deque(self.canary)), list(self.dropped)
        made: Counter[tuple[int, int]] = Counter()
        for arm, bad in answers:
            mine = 0 if arm == "stable" else 1
            waiting[mine].append("01"[bool(bad)])
            if all(len(waiting[side]) >= self.sizes[side] for side in (0, 1)):
                block = [[waiting[side].popleft() for _ in range(self.sizes[side])].count("1") for side in (0, 1)]
                made[block[0], block[1]] += 1
            elif len(waiting[mine]) > PENDING * self.sizes[mine]:
                waiting[mine].popleft()
                dropped[mine] += 1
        return replace(
            self, blocks=self.blocks + made, stable="".join(waiting[0]), canary="".join(waiting[1]),
            dropped=(dropped[0], dropped[1]),
        )  # fmt: skip

    @property
    def observations(self) -> int:
        return sum(self.blocks.values())

    def seen(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The differences that occurred and how often each did; a difference of 0 that never did where none has."""
        if not self.blocks:
            return np.zeros(1), np.zeros(1)
        s, c = self.sizes
        values = [bad_c / c - bad_s / s for bad_s, bad_c in self.blocks]
        return np.array(values), np.array(list(self.blocks.values()), np.float64)

    def row(self) -> dict[str, Any]:
        blocks = [[*bad, count] for bad, count in sorted(self.blocks.items())]
        return {
            "sizes": list(self.sizes), "blocks": blocks, "stable": self.stable, "canary": self.canary,
            "dropped": list(self.dropped),
        }  # fmt: skip

    @classmethod
    def of_row(cls, row: dict[str, Any]) -> Arms:
        blocks = Counter({(bad_s, bad_c): count for bad_s, bad_c, count in row["blocks"]})
        return cls(
            sizes=tuple(row["sizes"]), blocks=blocks, stable=row["stable"], canary=row["canary"],
            dropped=tuple(row["dropped"]),
        )  # fmt: skip


Differences = Pairs | Arms


def evidence(differences: Differences, margin: float, harm: float, promotion: float) -> dict[str, Any]:
    """What the differences say of ``margin``, as plain numbers: log-wealth of both claims beside what it must reach at
    the levels ``harm`` and ``promotion``, the observed mean and its bounds at these levels (right at all times)."""
    values, counts = differences.seen()
    total = float(counts.sum())
    return {
        "observations": differences.observations,
        "mean": float(values @ counts / total) if total else None,
        "at_least": betting.lower_bound(values, counts, harm),
        "at_most": betting.upper_bound(values, counts, promotion),
        "margin": margin,
        "worse": float(betting.log_wealth(values, counts, margin, "worse")),
        "worse_at": betting.threshold(harm),
        "no_worse": float(betting.log_wealth(values, counts, margin, "no worse")),
        "no_worse_at": betting.threshold(promotion),
    }
