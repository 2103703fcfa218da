"""Reads what is new in the log, counts it, and decides: roll back, promote, or go on.

It runs in one process, beside the workers, and keeps nothing of its own: counts and the place up to which it has read
stand in the rollout's row, in one transaction. Killed at any moment, it goes on from there, and no answer counts twice.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from torchstone.core import console
from torchstone.core.errors import TorchstoneError
from torchstone.serve.looking import keep_looking
from torchstone.serve.rollout import likeness, monitors, record
from torchstone.serve.rollout.monitors import AGREEMENT, MONITORS, OF_ANSWERS, Arm, Arms, Differences, Given, Pairs
from torchstone.serve.rollout.plan import FEEDBACK_BIAS, Plan
from torchstone.serve.rollout.record import Decision, Rollout, Status
from torchstone.serve.store import reading, tables
from torchstone.serve.store.reading import Labelled, Seen

POLL = 1.0
"""Seconds between two looks at the log."""
BEAT = 5.0
"""Seconds from one sign of life in the store to the next."""
TIMES = (500, 5_000)
"""Answers of the stable model, at least and at most, whose times say what is slow: the first since the rollout began,
because a candidate beside it takes time from both."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """All that a rollout has seen."""

    monitors: Mapping[str, Differences]
    """By the names of MONITORS."""
    disagreement: Pairs = field(default_factory=Pairs)
    """``worse``: the two differ, or the candidate failed. Shadow mode alone."""
    predictions: int
    """Number of the last row of the log that is counted, and below of the last label."""
    feedback: int
    since: int
    """Number of the last row before the rollout."""
    slow_ms: float | None = None
    """What takes longer is slow; None until enough answers were timed."""
    slow_from: int = 0
    """Number of the last row that this bound comes from: those after it are counted."""
    answers: int = 0
    """Of the candidate."""
    failed: int = 0
    unpaired: int = 0
    """Answers of the candidate whose counterpart is not in the log."""
    labels: int = 0
    """Labels of images that the rollout speaks of: of both models' answers in shadow mode, of either's in a canary."""
    stray: int = 0
    """Other labels."""
    right: tuple[int, int] = (0, 0)
    """Labelled answers that were right, of the stable model and of the candidate."""
    asked: tuple[int, int] = (0, 0)
    """Labelled answers of each."""
    likely: tuple[int, int] = (0, 0)
    """Of the labelled pairs, those that differ, and all; of a canary's labelled answers, the candidate's and all."""
    everyone: tuple[int, int] = (0, 0)
    """The same of all pairs or answers, labelled or not."""
    held: tuple[str, ...] = ()
    """Why a promotion by labels was held back so far: 'some' of them are sent, or they are 'unlike' all requests."""

    @classmethod
    def of_state(cls, plan: Plan, state: Mapping[str, Any]) -> Counts:
        kind: type[Pairs] | type[Arms] = Pairs if plan.mode == "shadow" else Arms
        found = dict(state)
        empty = Pairs() if plan.mode == "shadow" else Arms.of_weight(plan.weight)
        try:
            known = state.get("monitors", {})
            found["monitors"] = {name: kind.of_row(known[name]) if name in known else empty for name in MONITORS}
            if "disagreement" in state:
                found["disagreement"] = Pairs.of_row(state["disagreement"])
            for name in ("right", "asked", "likely", "everyone", "held"):
                if name in state:
                    found[name] = tuple(state[name])
            return cls(**found)
        except (KeyError, TypeError):
            raise record.of_another_version(plan.id) from None

    @property
    def state(self) -> dict[str, Any]:
        """As the store keeps it."""
        kept = {name: getattr(self, name) for name in self.__slots__}
        return {name: _plain(value) for name, value in kept.items()}


def _plain(value: Any) -> Any:
    """As it comes back from the store, so that it can be seen that nothing is new."""
    if isinstance(value, Pairs | Arms):
        return value.row()
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in cast(Mapping[str, Any], value).items()}
    return list(cast(tuple[Any, ...], value)) if isinstance(value, tuple) else value


class Controller:
    """Watches the rollouts in one store."""

    def __init__(
        self,
        url: str,
        ended: Callable[[Plan, Status], None] | None = None,
        clock: Callable[[], float] = time.time,
        seen: Callable[[Plan | None, Mapping[str, Any]], None] | None = None,
        failed: Callable[[], None] | None = None,
    ) -> None:
        """``seen`` is told after each look which rollout is running, and its ``numbers``; ``failed`` is called for each
        look that failed."""
        self._engine = tables.engine(url)
        self._ended = ended
        self._seen = seen
        self._failed = failed
        self._clock = clock
        self._beaten = -math.inf
        self._shown: Plan | None = None
        """The running rollout, as the last look found it."""

    def run(self, stop: threading.Event) -> None:
        """Look at the log until told to stop. A store that is away is waited for."""

        def failed() -> None:
            if self._failed is not None:
                self._failed()

        keep_looking(self.step, stop, pause=POLL, what="no rollout is watched", failed=failed)
        self._engine.dispose()

    def step(self) -> bool:
        """Count what is new, decide, write both down. True where more is waiting to be counted. Raises a StorageError
        where the store is away."""
        try:
            return self._step()
        except SQLAlchemyError as error:
            raise tables.unreachable(self._engine, error) from None

    def _step(self) -> bool:
        with self._engine.begin() as connection:
            found = record.running(connection)
            if self._shown is not None and (found is None or found.plan.id != self._shown.id):
                self._ended_elsewhere(connection, self._shown)
            if found is None:
                self._show(None, None)
                return False
            beats = time.monotonic() - self._beaten >= BEAT
            if beats:
                record.beat(connection, time.time())
            counts, more = count(connection, found, self._clock())
            decision = decide(found.plan, counts, self._clock())
            if decision is None:
                counts = self._noted(connection, found.plan, counts)
            if counts.state != found.state:
                if not record.keep(connection, found, counts.state):
                    connection.rollback()
                    return True
                found = replace(found, state=counts.state, version=found.version + 1)
            if decision is None:
                self._show(found.plan, counts)
            else:
                decision = _possible(found.plan, decision)
                if not record.end(connection, found, cast(Status, decision.kind), decision):
                    connection.rollback()
                    return True
        if beats:
            self._beaten = time.monotonic()
        if decision is None:
            return more
        console.say(f"rollout {found.plan.id}: {decision.kind.replace('_', ' ')}: {decision.reason}")
        if self._ended is not None:
            self._ended(found.plan, cast(Status, decision.kind))
        self._shown = None
        return False

    def _ended_elsewhere(self, connection: sa.Connection, plan: Plan) -> None:
        """Tell how a rollout ended that somebody else has ended since the last look: a person, a worker that could not
        open its candidate, or another server's controller."""
        status = record.status_of(connection, plan.id)
        if self._ended is not None and status is not None and status != "running":
            self._ended(plan, status)
        self._shown = None

    def _noted(self, connection: sa.Connection, plan: Plan, counts: Counts) -> Counts:
        """Write down, once, why labels do not promote."""
        found = numbers(plan, counts)
        why = "some" if plan.labels == "some" else "unlike"
        if found["held"] is None or why in counts.held:
            return counts
        record.note(connection, plan.id, Decision(kind="held", reason=found["held"], numbers=found, time=self._clock()))
        console.say(f"rollout {plan.id}: {found['held']}")
        return replace(counts, held=(*counts.held, why))

    def _show(self, plan: Plan | None, counts: Counts | None) -> None:
        self._shown = plan
        if self._seen is not None:
            self._seen(plan, numbers(plan, counts) if plan is not None and counts is not None else {})


