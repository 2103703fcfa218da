"""Traffic as a server would log it: two models that answer images, and labels that come later."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import sqlalchemy as sa

from torchstone.core.values import Artifact, MadeBy, Preprocess
from torchstone.serve.rollout import record
from torchstone.serve.rollout.plan import WEIGHTS, Mode, Plan, Split
from torchstone.serve.store import tables
from torchstone.serve.store.writer import Writer
from torchstone.serve.values import new_id

STABLE, CANDIDATE = "a" * 64, "b" * 64
LATER = 60.0
"""Seconds after which everything that was written may be read."""


@dataclass(kw_only=True)
class Model:
    """How a model behaves; the chance that it is right where the stable one is not, and the other way round, makes
    the drop."""

    lost: float = 0.0
    gained: float = 0.0
    fails: float = 0.0
    times: float = 1.0
    """How many times the stable model's milliseconds it takes."""


@dataclass(kw_only=True)
class Traffic:
    """A server's log under a plan, row by row through the real writer."""

    url: str
    plan: Plan
    accuracy: float = 0.9
    seed: int = 0
    ids: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.split = Split(self.plan)

    def send(self, images: int, candidate: Model, labelled: float = 1.0, *, corrections: bool = False) -> None:
        """So many images, answered and (a share of them, or of the wrong answers alone) labelled; all of it is written
        when this returns."""
        writer = Writer(self.url)
        truths = []
        for chances in self.rng.random((images, 6)).tolist():
            id = new_id()
            route = self.split.route(id, None)
            right = chances[0] < self.accuracy
            if right:
                right_too = chances[1] >= candidate.lost / self.accuracy
            else:
                right_too = chances[1] < candidate.gained / (1 - self.accuracy)
            milliseconds = 5 + 5 * chances[2]
            if route.shadow:
                self._log(writer, id, "shadow", right_too, chances[4] < candidate.fails, milliseconds * candidate.times)
            failed, shown = False, right
            if route.answer == "canary":
                failed = chances[4] < candidate.fails
                shown = right if failed else right_too
                self._log(writer, id, "canary", right_too, failed, milliseconds * candidate.times)
            if route.answer == "stable" or failed:
                self._log(writer, id, "stable", right, False, milliseconds)
            if chances[5] < labelled and not (corrections and shown):
                truths.append(id)
            self.ids.append(id)
        for id in truths:
            writer.feedback(id=id, label=1, time=time.time())
        writer.close(patience=60)
        assert writer.lost == 0

    def _log(self, writer: Writer, id: str, role, right: bool, failed: bool, milliseconds: float) -> None:
        bundle = STABLE if role == "stable" else CANDIDATE
        writer.predicted(
            id=id, time=time.time(), bundle=bundle[:12], role=role, key=None, image="0" * 64,
            label=-1 if failed else int(right), confidence=0.0 if failed else 0.9, milliseconds=milliseconds,
            error="failed" if failed else None,
        )  # fmt: skip


def plan(mode: Mode = "shadow", **more) -> Plan:
    given = {
        "id": record.new_id(), "model": "flowers", "candidate": "/bundles/new", "candidate_id": CANDIDATE,
        "stable": "/bundles/old", "stable_id": STABLE, "mode": mode, "weight": WEIGHTS[mode], "salt": "salt",
        "margin": 0.005, "started": time.time(),
    }  # fmt: skip
    return Plan(**(given | more))


def bundle(place: Path, id: str) -> Path:
    """A directory that says of itself which artifact it holds; nothing in it can answer."""
    place.mkdir(parents=True, exist_ok=True)
    Artifact(
        id=id, key="k", format="onnx", files={}, architecture="none", classes=("0", "1"), split_fingerprint="s",
        preprocess=Preprocess(decoder_version="0", resize=8, crop=8, mean=(0, 0, 0), std=(1, 1, 1)),
        made_by=MadeBy(step="none", version=1),
    ).save(place / "artifact.json")  # fmt: skip
    return place


def started(directory: Path, made: Plan) -> tuple[str, sa.Engine]:
    """The store in ``directory`` with that rollout running."""
    url = tables.url_of(directory, None)
    engine = tables.engine(url)
    tables.create(engine)
    with engine.begin() as connection:
        record.register(connection, made.model, Path(made.stable), STABLE)
        record.start(connection, made)
    return url, engine
