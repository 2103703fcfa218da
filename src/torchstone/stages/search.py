"""Search the values of a recipe's options: trials on one study, by any number of workers."""

from __future__ import annotations

import os
import shlex
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchstone.config import Settings
from torchstone.core import console, files, registry, tables
from torchstone.core.errors import ConfigError, MissingPackageError, TrainingError
from torchstone.core.values import Artifact
from torchstone.search import objectives, results, space
from torchstone.search.objectives import Objective
from torchstone.search.space import Space
from torchstone.stages import clock
from torchstone.stages import train as training
from torchstone.stages.compress import build_all, plan_all
from torchstone.stages.find import baseline_of
from torchstone.stages.read import Data, read

if TYPE_CHECKING:
    from torchstone.search.study import Measured, Plan, Turn
    from torchstone.train.stage import TrainRequest

PACKAGES = ("optuna", "sqlalchemy", "torch", "safetensors", "sklearn", "polars")
DEFAULT = ("top1",)
SPARED = 0.25
"""Share of a training before which a trial is not stopped: high rates pay late."""
QUARTETS = 4
"""Of a latency's measurement: sixteen slots."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a search came to."""

    directory: Path
    summary: results.Summary
    objectives: tuple[Objective, ...]
    recipes: list[Path]
    page: Path


def search(settings: Settings) -> Found:
    """Work on the study of these settings until all its trials are finished. The same settings join it, from here or
    from another machine; what a killed worker left is taken over."""
    looked_for = objectives.named(settings.objective or DEFAULT)
    missing = registry.missing_packages(PACKAGES if settings.storage is None else (*PACKAGES, "psycopg"))
    if missing:
        raise MissingPackageError("a search", missing)
    from torchstone.search import database
    from torchstone.search.study import Study

    if settings.storage:
        database.check_url(settings.storage)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            "a search does not run below torchrun",
            hint="type the same command once for each worker: every one of them trains trials of its own",
        )
    training.check(settings)
    declared = _declared(settings)
    own = settings.model_copy(update={"name": _name(settings, declared)})
    run = own.run
    files.make_directory(run.root)
    with files.alone(run.root / ".reading.lock", "reading the images"):
        data = read(own)
    request = training.request_of(own, data)
    base = training.base_of(own.model_copy(update={"model": request.model, "weights": request.weights}), data)
    varied = _varied(declared or space.usual(base, request.recipe), own)
    if metric := looked_for[0].metric:
        request = request.model_copy(update={"recipe": request.recipe.model_copy(update={"metric": metric})})
    _check(request, varied)
    plan = _plan(varied, looked_for, request, data)
    url = settings.storage or database.sqlite(run.root / "study.db")
    opened = Study(url, run.name, plan, takeover=settings.takeover)
    with database.lost_connection_explained(), opened as study:
        console.say(f"search {run.name}: {', '.join(varied)}; {settings.trials} trials")
        study.work(settings.trials, lambda turn: _train(turn, request, data, plan, own.track))
        summary = results.gather(study, run.name, database.shown(url))
    command = shlex.join(["torchstone", "train", settings.data, *_flags(request, varied)])
    with files.alone(run.root / ".results.lock", "writing the results"):
        recipes = results.write(run.root, summary, study, base, request.recipe, command)
        from torchstone.report import search_page

        page = search_page.write(run.root)
    return Found(directory=run.root, summary=summary, objectives=looked_for, recipes=recipes, page=page)


def _declared(settings: Settings) -> dict[str, Any] | None:
    """The ranges in the recipe's file, if it is one and has some."""
    path = Path(settings.recipe or "")
    return space.of_file(path) if path.suffix == ".toml" else None


def _name(settings: Settings, declared: Space | None) -> str:
    """The name of the search: as given, or the same for the same settings."""
    if settings.name:
        return settings.name
    from torchstone.train import recipes

    own = settings.run.name
    recipe = recipes.by_name(settings.recipe).model_dump(mode="json") if settings.recipe else None
    distinct = [own, settings.objective or DEFAULT, recipe, space.rows(declared) if declared else None]
    return f"{own.rpartition('-')[0]}-search-{files.digest(distinct)[:6]}"


def _varied(ranges: Space, settings: Settings) -> dict[str, Any]:
    """The ranges without what a flag or ``--set`` holds fast."""
    fixed = {*settings.set, *(name for name in ranges if getattr(settings, name, None) is not None)}
    varied = {name: options for name, options in ranges.items() if name not in fixed}
    if not varied:
        raise ConfigError(
            f"nothing is left to search: {', '.join(sorted(fixed))} {'is' if len(fixed) == 1 else 'are'} given",
            hint="declare more ranges in the [search] table of a recipe's TOML file",
        )
    return varied