def _possible(plan: Plan, decision: Decision) -> Decision:
    """The decision, or the end of a rollout whose candidate is not there any more to be promoted."""
    if decision.kind != "promoted":
        return decision
    try:
        record.check_id(Path(plan.candidate), plan.candidate_id)
    except TorchstoneError as error:
        return replace(decision, kind="aborted", reason=f"it would be promoted, but {error}")
    return decision


def count(connection: sa.Connection, found: Rollout, now: float) -> tuple[Counts, bool]:
    """The counts with what is new in the log, and whether more is waiting."""
    plan, counts = found.plan, Counts.of_state(found.plan, found.state)
    stable, candidate = plan.stable_id[:12], plan.candidate_id[:12]
    upto = reading.settled(connection, tables.predictions, counts.predictions, now)
    if counts.slow_ms is None:
        times = reading.last_times(connection, stable, (counts.since, counts.predictions), TIMES[1])
        if len(times) >= TIMES[0]:
            slow = float(np.quantile(times, plan.slow_quantile))
            counts = replace(counts, slow_ms=slow, slow_from=counts.predictions)
    if plan.mode == "shadow":
        rows = reading.answers(connection, (counts.predictions, upto), [("shadow", candidate)], ("stable", stable))
    else:
        who = [("stable", stable), ("canary", candidate)]
        rows = reading.answers(connection, (counts.predictions, upto), who, who[1])
    counts = with_pairs(counts, rows) if plan.mode == "shadow" else with_arms(counts, rows)
    more = len(rows) == reading.CHUNK
    counts = replace(counts, predictions=rows[-1].seq if more else upto)

    upto = reading.settled(connection, tables.feedback, counts.feedback, now)
    role = "shadow" if plan.mode == "shadow" else "canary"
    labels = reading.labelled(connection, (counts.feedback, upto), stable, (role, candidate), counts.since)
    counts = with_labels(counts, labels)
    full = len(labels) == reading.CHUNK
    return replace(counts, feedback=labels[-1].seq if full else upto), more or full


