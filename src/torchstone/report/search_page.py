"""The page of a search: its best trials, how the trials went, which options matter, and all of them in a table. Of a
search over chains, the chains stand where a search over recipes has the values of its options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torchstone.core import files
from torchstone.report import search_figures, wording
from torchstone.report.search_figures import Point
from torchstone.report.templates import environment
from torchstone.train.recipes import short

SOURCE, PAGE, SHORTLIST = "search.json", "search.html", "shortlist.json"
ENOUGH = 20
"""Trials from which on the shares of the variance say more than a hint."""


@dataclass(frozen=True, kw_only=True)
class Goal:
    """An objective with what is shown of it."""

    name: str
    title: str
    unit: str
    digits: int
    sign: int
    """1 where larger is better, else −1."""
    importances: list[tuple[str, float]]

    def text(self, value: float | None) -> str:
        """A value without its unit."""
        return wording.fixed(value, self.digits)


@dataclass(frozen=True, kw_only=True)
class Page:
    """All that the template shows."""

    name: str
    storage: str
    goals: list[Goal]
    options: list[str]
    trials: list[dict[str, Any]]
    best: list[int]
    stopped: list[int]
    compared_after: int | None
    recipes: list[tuple[str, str]]
    """Name and content of each file."""
    chains: bool
    """Whether the trials are chains."""
    machines: list[str]
    """Where trials were timed, if speeds were."""
    noisy: int
    """Trials that were timed on a machine too noisy to trust."""
    command: str | None
    """That judges the chains of the shortlist."""
    history: tuple[str, str]
    """Of the wide page and of the narrow one."""
    curves: tuple[str, str] | None
    slices: list[tuple[str, str]]
    workers: int
    few: int | None
    """How many trials the shares of the variance are made of, where they are fewer than ``ENOUGH``."""

    def count(self, state: str) -> int:
        return sum(trial["state"] == state for trial in self.trials)

    def of(self, number: int) -> dict[str, Any]:
        return next(trial for trial in self.trials if trial["number"] == number)


def write(directory: Path) -> Path:
    """Write ``search.html`` beside what a search has stored in ``directory``, and return its path."""
    page = _page(directory)
    files.write_text(directory / PAGE, environment().get_template("search.html.j2").render(page=page, short=short))
    return directory / PAGE


def _page(directory: Path) -> Page:
    found = files.read_json(directory / SOURCE)
    trials: list[dict[str, Any]] = found["trials"]
    goals = [
        Goal(**row, importances=sorted(found["importances"][row["name"]].items(), key=lambda pair: -pair[1]))
        for row in found["objectives"]
    ]
    ranges: dict[str, Any] = found["plan"]["ranges"]
    done = [trial for trial in trials if trial["values"]]
    stopped = [trial for trial in trials if trial["state"] == "stopped"]
    best = found["best"]
    curves = None
    if any(len(trial["epochs"]) > 1 for trial in trials):
        lines = {trial["number"]: {int(e): v for e, v in trial["epochs"].items()} for trial in trials}
        ended = {trial["number"] for trial in trials if trial["state"] != "complete"}
        curves = search_figures.both(
            lambda narrow: search_figures.learning(lines, ended, best, goals[0].title, narrow=narrow)
        )
    return Page(
        name=found["name"],
        storage=found["storage"],
        goals=goals,
        options=list(ranges),
        trials=trials,
        best=best,
        stopped=[trial["number"] for trial in stopped],
        compared_after=found["compared_after"],
        recipes=[(path.name, path.read_text()) for path in sorted(directory.glob("best*.toml"))],
        chains=any(trial["name"] for trial in trials),
        machines=_machines(done) if any(goal.name == "speed" for goal in goals) else [],
        noisy=sum(bool(trial["facts"].get("noise")) for trial in done),
        command=files.read_json(directory / SHORTLIST)["command"] if (directory / SHORTLIST).exists() else None,
        history=search_figures.both(lambda narrow: _overview(done, stopped, best, goals, narrow=narrow))
        if done
        else ("", ""),
        curves=curves,
        slices=[(name, _slice(name, ranges[name], done, stopped, best, goals[0])) for name in _varied(ranges, done)],
        workers=len({worker for trial in trials for worker in trial["workers"]}),
        few=_few(trials, found["compared_after"]),
    )


def _few(trials: Sequence[dict[str, Any]], compared_after: int | None) -> int | None:
    """Trials that were compared, if they are few: those that came to that epoch, or else the complete ones."""
    if compared_after:
        compared = sum(str(compared_after) in trial["epochs"] for trial in trials)
    else:
        compared = sum(bool(trial["values"]) for trial in trials)
    return compared if compared < ENOUGH else None


def _varied(ranges: Mapping[str, Any], done: Sequence[dict[str, Any]]) -> list[str]:
    """What has more than one value among the complete trials."""
    given = {name: {short(trial["options"][name]) for trial in done if name in trial["options"]} for name in ranges}
    return [name for name in ranges if len(given[name]) > 1]


def _machines(done: Sequence[dict[str, Any]]) -> list[str]:
    return sorted({f"{trial['facts']['machine']} ({trial['facts']['cpu']})" for trial in done})


def _overview(
    done: Sequence[dict[str, Any]],
    stopped: Sequence[dict[str, Any]],
    best: list[int],
    goals: list[Goal],
    *,
    narrow: bool,
) -> str:
    if len(goals) == 1:
        values = [(trial["number"], trial["values"][0]) for trial in done]
        others = [trial["number"] for trial in stopped]
        return search_figures.history(values, others, goals[0].sign, goals[0].title, narrow=narrow)
    places = sorted({trial["facts"].get("machine", "") for trial in done})
    points = [
        Point(
            x=trial["values"][1],
            y=trial["values"][0],
            label=_label(trial, narrow=narrow),
            best=trial["number"] in best,
            kind=places.index(trial["facts"].get("machine", "")),
        )
        for trial in done
    ]
    second = goals[1]
    return search_figures.trade(points, _axis(second), _axis(goals[0]), narrow=narrow)


def _label(trial: dict[str, Any], *, narrow: bool) -> str:
    """Of a trial in the plane: its number, and with a name where there is room for it."""
    number = str(trial["number"])
    return number if narrow or not trial["name"] else f"{number}  {wording.shortened(trial['name'], 44)}"


def _axis(goal: Goal) -> str:
    return f"{goal.title}, {goal.unit}" if goal.unit else goal.title


def _slice(
    name: str,
    options: Any,
    done: Sequence[dict[str, Any]],
    stopped: Sequence[dict[str, Any]],
    best: list[int],
    goal: Goal,
) -> str:
    choices = [short(choice) for choice in options] if isinstance(options, list) else None

    def place(trial: dict[str, Any]) -> float:
        value = trial["options"][name]
        return value if choices is None else choices.index(short(value))

    points = [
        Point(x=place(trial), y=trial["values"][0], label="", best=trial["number"] in best)
        for trial in done
        if name in trial["options"]
    ]
    crosses = [place(trial) for trial in stopped if name in trial["options"]]
    log = isinstance(options, dict) and bool(options.get("log"))
    return search_figures.against(points, crosses, name, _axis(goal), choices, log=log)
