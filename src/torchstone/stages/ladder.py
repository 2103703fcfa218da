"""The ladder: chains from the cheapest to the dearest, each built and screened before the next is chosen.

What costs nothing comes first, then what is only calibrated, then what trains. What trains is not begun where the
budget's wishes are met already, where the time left would not do, or where it cannot win: its shape, and so its speed,
can be had in seconds, by the same chain without the training (its *sketch*). A sketch's file is as large as that of the
trained network, so that one which is larger than wished for is not trained either; being smaller yet wins nothing. A
smaller network of the family learns from fresh weights, for tens of epochs: only where somebody has said how long the
ladder may take. Each choice uses val and screening times alone, and is written down, so that an interrupted run goes on
as it began, and the report can say why a chain is not there.

Screening waits until a choice needs it: what was built since goes into one session, for which the baseline is opened
once. A session whose control says that the machine is too noisy rules nothing out by its times.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torchstone.compress import chain
from torchstone.compress.foresight import Foresight
from torchstone.config import Settings
from torchstone.core import console, files
from torchstone.core.errors import ChainError, MissingPackageError
from torchstone.core.values import Budget, Candidate
from torchstone.judge import select, winner
from torchstone.judge.select import Screened
from torchstone.models import families
from torchstone.stages import screening
from torchstone.stages.compress import build_all, distinct
from torchstone.stages.read import Data

FREE = ("onnx", "openvino", "bf16@openvino")
CALIBRATED = ("int8@onnxruntime", "int8@openvino")
SPARING = {"int8@openvino": "int8:depthwise=float@openvino"}
"""By the chain that it rescues: a rescue that asks nothing. In ONNX Runtime it hardly helps (docs/log.md)."""
SMALLEST_SIDE = 96
"""Pixels below which a lower resolution leaves too little to see."""
SLACK = 1.25
"""By which a training may take longer than was foreseen."""

ANSWER = 1 / 3
"""Of a training step, what a teacher's answer costs: a forward pass of the three."""

Kind = Literal["free", "calibrated", "rescue", "trained", "fresh"]


@dataclass(frozen=True, kw_only=True)
class Rung:
    """A chain of the ladder."""

    chain: str
    kind: Kind
    instead_of: tuple[str, ...] = ()
    """Of a rescue: the chain that it is for, and its cheaper rescues: one that loses little makes it needless."""


def rungs(settings: Settings, architecture: str, crop: int) -> tuple[Rung, ...]:
    """All chains in their order, for a network (its full name) that sees images of ``crop`` pixels a side."""
    epochs = settings.finetune
    found = [Rung(chain=text, kind="free") for text in FREE]
    found += [Rung(chain=text, kind="calibrated") for text in CALIBRATED]
    found += [Rung(chain=text, kind="rescue", instead_of=(plain,)) for plain, text in SPARING.items()]
    for text in reversed(CALIBRATED) if settings.budget.metric == "top1" else ():  # max_drop is points of top-1
        name, _, target = text.partition("@")
        rescued = f"{name}:max_drop={settings.max_drop / 2:g}@{target}"
        cheaper = (SPARING[text],) if text in SPARING else ()
        found.append(Rung(chain=rescued, kind="rescue", instead_of=(text, *cheaper)))
    shrunk = ["prune=0.3"]
    smaller = round(0.75 * crop / 32) * 32
    shrunk += [f"resolution={smaller}"] if smaller >= SMALLEST_SIDE else []
    shrunk += ["prune=0.5"] if settings.seconds is not None or _wishes(settings.budget) else []
    for step in shrunk:
        by_itself = step.startswith("resolution")  # which trains in the same step
        trained = f"{step}:epochs={epochs}" if by_itself else f"{step}+finetune={epochs}"
        found.append(Rung(chain=f"{trained}+int8@openvino", kind="trained"))
    if student := families.half_of(architecture):
        found.append(Rung(chain=f"student={student.name.replace(':', '/')}+int8@openvino", kind="fresh"))
    return tuple(found)


