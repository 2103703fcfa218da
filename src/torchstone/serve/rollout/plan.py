"""What a rollout was told, and which requests the candidate sees."""

from __future__ import annotations

import hashlib
from typing import Literal

from pydantic import Field, field_validator
from pydantic_core.core_schema import ValidationInfo

from torchstone.core.errors import ConfigError
from torchstone.core.values import Value
from torchstone.judge import betting
from torchstone.serve.rollout.monitors import MONITORS
from torchstone.serve.values import Route

Mode = Literal["shadow", "canary"]
MODES = ("shadow", "canary")
Labels = Literal["some", "random", "all"]
LABELS: dict[str, str] = {
    "some": "from whoever sends them; they may roll back, and promotion by them is left to a person",
    "random": "of requests drawn at random",
    "all": "of all requests",
}
"""Where labels come from."""

WEIGHTS: dict[str, float] = {"shadow": 1.0, "canary": 0.05}
"""Share of the requests that the candidate sees, unless another is asked for."""

CANARY = (0.001, 0.999)
"""Weights of a canary: one block of answers has at least one of each arm, so beyond these it takes more than a thousand
answers of the other, and at 100 % none is ever compared."""

FEEDBACK_BIAS = (
    "labels that people send are a selection: who corrects only what looks wrong makes the shown answers look worse "
    "than they are, and the other model's better. What is said of accuracy holds for the labelled requests alone."
)
"""Said wherever a number from feedback is shown."""


class Plan(Value):
    """What a rollout was told when it was started. Shares are fractions, not per cent."""

    id: str
    model: str = Field(description="name of the model that the server answers with, which the candidate may replace")
    candidate: str = Field(description="directory of the candidate's bundle")
    candidate_id: str = Field(description="of its artifact")
    stable: str = Field(description="directory of the stable model's bundle")
    stable_id: str
    mode: Mode
    weight: float = Field(gt=0, le=1, description="share of the requests that the candidate sees")
    salt: str = Field(description="makes this split another than those before it")
    labels: Labels = Field(default="some", description="where they come from: 'random' and 'all' may promote, too")
    margin: float = Field(ge=0, lt=1, description="drop of accuracy that is allowed")
    errors_margin: float = Field(default=MONITORS["errors"].margin, ge=0, lt=1)
    latency_margin: float = Field(default=MONITORS["latency"].margin, ge=0, lt=1)
    slow_quantile: float = Field(
        default=0.95, gt=0, lt=1, description="of the stable model's times: what is slower counts as slow"
    )
    horizon_labels: int = Field(default=50_000, gt=0, description="labelled observations after which it ends undecided")
    horizon_days: float = Field(default=30.0, gt=0)
    started: float = Field(description="seconds since 1970")

    @field_validator("weight")
    @classmethod
    def _comparable(cls, weight: float, given: ValidationInfo) -> float:
        if given.data.get("mode") == "canary" and not CANARY[0] <= weight <= CANARY[1]:
            raise ValueError(
                f"at {100 * weight:g} % a canary has nobody to be compared with; from {100 * CANARY[0]:g} % to "
                f"{100 * CANARY[1]:g} %, or --mode shadow to try it on every request"
            )
        return weight

    @property
    def margins(self) -> dict[str, float]:
        """Of each monitor: its own where the plan has no word on it."""
        told = {"accuracy": self.margin, "errors": self.errors_margin, "latency": self.latency_margin}
        return {name: monitor.margin for name, monitor in MONITORS.items()} | told


STABLE = Route("stable", False)


class Split:
    """The share of the requests that a rollout's candidate sees: the same key always falls on the same side, and when
    the weight grows, who was in stays in."""

    def __init__(self, plan: Plan) -> None:
        self._salt = hashlib.blake2b(plan.salt.encode(), digest_size=16).digest()
        self._below = round(plan.weight * 2**64)
        self._chosen = Route("stable", True) if plan.mode == "shadow" else Route("canary", False)

    def route(self, id: str, key: str | None) -> Route:
        """The route of the request ``id`` of ``key`` (a user, a session), without which each request is drawn anew."""
        drawn = hashlib.blake2b((id if key is None else key).encode(), digest_size=8, key=self._salt).digest()
        return self._chosen if int.from_bytes(drawn, "big") < self._below else STABLE


def weight_of(text: str) -> float:
    """``5%`` or ``0.05`` as a fraction; a ConfigError for what is no share of the requests."""
    percent = text.strip().endswith("%")
    try:
        weight = float(text.strip().removesuffix("%")) / (100 if percent else 1)
    except ValueError:
        weight = 0.0
    if not 0 < weight <= 1:
        raise ConfigError(f"--weight '{text}' is no share of the requests", hint="such as 5% or 0.05; at most 100%")
    return weight


def foreseen(plan: Plan) -> str:
    """What a shadow rollout's labels can show, said before it starts: of a candidate that is worse than the margin
    allows by 1.5 points more, and of an equal one, both of which differ from the stable model twice as often as that
    (in 4 % at least)."""
    harm = min(plan.margin + 0.015, (1 + plan.margin) / 2)
    disagreement = min(1.0, max(0.04, 2 * harm))
    caught = betting.needed(
        betting.PAIRED, betting.chances_of(disagreement, harm), plan.margin, MONITORS["accuracy"].harm, "worse"
    )
    equal = betting.needed(
        betting.PAIRED, betting.chances_of(disagreement, 0.0), plan.margin, MONITORS["accuracy"].promotion, "no worse"
    )
    told = [f"{number:,}" if number else "more than ten million" for number in (caught, equal)]
    then = "are needed before a person may promote an equal one" if plan.labels == "some" else "promote an equal one"
    return (
        f"at {100 * disagreement:g} % disagreement, about {told[0]} labelled pairs catch a candidate that is "
        f"{100 * harm:g} points worse, and about {told[1]} {then}"
    )
