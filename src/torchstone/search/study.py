"""A study in its database, and the worker that goes through its trials."""

from __future__ import annotations

import math
import random
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Event
from typing import TYPE_CHECKING, Any, Self

from torchstone.core import console, seeding
from torchstone.core.errors import ConfigError, StorageError, TrainingError, UserError
from torchstone.search import database
from torchstone.search import space as spaces
from torchstone.search.objectives import Objective
from torchstone.search.space import Space
from torchstone.search.tickets import ATTEMPTS, Lost, Ticket, Tickets, host, own_name
from torchstone.train import recipes

if TYPE_CHECKING:
    import optuna

TICKET, WORKERS, MEASURED, WHY = "ticket", "workers", "measured", "why"
"""What a trial's user attributes are called."""
PLAN = "torchstone"
"""The study's user attribute that holds what it searches."""
POLL_SECONDS = 2.0
STARTUP_TRIALS = 5
"""Trials that run to their end, for the later ones to be compared with."""
FAILED_IN_A_ROW = 3
"""A study whose first trials all failed has a fault that no trial can mend."""
REDRAWS = 30
"""Draws of a trial until it is one that there was not before."""


class Stopped(Exception):  # noqa: N818 (nothing is wrong)
    """The trial falls behind those before it, or cannot win against them, and is not worth finishing."""

    def __init__(self, why: str = "it fell behind") -> None:
        super().__init__(why)
        self.why = why


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is searched. Every worker on a study must mean the same."""

    space: Space
    objectives: tuple[Objective, ...]
    known: Mapping[str, Any]
    """The values that the recipe has: the first trial takes them, so that no search ends below where it began."""
    seed: int
    about: Mapping[str, Any]
    """What else the trials depend on: the recipe, the network, the images. JSON-able."""
    starts: tuple[Mapping[str, Any], ...] = ()
    """What the first trials take, where it is more than ``known``."""
    title: Callable[[Mapping[str, Any]], str] | None = field(default=None, compare=False)
    """What a trial of these values is called. Two of one title are the same, and a second one is not drawn as long as
    there are others; None: no two are the same."""
    spared: int = 1
    """Epochs of a trial in which it cannot be stopped: the rate still rises, and says little."""

    @property
    def prunes(self) -> bool:
        """With one objective that each epoch shows, a trial that falls behind is stopped."""
        return len(self.objectives) == 1 and self.objectives[0].metric is not None

    @property
    def row(self) -> dict[str, Any]:
        """As it is stored with the study."""
        names = [objective.name for objective in self.objectives]
        return {"objectives": names, "ranges": spaces.rows(self.space), "seed": self.seed, **self.about}


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A trial that was trained to its end."""

    values: tuple[float, ...]
    """Of the objectives."""
    facts: Mapping[str, Any]
    """JSON-able: whatever else is worth keeping of it."""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One trial in the hands of this worker."""

    number: int
    values: Mapping[str, Any]
    """Of what varies."""
    lost: Event
    """Set when another worker took the trial over."""
    reported: Callable[[int, float], bool]
    """Takes an epoch (from 1) and the objective's value; whether the trial should be stopped."""


