"""What a search can look for: how good the trained model is on val, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torchstone.core.errors import ConfigError, nearest
from torchstone.judge import pareto
from torchstone.train.recipe import Metric


@dataclass(frozen=True, kw_only=True)
class Objective:
    """One thing to make large or small."""

    name: str
    direction: Literal["maximize", "minimize"]
    """As Optuna spells it."""
    title: str
    unit: str = ""
    digits: int = 2
    """Decimals that are shown."""
    metric: Metric | None = None
    """What the recipe of the trials keeps the best epoch by; None: a cost, measured on the trained model."""

    @property
    def column(self) -> str | None:
        """Of a training's history, the column that holds it; None for a cost."""
        return f"val_{self.metric}" if self.metric else None

    @property
    def sign(self) -> int:
        """Times the value: larger is better."""
        return 1 if self.direction == "maximize" else -1


OBJECTIVES = {
    objective.name: objective
    for objective in (
        Objective(name="top1", direction="maximize", title="top-1 on val", unit="%", metric="top1"),
        Objective(name="loss", direction="minimize", title="loss on val", digits=4, metric="loss"),
        Objective(name="macro_f1", direction="maximize", title="macro F1 on val", unit="%", metric="macro_f1"),
        Objective(
            name="balanced_accuracy",
            direction="maximize",
            title="balanced accuracy on val",
            unit="%",
            metric="balanced_accuracy",
        ),
        Objective(name="latency", direction="minimize", title="latency at batch 1", unit="ms"),
        Objective(name="size", direction="minimize", title="size of the weights", unit="MB"),
        Objective(name="params", direction="minimize", title="parameters", digits=0),
    )
}
"""Of a search over recipes."""
OF_CHAINS = {
    objective.name: objective
    for objective in (
        Objective(name="drop", direction="minimize", title="drop on val", unit="points"),
        Objective(name="speed", direction="maximize", title="speed against the baseline", unit="×"),
        Objective(name="size", direction="minimize", title="size", unit="MB"),
    )
}
"""Of a search over chains; the drop is in the metric of the budget."""


def named(names: Sequence[str], known: Mapping[str, Objective] = OBJECTIVES) -> tuple[Objective, ...]:
    """Those of the ``known`` objectives that have these names, in this order; a ConfigError for one that is unknown or
    named twice."""
    if not names:
        raise ConfigError("a search needs an objective", hint=f"known: {', '.join(known)}")
    for number, name in enumerate(names):
        if name not in known:
            raise ConfigError(f"unknown objective '{name}'", hint=nearest(name, known))
        if name in names[:number]:
            raise ConfigError(f"the objective '{name}' was named twice")
    return tuple(known[name] for name in names)


def front(rows: Mapping[int, Sequence[float]], objectives: Sequence[Objective]) -> list[int]:
    """The trials that no other one beats, the best by the first objective first. With one objective: the best one (of
    equal ones the earliest)."""
    signs = [-objective.sign for objective in objectives]
    losses = [[sign * value for sign, value in zip(signs, values, strict=True)] for values in rows.values()]
    numbers = list(rows)
    kept = [numbers[place] for place in pareto.front(losses)]
    kept.sort(key=lambda number: (signs[0] * rows[number][0], number))
    return kept[:1] if len(objectives) == 1 else kept