def _check(request: TrainRequest, varied: Space) -> None:
    """Raise the UserError of a network, or a policy, that no trial could train."""
    from torchstone.train import stage

    for name, options in varied.items():
        if isinstance(options, space.Choices):
            for value in options.values:
                stage.check(_with(request, {name: value}))


def _with(request: TrainRequest, values: Mapping[str, Any]) -> TrainRequest:
    """The request with the values of a trial."""
    theirs = {name: value for name, value in values.items() if name not in space.OF_THE_NETWORK}
    network = {name: value for name, value in values.items() if name in space.OF_THE_NETWORK}
    return request.model_copy(update={**network, "recipe": request.recipe.model_copy(update=theirs)})


def _plan(varied: Space, looked_for: tuple[Objective, ...], request: TrainRequest, data: Data) -> Plan:
    from torchstone.search.study import Plan

    fixed = request.model_dump(mode="json", exclude={"seed", "schema_version"})
    recipe = fixed.pop("recipe")
    known = {**{name: getattr(request.recipe, name) for name in recipe}, **fixed}
    return Plan(
        space=varied,
        objectives=looked_for,
        known=known,
        seed=request.seed,
        about={"network": fixed, "recipe": recipe, "images": data.split.fingerprint},
        spared=max(1, round(request.recipe.epochs * max(request.recipe.warmup, SPARED))),
    )


def _train(turn: Turn, request: TrainRequest, data: Data, plan: Plan, track: tuple[str, ...]) -> Measured:
    """Train one trial, from its checkpoint where it has one, and measure it."""
    from torchstone.search.study import Measured, Stopped
    from torchstone.search.watch import Watch
    from torchstone.train import stage, tracking

    chosen = _with(request, turn.values)
    watch = Watch(turn, plan.objectives[0].column if plan.prunes else None)
    title = f"{data.run.name}, trial {turn.number}"
    followed = tracking.observers(track, data.run.tracking, title, chosen.model_dump(mode="json"))
    same = data.run.busy / f"{chosen.digest()[:16]}.lock"
    with files.alone(same, "training the same recipe"):
        try:
            made = stage.train(chosen, data.catalog, data.split, data.run, observers=(*followed, watch))
        except (Stopped, TrainingError):
            if watch.directory is not None:
                files.remove(watch.directory)
            raise
        # Within the lock: an equal recipe makes the same artifact, and a latency exports it to the same place.
        row, seconds = _best_epoch(made)
        values = tuple(
            row[objective.column] if objective.column else COSTS[objective.name](made, data)
            for objective in plan.objectives
        )
    kept = {name: value for name, value in row.items() if name.startswith("val_")}
    facts = {**results.plain(kept), "best_epoch": row["epoch"], "seconds": seconds}
    return Measured(values=values, facts={**facts, "artifact": made.directory.name, "machine": socket.gethostname()})


def _best_epoch(made: Artifact) -> tuple[dict[str, float], float]:
    """What the history says of the epoch whose weights were kept, and the seconds of all epochs."""
    table, header = tables.read(made.directory / "history.parquet")
    rows = table.to_dicts()
    row = next(row for row in rows if row["epoch"] == header["best_epoch"])
    return row, float(sum(row["seconds"] for row in rows))


def _size(made: Artifact, _: Data) -> float:
    return made.size_mb


def _parameters(made: Artifact, _: Data) -> float:
    from torchstone.models import store

    return float(sum(parameter.numel() for parameter in store.load(made).network.parameters()))


def _latency(made: Artifact, data: Data) -> float:
    """Milliseconds of one image in ONNX Runtime on one thread: the fastest of some slots, as other workers may keep
    the machine busy beside."""
    from torchstone.evaluate import timing

    [candidate] = build_all(plan_all(["onnx"]), baseline_of(made), data, seed=0)
    pixels = clock.pixels(data, [candidate])
    session = timing.session([], control=candidate, quartets=QUARTETS, phase="screening", pixels=pixels)
    return float(session.tables[candidate.id]["ms"].to_numpy().min())


COSTS: dict[str, Callable[[Artifact, Data], float]] = {"latency": _latency, "size": _size, "params": _parameters}
"""By the name of an objective: how it is measured on the trained model."""


def _flags(request: TrainRequest, varied: Space) -> list[str]:
    """The flags of the network that did not vary."""
    given = {name: getattr(request, name) for name in space.OF_THE_NETWORK if name not in varied}
    found = [part for name, value in given.items() if value for part in (f"--{name.replace('_', '-')}", str(value))]
    found += ["--small-input"] if request.small_input else []
    return found + (["--channels", str(request.channels)] if request.channels != 3 else [])
