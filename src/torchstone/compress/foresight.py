"""What the steps of a chain need, and how long they will take: by what has been measured in this run, never by a guess.

A step takes as long as the same step with the same options took here. One that was never taken and trains the network
that it is given takes so many of the baseline's epochs (where that was not trained by steps, of the epochs of what the
run has trained of it since); one that does not train, as long as it took with other options. Of everything else it is
said that nobody has measured it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median

from torchstone.compress import build
from torchstone.compress.chain import Plan, PlannedStep
from torchstone.core import tables
from torchstone.core.contracts import Needs
from torchstone.core.run import Run
from torchstone.core.values import Artifact, Format


@dataclass(frozen=True, kw_only=True)
class Expected:
    """How long a step will take."""

    seconds: float | None
    """None: nothing like it was measured here."""
    basis: str
    """What that rests on."""
    at_least: bool = False
    """Something comes on top that was not measured."""


@dataclass(frozen=True, kw_only=True)
class ForeseenStep:
    """One step before it is taken."""

    planned: PlannedStep
    takes: Format
    makes: Format
    needs: Needs
    val: bool
    """Whether it makes choices on val."""
    shared_with: int | None
    """Number of the earlier chain, from 0, that builds the same artifact."""
    expected: Expected


@dataclass(frozen=True, kw_only=True)
class Foreseen:
    """One chain before it is built."""

    plan: Plan
    steps: tuple[ForeseenStep, ...]

    @property
    def seconds(self) -> float | None:
        """Of the steps that no earlier chain takes, as far as they are known; None where a training among them is
        not, or nothing that has still to be done."""
        own = [one for one in self.steps if one.shared_with is None]
        known = sum(one.expected.seconds or 0.0 for one in own)
        unknown = [one.needs for one in own if one.expected.seconds is None]
        if unknown and (not known or any(needs.epochs or needs.own_epochs for needs in unknown)):
            return None
        return known

    @property
    def at_least(self) -> bool:
        """Whether steps that nobody has measured come on top of ``seconds``."""
        own = [one.expected for one in self.steps if one.shared_with is None]
        return any(one.at_least or one.seconds is None for one in own)


class Foresight:
    """What this run knows of chains that begin with ``origin``. None: it is not trained yet."""

    def __init__(self, origin: Artifact | None, run: Run, seed: int) -> None:
        self._origin, self._run, self._seed = origin, run, seed

    def of(self, plans: Sequence[Plan], start: Format = "torch") -> list[Foreseen]:
        """Each chain, in the order in which they will be built."""
        first: dict[tuple[str, ...], int] = {}
        found = []
        for number, plan in enumerate(plans):
            found.append(Foreseen(plan=plan, steps=tuple(self._steps(plan, number, start, first))))
        return found

    def _steps(
        self, plan: Plan, number: int, start: Format, first: dict[tuple[str, ...], int]
    ) -> Iterator[ForeseenStep]:
        now, parent = start, self._origin
        path: tuple[str, ...] = ()
        for planned in plan.steps:
            step = planned.step
            target = planned.target if step.targets else None
            path = (*path, f"{planned.name}@{target} {planned.config.model_dump_json()}")
            stands = parent and self._standing(planned, parent)
            shared = first.setdefault(path, number)
            made = step.produces or now
            yield ForeseenStep(
                planned=planned,
                takes=now,
                makes=made,
                needs=step.needs(planned.config),
                val=step.wants_val(planned.config),
                shared_with=None if shared == number else shared,
                expected=Expected(seconds=0.0, basis="is built already") if stands else self._expected(planned),
            )
            now, parent = made, stands

    def _standing(self, planned: PlannedStep, parent: Artifact) -> Artifact | None:
        """What an earlier call has made of this step."""
        assert self._origin is not None
        key = build.key_of(planned, parent, self._origin, self._seed)
        description = build.place_of(planned, key, self._run) / "artifact.json"
        return Artifact.load(description) if description.exists() else None

    def _expected(self, planned: PlannedStep) -> Expected:
        needs = planned.step.needs(planned.config)
        alike = [one for one in self._made if _same_kind(one, planned)]
        same = [one.seconds for one in alike if one.made_by.config == planned.config.model_dump(mode="json")]
        if took := [seconds for seconds in same if seconds is not None]:
            return Expected(seconds=median(took), basis="the same step in this run")
        if needs.epochs and (epoch := self.epoch) is not None:
            whose = "the baseline's epochs" if self._own_epoch else "the epochs of what this run has trained"
            basis = f"{whose}, {epoch:.3g} s each"
            return Expected(seconds=needs.epochs * epoch, basis=basis, at_least=needs.answers > 0)
        if not needs.epochs and not needs.own_epochs:
            others = [one.seconds for one in alike if one.seconds is not None]
            if others:
                return Expected(seconds=median(others), basis="the same step with other options")
        return Expected(seconds=None, basis="nothing in this run")

    @property
    def epoch(self) -> float | None:
        """Seconds of an epoch of the baseline or, where it was not trained by steps, of what was made of it; None where
        nothing has been trained here."""
        origin = self._origin
        if self._own_epoch is not None or origin is None:
            return self._own_epoch
        return _typical([one for one in self._made if one.architecture == origin.architecture])

    @cached_property
    def _own_epoch(self) -> float | None:
        return _typical([self._origin]) if self._origin is not None else None

    @property
    def _made(self) -> list[Artifact]:
        """The artifacts of this run of which it is known what they took; their files are not looked at."""
        paths = sorted(self._run.artifacts.glob("*/artifact.json"))
        found = [Artifact.load(path).model_copy(update={"directory": path.parent}) for path in paths]
        return [one for one in found if one.seconds is not None]


def _same_kind(made: Artifact, planned: PlannedStep) -> bool:
    """Whether this step made it, for the same target, and with or without choices on val as it is planned now."""
    if (made.made_by.step, made.made_by.version) != (planned.name, planned.step.version):
        return False
    own = made.chain.rpartition("+")[2]
    if planned.step.targets and own.partition("@")[2] != planned.target:
        return False
    choosing = planned.step.wants_val(planned.step.Config(**made.made_by.config))
    return choosing == planned.step.wants_val(planned.config)


def _typical(artifacts: Sequence[Artifact]) -> float | None:
    """The median over all of their epochs."""
    seconds = [epoch for one in artifacts for epoch in _epochs_of(one)]
    return median(seconds) if seconds else None


def _epochs_of(artifact: Artifact) -> Iterator[float]:
    """Seconds of each epoch that the artifact's weights were trained for, by steps."""
    path = artifact.directory / "history.parquet"
    if path.exists():
        history, _ = tables.read(path)
        columns = history.columns
        for row, seconds in enumerate(history["seconds"].to_list()):
            if "l2" not in columns or history["l2"][row] is None:  # of a head on stored features it says nothing
                yield seconds
