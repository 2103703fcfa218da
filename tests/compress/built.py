"""Candidates of chains, and what they answer."""

from __future__ import annotations

from torchstone.core.values import Candidate
from torchstone.evaluate import predict
from torchstone.stages import compress
from torchstone.stages.read import Data


def made(text: str, baseline: Candidate, data: Data, *, seed: int = 0) -> Candidate:
    """The candidate of one chain, built where it is not yet."""
    plans = compress.plan_all([text])
    return compress.build_all(plans, baseline, data, seed=seed)[0]


def answers(candidate: Candidate, data: Data) -> predict.Predictions:
    """On the test images."""
    images = data.sets(candidate.artifact, "test")["test"]
    return predict.predict(candidate, data.split, "test", images, data.run.predictions(candidate, "test"))


def top1(found: predict.Predictions) -> float:
    return float((found.scores.argmax(1) == found.labels).mean())