class Study:
    """A study that is shared with all who open it under this name. Close it, or use it in a ``with``."""

    def __init__(self, url: str, name: str, plan: Plan, *, takeover: float) -> None:
        import optuna

        self.plan = plan
        self._storage = storage = database.storage(url, takeover)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._study = optuna.create_study(
            storage=storage,
            study_name=name,
            directions=[objective.direction for objective in plan.objectives],
            # Optuna counts epochs from 0, and spares those before the step that it is told.
            pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS, n_warmup_steps=plan.spared + 1),
            load_if_exists=True,
        )
        known = self._study.user_attrs.get(PLAN)
        if known is None:
            self._study.set_user_attr(PLAN, plan.row)
        elif known != plan.row:
            self.close()
            other = next(key for key in {**known, **plan.row} if known.get(key) != plan.row.get(key))
            raise ConfigError(
                f"the study '{name}' is another search: it has not the same {other}",
                hint="give this one another --name",
            )
        self._tickets = Tickets(storage.engine, name, takeover)

    def close(self) -> None:
        """Leave the database."""
        self._storage.remove_session()
        self._storage.engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def title_of(self, trial: optuna.trial.FrozenTrial) -> str | None:
        """What a trial is called; None where trials have no names, or it is not wholly drawn."""
        try:
            return self.plan.title(self.values_of(trial)) if self.plan.title else None
        except KeyError:
            return None

    def trials(self) -> list[optuna.trial.FrozenTrial]:
        """All trials that were begun, in the order of their tickets: that number is what people see. Optuna counts in
        the order in which workers happen to begin."""
        known = [trial for trial in self._study.get_trials(deepcopy=False) if TICKET in trial.user_attrs]
        return sorted(known, key=lambda trial: trial.user_attrs[TICKET])

    def values_of(self, trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
        """What a trial was given of what varies, as the training takes it."""
        return {name: self.plan.space[name].stored(value) for name, value in trial.params.items()}

    def importances(self, objective: int) -> dict[str, float]:
        """Share of each option in how much an objective varies, the largest first; empty where too little is known.
        With trials that were stopped, it is how the objective varies after ``compared_after`` epochs: of the complete
        trials alone, an option that stops a trial would seem to make no difference."""
        import optuna

        if (epoch := self.compared_after()) is None:
            points = [(trial, trial.values[objective]) for trial in self._ended("COMPLETE")]
        else:
            points = [(trial, trial.intermediate_values[epoch]) for trial in self._compared()]
        points = [(trial, value) for trial, value in points if math.isfinite(value)]
        if len(points) < STARTUP_TRIALS or len({value for _, value in points}) < 2 or len(self.plan.space) < 2:
            return {}
        beside = optuna.create_study()
        for trial, value in points:
            beside.add_trial(
                optuna.trial.create_trial(params=trial.params, distributions=trial.distributions, value=value)
            )
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        found = optuna.importance.get_param_importances(beside, evaluator=evaluator)
        return {name: float(share) for name, share in found.items()}

    def compared_after(self) -> int | None:
        """The last epoch that all trials reached, if some were stopped; None where all were trained to their end."""
        if not self.plan.prunes or not self._ended("PRUNED"):
            return None
        return min((max(trial.intermediate_values) for trial in self._compared()), default=None)

    def _compared(self) -> list[optuna.trial.FrozenTrial]:
        return [trial for trial in self._ended("COMPLETE", "PRUNED") if trial.intermediate_values]

    def _ended(self, *states: str) -> list[optuna.trial.FrozenTrial]:
        return [trial for trial in self.trials() if trial.state.name in states]

    def work(self, trials: int, run: Callable[[Turn], Measured]) -> None:
        """Run trials until there are ``trials`` of them and all are finished, those of other workers included: one that
        its worker left is taken over. ``run`` trains one; it raises Stopped where the turn says so."""
        waiting = False
        while True:
            ticket = self._tickets.take(trials)
            if ticket is not None:
                waiting = False
                self._hold(ticket, run)
            elif left := self._tickets.held_by_others():
                if not waiting:
                    console.say(f"waiting for {left} trial{'' if left == 1 else 's'} of other workers")
                waiting = True
                time.sleep(POLL_SECONDS * (0.5 + random.random()))
            else:
                return

    def _hold(self, ticket: Ticket, run: Callable[[Turn], Measured]) -> None:
        import optuna

        with self._tickets.alive(ticket) as lost:
            try:
                self._turn(ticket, lost, run)
            except (Lost, optuna.exceptions.UpdateFinishedTrialError):  # the latter: the other one has finished it
                console.say("this worker was silent for too long: another one goes on with its trial")
            except BaseException:
                self._tickets.give_back(ticket)
                raise

    def _turn(self, ticket: Ticket, lost: Event, run: Callable[[Turn], Measured]) -> None:
        """The trial of a ticket, from where it stands to its end."""
        import optuna

        trial = self._trial(ticket)
        frozen = self._study.trials[trial.number]
        if frozen.state.is_finished():  # its worker died between telling and closing
            self._tickets.close(ticket)
            return
        if ticket.attempt > ATTEMPTS:
            why = f"{ticket.attempt - 1} workers died over it"
            self._tell(trial, ticket, lost, optuna.trial.TrialState.FAIL, why=why)
            return
        values = spaces.suggest(self.plan.space, trial)
        trial.set_user_attr(WORKERS, [*frozen.user_attrs.get(WORKERS, []), host(own_name())])
        name = self.plan.title(values) if self.plan.title else spelt(values)
        console.say(f"trial {ticket.number}{' goes on' if frozen.params else ''}: {name}")
        told = set(frozen.intermediate_values)

        def reported(epoch: int, value: float) -> bool:
            if lost.is_set() or not self._tickets.got_further(ticket):
                raise Lost
            if self.plan.prunes and epoch not in told:
                trial.report(value, epoch)
                told.add(epoch)
            return self.plan.prunes and trial.should_prune()

        state = optuna.trial.TrialState
        try:
            found = run(Turn(number=ticket.number, values=values, lost=lost, reported=reported))
            self._check(found)
        except Stopped as stopped:
            self._tell(trial, ticket, lost, state.PRUNED, why=stopped.why)
        except StorageError:
            raise  # the disk is full: no fault of this trial
        except TrainingError as error:  # so that the sampler learns to stay away
            self._tell(
                trial, ticket, lost, state.FAIL if len(self.plan.objectives) > 1 else state.PRUNED, why=str(error)
            )
        except UserError as error:
            self._tell(trial, ticket, lost, state.FAIL, why=str(error))
            self._stop_if_hopeless(error)
        else:
            trial.set_user_attr(MEASURED, dict(found.facts))
            self._tell(trial, ticket, lost, state.COMPLETE, found.values)

    def _check(self, found: Measured) -> None:
        """Raise a TrainingError where an objective is no number: no database would take it as the value of a trial."""
        for value, objective in zip(found.values, self.plan.objectives, strict=True):
            if not math.isfinite(value):
                raise TrainingError(f"{objective.title} is {value}")

    def _trial(self, ticket: Ticket) -> optuna.Trial:
        """The trial of this ticket: the one that an earlier holder began, or a new one. What is drawn for a new one
        depends on which trials are finished by then: with one worker it is the same each time, with several not."""
        import optuna

        self._study.sampler = self._sampler(ticket)
        found = self._of(ticket)
        if found is None:
            starts = self.plan.starts or (self.plan.known,)
            if ticket.number < len(starts):
                guess = spaces.first_guess(self.plan.space, starts[ticket.number])
            else:
                guess = self._unlike_the_others(ticket)
            self._study.enqueue_trial(guess, user_attrs={TICKET: ticket.number})
            found = self._of(ticket)
        assert found is not None
        trial = optuna.trial.Trial(self._study, found._trial_id)
        if found.state == optuna.trial.TrialState.WAITING:
            trial.storage.set_trial_state_values(found._trial_id, optuna.trial.TrialState.RUNNING)
        return trial

    def _sampler(self, ticket: Ticket) -> optuna.samplers.BaseSampler:
        """Optuna's tree of Parzen estimators, for one objective or several. Of the ticket's own seed: a trial that is
        drawn again, by whichever worker, is drawn alike from the same past."""
        import optuna

        seed = seeding.seed_of(self.plan.seed, "search", ticket.number) % 2**32
        # Where some options come with others only, those that come together are drawn together.
        grouped = any(options.given for options in self.plan.space.values())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return optuna.samplers.TPESampler(seed=seed, multivariate=True, group=grouped, constant_liar=True)

    def _unlike_the_others(self, ticket: Ticket) -> dict[str, Any]:
        """What the sampler would choose, drawn again while that is a trial that there was before. Empty where no two
        trials are the same: then it is drawn when it begins."""
        import optuna

        if self.plan.title is None:
            return {}
        known = {self.title_of(trial) for trial in self.trials()}
        beside = optuna.create_study(directions=self._study.directions, sampler=self._sampler(ticket))
        waiting = optuna.trial.TrialState.WAITING
        beside.add_trials(trial for trial in self._study.get_trials(deepcopy=False) if trial.state != waiting)
        for left in reversed(range(REDRAWS)):
            trial = beside.ask()
            # At the end a known one is taken: the space may be as small as that.
            if self.plan.title(spaces.suggest(self.plan.space, trial)) not in known or not left:
                return trial.params
        raise AssertionError

    def _of(self, ticket: Ticket) -> optuna.trial.FrozenTrial | None:
        return next((trial for trial in self.trials() if trial.user_attrs[TICKET] == ticket.number), None)

    def _tell(
        self,
        trial: optuna.Trial,
        ticket: Ticket,
        lost: Event,
        state: optuna.trial.TrialState,
        values: Sequence[float] | None = None,
        *,
        why: str | None = None,
    ) -> None:
        """Say how the trial ended, unless it is another worker's by now."""
        if lost.is_set() or not self._tickets.is_mine(ticket):
            raise Lost
        if why is not None:
            trial.set_user_attr(WHY, why)
            console.say(f"trial {ticket.number} {'stopped' if state.name == 'PRUNED' else 'failed'}: {why}")
        else:
            assert values is not None
            console.say(f"trial {ticket.number}: {outcome(values, self.plan.objectives)}")
        told = list(values) if values is not None else None
        self._study.tell(trial.number, told, state=state, skip_if_finished=True)
        self._tickets.close(ticket)

    def _stop_if_hopeless(self, error: UserError) -> None:
        states = [trial.state.name for trial in self.trials() if trial.state.is_finished()]
        if len(states) >= FAILED_IN_A_ROW and set(states) == {"FAIL"}:
            raise error


def spelt(values: Mapping[str, Any]) -> str:
    """The values of a trial on one line."""
    return ", ".join(f"{name} {recipes.short(value)}" for name, value in values.items())


def outcome(values: Sequence[float], objectives: Sequence[Objective]) -> str:
    """The values of the objectives on one line."""
    pairs = zip(values, objectives, strict=True)
    return ", ".join(f"{objective.title} {figure(value, objective)}" for value, objective in pairs)


def figure(value: float, objective: Objective) -> str:
    """One value with its unit."""
    return f"{value:,.{objective.digits}f} {objective.unit}".rstrip()
