"""What a search leaves behind: a table of its trials, what it found, and recipes ready to train with."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from torchstone.core import files, tables
from torchstone.core.values import Value
from torchstone.search.objectives import front
from torchstone.search.study import MEASURED, TICKET, WHY, WORKERS, Study, outcome
from torchstone.train import recipes
from torchstone.train.recipe import Recipe

if TYPE_CHECKING:
    import optuna

TABLE, SUMMARY, BEST, PAGE = "trials.parquet", "search.json", "best.toml", "search.html"
STATES = {"COMPLETE": "complete", "PRUNED": "stopped", "FAIL": "failed", "RUNNING": "running", "WAITING": "running"}


class Trial(Value):
    """One trial as people see it."""

    number: int
    name: str | None = Field(default=None, description="what it is called: of a search over chains, the chain")
    state: str = Field(description="complete, stopped (it fell behind, diverged or cannot win), failed, running")
    values: tuple[float, ...] | None = Field(description="of the objectives; None unless it is complete")
    options: dict[str, Any] = Field(description="what it was given of what varies")
    epochs: dict[int, float] = Field(default={}, description="of each finished epoch, the objective")
    facts: dict[str, Any] = Field(default={}, description="what else was measured")
    workers: tuple[str, ...] = Field(default=(), description="who worked on it, one after the other")
    why: str | None = Field(default=None, description="why it has no values")


class Summary(Value):
    """A search: what it was told, and what it found."""

    name: str
    storage: str = Field(description="where the study is kept, without a password")
    plan: dict[str, Any] = Field(description="objectives, ranges, seed, and what the trials depend on")
    objectives: tuple[dict[str, Any], ...] = Field(
        description="name, title, unit, decimals, and sign: 1 where larger is better"
    )
    trials: tuple[Trial, ...]
    best: tuple[int, ...] = Field(description="trials that no other one beats, the best by the first objective first")
    importances: dict[str, dict[str, float]] = Field(description="by objective: the share of each option")
    compared_after: int | None = Field(description="epochs after which the importances compare; None: at the end")


def gather(study: Study, name: str, storage: str) -> Summary:
    """The state of a study, finished or not."""
    objectives = study.plan.objectives
    trials = tuple(_trial(frozen, study) for frozen in study.trials())
    return Summary(
        name=name,
        storage=storage,
        plan=study.plan.row,
        objectives=tuple(
            {"name": one.name, "title": one.title, "unit": one.unit, "digits": one.digits, "sign": one.sign}
            for one in objectives
        ),
        trials=trials,
        best=tuple(front({trial.number: trial.values for trial in trials if trial.values}, objectives)),
        compared_after=study.compared_after(),
        importances={objective.name: study.importances(place) for place, objective in enumerate(objectives)},
    )


def _trial(frozen: optuna.trial.FrozenTrial, study: Study) -> Trial:
    kept = frozen.user_attrs
    done = frozen.state.name == "COMPLETE" and all(map(math.isfinite, frozen.values))
    return Trial(
        number=kept[TICKET],
        name=study.title_of(frozen),
        state="failed" if frozen.state.name == "COMPLETE" and not done else STATES[frozen.state.name],
        values=tuple(frozen.values) if done else None,
        options={key: _listed(value) for key, value in study.values_of(frozen).items()},
        epochs={epoch: value for epoch, value in sorted(frozen.intermediate_values.items()) if math.isfinite(value)},
        facts=plain(kept.get(MEASURED, {})),
        workers=tuple(kept.get(WORKERS, ())),
        why=kept.get(WHY),
    )


def store(directory: Path, summary: Summary, study: Study) -> None:
    """Write the table and the summary into ``directory``."""
    summary.save(directory / SUMMARY)
    tables.write(directory / TABLE, tables.frame(_columns(summary, study)))


def write(directory: Path, summary: Summary, study: Study, base: str, recipe: Recipe, command: str) -> list[Path]:
    """``store``, and write the recipes of the best trials (which are returned) into ``directory``."""
    store(directory, summary, study)
    made = []
    by_number = {trial.number: trial for trial in summary.trials}
    for number in summary.best:
        trial = by_number[number]
        path = directory / (BEST if len(summary.best) == 1 else f"best-{number}.toml")
        assert trial.values is not None
        head = f"trial {number} of {summary.name}: {outcome(trial.values, study.plan.objectives)}"
        files.write_text(path, recipe_file(base, recipe, trial.options, head, f"{command}{{}} --recipe {path}"))
        made.append(path)
    for path in directory.glob("best*.toml"):  # of an earlier state of the study
        if path not in made:
            path.unlink()
    return made


def _columns(summary: Summary, study: Study) -> dict[str, list[Any]]:
    trials = summary.trials
    columns: dict[str, list[Any]] = {"trial": [trial.number for trial in trials]}
    if study.plan.title:
        columns["name"] = [trial.name for trial in trials]
    columns["state"] = [trial.state for trial in trials]
    for place, objective in enumerate(study.plan.objectives):
        columns[objective.name] = [trial.values[place] if trial.values else None for trial in trials]
    for name in study.plan.space:
        given = [trial.options.get(name) for trial in trials]
        mixed = len({type(value) for value in given} - {type(None), int, float}) > 0
        columns[f"option_{name}"] = [
            json.dumps(value) if mixed and not isinstance(value, str) else value for value in given
        ]
    columns["epochs"] = [len(trial.epochs) for trial in trials]
    columns["workers"] = [" ".join(trial.workers) for trial in trials]
    columns["why"] = [trial.why for trial in trials]
    for name in sorted({name for trial in trials for name in trial.facts}):
        columns[name] = [trial.facts.get(name) for trial in trials]
    return columns


def recipe_file(base: str, recipe: Recipe, options: Mapping[str, Any], head: str, command: str) -> str:
    """The TOML of ``recipe`` with what a trial was given. What varied besides the recipe becomes flags of the command
    above it."""
    flags = "".join(
        f" --{name.replace('_', '-')} {value}" for name, value in options.items() if name not in Recipe.model_fields
    )
    theirs = {name: value for name, value in options.items() if name in Recipe.model_fields}
    return f"# {head}\n# {command.format(flags)}\n{recipes.to_toml(recipes.changed(recipe, theirs), base)}"


def plain(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts as JSON takes them: None for what is no number."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in facts.items()
    }


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