WHEN: dict[Kind, str] = {
    "free": "always",
    "calibrated": "always",
    "rescue": "if plain INT8 and each cheaper rescue lose too much on val",
    "trained": "if by its shape it can win, and the time allows",
    "fresh": "if by its shape it can win, and --for allows the time",
}
"""When a rung is tried."""


def climb(settings: Settings, data: Data, baseline: Candidate) -> list[Candidate]:
    """The candidates of the ladder, built as far as it went. Where it went once for the same question stays."""
    path = data.run.ladder
    steps = rungs(settings, baseline.artifact.architecture, baseline.artifact.preprocess.crop)
    question = files.digest([baseline.id, data.split.fingerprint, settings.budget.digest(), settings.seconds,
                             [rung.chain for rung in steps]])  # fmt: skip
    stored = files.read_json(path) if path.exists() else {}
    past: dict[str, dict[str, Any]] = stored["rungs"] if stored.get("question") == question else {}
    way = _Climb(settings, data, baseline, spent=sum(row["seconds"] for row in past.values()))
    for rung in steps:
        if rung.chain not in past:
            started = time.monotonic()
            why_not = way.skip(rung) or way.tried(rung)
            past[rung.chain] = {"why_not": why_not, "seconds": time.monotonic() - started}
            way.spent += past[rung.chain]["seconds"]
            files.write_json(path, {"question": question, "rungs": past})
            if why_not:
                console.say(f"left out: '{rung.chain}': {why_not}")
        elif not past[rung.chain]["why_not"]:
            way.built += way.build(rung.chain)
    if stored.get("question") != question or "front" not in stored:
        files.write_json(path, {"question": question, "rungs": past, "front": way.front()})
    return distinct(way.built)


