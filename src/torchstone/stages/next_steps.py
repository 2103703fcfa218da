"""What to type after a training: again, where the coach found something wrong with it; else on to what can be built on
its model."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from torchstone.config import SHORT, Settings, command_line
from torchstone.core import registry
from torchstone.report.training_page import Step
from torchstone.train import coach, recipes

if TYPE_CHECKING:
    from torchstone.core.values import Artifact, Finding

SMOKE = "quick"
"""The recipe that only tries whether everything works."""


def after_training(made: Artifact, findings: Sequence[Finding], settings: Settings) -> tuple[Step, ...]:
    """Commands that fit what was found, the first of them first. At least one."""
    causes = [finding for finding in findings if finding.follows is None]
    wrong = [finding for finding in causes if coach.of_the_model(finding)]
    if wrong:
        return _again(wrong, settings)
    if settings.recipe and recipes.root_of(settings.recipe) == SMOKE:
        earnest = settings.model_copy(update={"recipe": None, "epochs": None, "name": None})
        return (Step(why="train in earnest: this only tried whether everything works", command=_train(earnest)),)
    return (*_onwards(made), *(_beside(finding, settings) for finding in causes if finding.check == "small_val"))


def _again(wrong: Sequence[Finding], settings: Settings) -> tuple[Step, ...]:
    """Each of these findings answered."""
    steps = []
    for finding in wrong:
        if finding.tries:
            steps.append(_beside(finding, settings))
        if any(option.startswith("lr=") for option in finding.tries):
            measured = f"{_train(settings)} --find-lr"
            steps.append(Step(why="or measure a learning rate first", command=measured))
        if finding.items or not finding.tries:
            looked_at = shlex.join(["torchstone", "audit", settings.data])
            steps.append(Step(why=f"look at the images: ‘{coach.title(finding.check)}’", command=looked_at))
    return tuple(steps)


def _beside(finding: Finding, settings: Settings) -> Step:
    """Train again with what a finding proposes."""
    return Step(
        why=f"train again with what is proposed against ‘{coach.title(finding.check)}’",
        command=_train(_with(settings, finding.tries)),
    )


def _onwards(made: Artifact) -> tuple[Step, ...]:
    run = made.directory.parent.parent
    target = "onnxruntime" if registry.missing_packages(("openvino", "nncf")) else "openvino"
    chain = f"int8@{target}"
    return (
        Step(why="make it smaller and faster", command=shlex.join(["torchstone", "compress", str(run), chain])),
        Step(
            why="judge that against this model, on test: each new question counts as a look at it",
            command=shlex.join(["torchstone", "judge", str(run), chain, "--max-drop", "1"]),
        ),
        Step(
            why="all metrics of this model on val, and its speed",
            command=shlex.join(["torchstone", "evaluate", str(made.directory)]),
        ),
    )


def _train(settings: Settings) -> str:
    return command_line(settings, "train")


def _with(settings: Settings, options: Sequence[str]) -> Settings:
    """The settings with these options of the recipe in place of what they said of them."""
    given = recipes.options_of(dict(option.split("=", 1) for option in options))
    short = {name: value for name, value in given.items() if name in SHORT}
    others = {name: value for name, value in given.items() if name not in SHORT}
    return settings.model_copy(update={**short, "set": dict(sorted({**settings.set, **others}.items()))})