def with_pairs(counts: Counts, rows: list[Seen]) -> Counts:
    """With answers of a shadow, each beside the stable model's to the same image."""
    both = [row for row in rows if row.paired]
    added = dict(counts.monitors)
    for name, bad in OF_ANSWERS.items():
        sides = ((bad(_given(counts, row)), bad(_given(counts, row, other=True))) for row in both)
        known = [(mine, other) for mine, other in sides if mine is not None and other is not None]
        added[name] = cast(Pairs, counts.monitors[name]).add([one for one, _ in known], [one for _, one in known])
    differ = [row.failed or row.label != row.other_label for row in both if not row.other_failed]
    disagreement = counts.disagreement.add(differ, [False] * len(differ))
    return replace(
        counts,
        monitors=added,
        disagreement=disagreement,
        everyone=(disagreement.worse, disagreement.observations),
        answers=counts.answers + len(rows),
        failed=counts.failed + sum(row.failed for row in rows),
        unpaired=counts.unpaired + len(rows) - len(both),
    )


def with_arms(counts: Counts, rows: list[Seen]) -> Counts:
    """With answers of both arms of a canary. What the stable model answered because the candidate failed belongs to
    neither arm: it is the candidate's error, and is counted as that."""
    arms: list[tuple[Arm, Seen]] = [
        ("canary" if row.role == "canary" else "stable", row) for row in rows if row.role == "canary" or not row.paired
    ]
    added = dict(counts.monitors)
    for name, bad in OF_ANSWERS.items():
        known: list[tuple[Arm, bool]] = [
            (arm, found) for arm, row in arms if (found := bad(_given(counts, row))) is not None
        ]
        added[name] = cast(Arms, counts.monitors[name]).add(known)
    canary = [row for arm, row in arms if arm == "canary"]
    shown = sum(arm == "canary" or not row.failed for arm, row in arms)  # what failed has no id that a label could name
    return replace(
        counts,
        monitors=added,
        everyone=(counts.everyone[0] + len(canary), counts.everyone[1] + shown),
        answers=counts.answers + len(canary),
        failed=counts.failed + sum(row.failed for row in canary),
    )


def _given(counts: Counts, row: Seen, *, other: bool = False) -> Given:
    slow = counts.slow_ms if row.seq > counts.slow_from else None
    if other:
        return Given(row.other_failed, row.other_milliseconds, slow)
    return Given(row.failed, row.milliseconds, slow)


def with_labels(counts: Counts, rows: list[Labelled]) -> Counts:
    """With true labels. An answer that failed was not right."""
    accuracy = counts.monitors["accuracy"]
    right, asked = list(counts.right), list(counts.asked)
    if isinstance(accuracy, Pairs):
        used = [row for row in rows if row.stable is not None and row.candidate is not None]
        sides = [(row, place) for row in used for place in (0, 1)]
        accuracy = accuracy.add([_wrong(row, 1) for row in used], [_wrong(row, 0) for row in used])
        comparable = [row for row in used if not row.stable_failed]
        trait = sum(row.candidate_failed or row.candidate != row.stable for row in comparable), len(comparable)
    else:
        used = [row for row in rows if row.stable is not None or row.candidate is not None]
        sides = [(row, 0 if row.candidate is None else 1) for row in used]
        accuracy = accuracy.add(("canary" if place else "stable", _wrong(row, place)) for row, place in sides)
        trait = sum(place for _, place in sides), len(sides)
    for row, place in sides:
        asked[place] += 1
        right[place] += not _wrong(row, place)
    return replace(
        counts,
        monitors={**counts.monitors, "accuracy": accuracy},
        labels=counts.labels + len(used),
        stray=counts.stray + len(rows) - len(used),
        right=(right[0], right[1]),
        asked=(asked[0], asked[1]),
        likely=(counts.likely[0] + trait[0], counts.likely[1] + trait[1]),
    )


def _wrong(row: Labelled, place: int) -> bool:
    answer, failed = (row.candidate, row.candidate_failed) if place else (row.stable, row.stable_failed)
    return failed or answer != row.label