class _Climb:
    """What is known while it goes on."""

    def __init__(self, settings: Settings, data: Data, baseline: Candidate, spent: float) -> None:
        self.settings, self.data, self.baseline = settings, data, baseline
        self.budget = settings.budget
        self.spent = spent
        """Seconds, those of earlier attempts included."""
        self.built: list[Candidate] = []
        self._known: dict[str, Screened | str] = {}
        """By id, what screening said."""
        self._foresight = Foresight(baseline.artifact, data.run, settings.seed)

    def front(self) -> list[dict[str, Any]]:
        """What no other candidate beats in safety on val, speed and size together, the fastest first."""
        kept = select.front(self._screened())
        rows = [
            {"name": one.candidate.name, "risk": one.risk, "ratio": one.speed.ratio,
             "size_mb": one.candidate.artifact.size_mb}
            for one in kept
        ]  # fmt: skip
        if rows:
            console.say("not beaten in safety, speed and size: " + ", ".join(
                f"'{row['name']}' ({row['ratio']:.1f}×, {row['size_mb']:.3g} MB)" for row in rows
            ))  # fmt: skip
        return rows

    def build(self, text: str) -> list[Candidate]:
        """The candidate of a chain. Raises a ChainError or MissingPackageError where it cannot be had."""
        plan = chain.plan(text)
        return build_all([plan], self.baseline, self.data, seed=self.settings.seed)

    def tried(self, rung: Rung) -> str | None:
        """Build a rung; the reason where that is not possible."""
        try:
            self.built += self.build(rung.chain)
        except (ChainError, MissingPackageError) as error:
            return f"{error.message}; {error.hint}" if error.hint else error.message
        return None

    def skip(self, rung: Rung) -> str | None:
        """Why a rung is not worth its time, as far as one can know before; None: it is."""
        left = self._left()
        if left is not None and left <= 0:
            return "the time is up"
        if rung.kind in ("free", "calibrated"):
            return None
        screened = self._screened()
        if rung.kind == "rescue":
            return self._not_in_need(rung, screened)
        done = [one for one in self._likely(screened) if not one.candidate.free]
        if _wishes(self.budget) and done:
            return f"'{done[0].candidate.name}' meets the budget on val already"
        return self._too_long(rung, left) or self._cannot_win(rung, screened)

    def _too_long(self, rung: Rung, left: float | None) -> str | None:
        foreseen = self._foreseen(rung)
        if rung.kind == "fresh" and (left is None or foreseen is None):
            known = "nobody knows how long" if foreseen is None else f"about {foreseen / 60:.0f} minutes"
            return f"it trains another network from fresh weights, {known}: with --for, or by its name"
        if left is not None and foreseen is not None and foreseen * SLACK > left:
            about, perhaps = f"{foreseen / 60:.0f}", f"{foreseen * SLACK / 60:.0f}"
            about += f" minutes, perhaps {perhaps}" if perhaps != about else " minutes"
            return f"it would take about {about}, and {max(0, left) / 60:.0f} are left"
        return None

    def _likely(self, screened: Sequence[Screened]) -> list[Screened]:
        """Those that look as if they met the budget, on val and by a clock that can be trusted."""
        return [one for one in screened if one.noise is None and select.doubt(one, self.budget) is None]

    def _not_in_need(self, rung: Rung, screened: Sequence[Screened]) -> str | None:
        there = {one.candidate.artifact.chain: one for one in screened}
        if rung.instead_of[0] not in there:
            return f"'{rung.instead_of[0]}' was not built"
        for text in rung.instead_of:
            if text in there and there[text].accuracy.difference <= self.budget.max_drop:
                return f"'{text}' loses no more than allowed on val"
        return None

    def _cannot_win(self, rung: Rung, screened: Sequence[Screened]) -> str | None:
        """By its sketch: neither proven unable nor the reason to be tried."""
        try:
            spelt = chain.sketch(chain.plan(rung.chain))
            sketch = self.build(spelt) if spelt else []
        except (ChainError, MissingPackageError) as error:
            return f"{error.message}; {error.hint}" if error.hint else error.message
        shape = next(iter(self._screened(sketch)), None) if sketch else None
        if shape is None:
            return None
        if why := select.out_of_reach(shape, self.budget):
            return why
        rival = max(self._likely(screened), key=lambda one: one.speed.ratio, default=None)
        if rival is None or shape.noise is not None:
            return None
        if shape.at_most < winner.MATERIAL * rival.speed.ratio:
            return (
                f"its shape is {shape.speed.ratio:.1f}× as fast as the baseline, '{rival.candidate.name}' "
                f"{rival.speed.ratio:.1f}× without any training"
            )
        return None

    def _screened(self, made: Sequence[Candidate] | None = None) -> list[Screened]:
        """What val and screening say of these candidates, by default of all that were built, as far as they can be
        compared. What has not been screened is now."""
        asked = list({one.id: one for one in (self.built if made is None else made)}.values())
        if fresh := [one for one in asked if one.id not in self._known]:
            self.data.run.retract()
            self._known |= screening.screen(self.data, self.baseline, fresh, self.budget)
        found = (self._known[one.id] for one in asked)
        return [one for one in found if isinstance(one, Screened)]

    def _left(self) -> float | None:
        """Seconds until the time is up; None: there is no limit."""
        limit = self.settings.seconds
        return None if limit is None else limit - self.spent

    def _foreseen(self, rung: Rung) -> float | None:
        """Seconds that building it takes, as far as is known; None where nobody has trained this network here. Of a
        smaller network that was never trained here, what as many epochs of the baseline's would take: it is less."""
        foreseen = self._foresight.of([chain.plan(rung.chain, check_packages=False)])[0]
        epoch = self._foresight.epoch
        if foreseen.seconds is not None or rung.kind != "fresh" or epoch is None:
            return foreseen.seconds
        return epoch * sum(step.needs.own_epochs + ANSWER * step.needs.answers for step in foreseen.steps)


def _wishes(budget: Budget) -> bool:
    """Whether it asks for more than accuracy."""
    return any(wish is not None for wish in (budget.min_speedup, budget.max_latency_ms, budget.max_size_mb))