def numbers(plan: Plan, counts: Counts) -> dict[str, Any]:
    """All that a decision rests on, as plain numbers, by monitor."""
    found: dict[str, Any] = {
        name: monitors.evidence(counts.monitors[name], plan.margins[name], monitor.harm, monitor.promotion)
        for name, monitor in MONITORS.items()
    }
    if plan.mode == "shadow":
        found["disagreement"] = monitors.evidence(counts.disagreement, plan.margin, AGREEMENT, AGREEMENT)
    others = ("answers", "failed", "unpaired", "labels", "stray", "slow_ms")
    found |= {name: getattr(counts, name) for name in others}
    found["right"] = {"stable": counts.right[0], "candidate": counts.right[1]}
    found["asked"] = {"stable": counts.asked[0], "candidate": counts.asked[1]}
    found["likeness"] = likeness.compared(counts.likely, counts.everyone)
    found["held"] = held(plan, found)
    return found | {"bias": FEEDBACK_BIAS}


def held(plan: Plan, found: Mapping[str, Any]) -> str | None:
    """Why labels that show the candidate to be no worse do not promote it; None where they do, or show nothing."""
    if not _promotable(found, "accuracy"):
        return None
    shown = promise_of(found, by_labels=True)
    if plan.labels == "some":
        return (
            f"the labels that were sent would show that {shown}; but who sends them chooses, and may send only what "
            "was wrong: if they are like a random sample, promote it by hand ('torchstone rollout promote')"
        )
    like = found["likeness"]
    if like["alike"]:
        return None
    of = "pairs that differ" if plan.mode == "shadow" else "answers that are the candidate's"
    (low, high), (low_all, high_all) = ([100 * one for one in like[of]] for of in ("labelled_bounds", "all_bounds"))
    return (
        f"the labels would show that {shown}; but they are not like all requests: the share of {of} is {low:.1f} to "
        f"{high:.1f} % among the labelled, {low_all:.1f} to {high_all:.1f} % among all"
    )


def decide(plan: Plan, counts: Counts, now: float) -> Decision | None:
    """The decision that the counts allow; None to go on. Harm comes before promotion, and both before the horizon."""
    found = numbers(plan, counts)

    def made(kind: Status, reason: str) -> Decision:
        return Decision(kind=kind, reason=reason, numbers=found, time=now)

    for name in MONITORS:
        one = found[name]
        if one["worse"] >= one["worse_at"]:
            return made("rolled_back", harm_of(name, one))
    if _promotable(found, "accuracy") and found["held"] is None:
        return made("promoted", promise_of(found, by_labels=True))
    if plan.mode == "shadow" and _promotable(found, "disagreement"):  # of all answers: nobody chose them
        return made("promoted", promise_of(found, by_labels=False))
    nothing = "nothing is proven" if found["held"] is None else "it is not promoted"
    why = "" if found["held"] is None else f": {found['held']}"
    if counts.labels >= plan.horizon_labels:
        return made("undecided", f"{nothing} after {counts.labels:,} labels, which was the horizon{why}")
    if now - plan.started >= 86_400 * plan.horizon_days:
        return made("undecided", f"{nothing} after {plan.horizon_days:g} days, which was the horizon{why}")
    return None


def harm_of(name: str, one: Mapping[str, Any]) -> str:
    """Of a monitor that has proven harm, the sentence."""
    return (
        f"{MONITORS[name].adds} at least {100 * one['at_least']:.2f} points (allowed {100 * one['margin']:g}; "
        f"{one['observations']:,} observations)"
    )


def promise_of(found: Mapping[str, Any], *, by_labels: bool) -> str:
    """Of a candidate that is no worse in anything, the sentence."""
    by = found["accuracy" if by_labels else "disagreement"]
    shown = "the drop of accuracy" if by_labels else "the share of answers that differ, and so the drop of accuracy,"
    others = "".join(f", {MONITORS[name].what} at most {100 * found[name]['at_most']:.2f} more" for name in OF_ANSWERS)
    return (
        f"{shown} is at most {100 * by['at_most']:.2f} points (allowed {100 * by['margin']:g}; {by['observations']:,} "
        f"observations){others}"
    )


def _promotable(found: Mapping[str, Any], by: str) -> bool:
    """Whether the candidate is no worse in errors and times, and, ``by`` labels or agreement, in accuracy."""
    return all(_no_worse(found[name]) for name in (by, *OF_ANSWERS))


def _no_worse(one: Mapping[str, Any]) -> bool:
    return one["no_worse"] >= one["no_worse_at"]
