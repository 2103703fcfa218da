"""Measure one model: its accuracy, its size, its speed."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from torchstone.core import console, files, tables
from torchstone.core.contracts import ImageSet
from torchstone.core.errors import ConfigError
from torchstone.core.run import run_of
from torchstone.core.seeding import sample_rows
from torchstone.core.values import Artifact, Budget, Candidate, Part
from torchstone.data import catalog as catalogs
from torchstone.data.cache import open_images
from torchstone.data.sources.rows import PARQUET
from torchstone.evaluate import metrics, predict, timing
from torchstone.export import bundle
from torchstone.judge import accuracy, ledger
from torchstone.judge.evidence import Evidence
from torchstone.stages.find import candidate_of, find_artifact, split_runtime
from torchstone.stages.read import Data, opened

QUARTETS = 4


def evaluate(model: str, source: str | None, part: Part | None, predictions: Path | None = None) -> dict[str, Any]:
    """Metrics of one model on a part of its run's split, or on all images of another source; its latency at batch 1 and
    32 on one thread (medians of one short session: to compare two models, ``judge`` them). ``predictions`` is a Parquet
    file that is written: evidence for ``judge_evidence``.

    A figure on test is a look at it, which the ledger counts once, unless the model has met test in a judgement."""
    place, runtime = split_runtime(model)
    if source is not None and part is not None:
        raise ConfigError("a part was named together with other images", hint="other images are evaluated as a whole")
    if predictions is not None and predictions.suffix.lower() != PARQUET:
        raise ConfigError(
            f"predictions are written as Parquet, not as '{predictions.name}'", hint="call it NAME.parquet"
        )
    if predictions is not None:
        files.make_directory(predictions.parent)
    artifact = find_artifact(place)
    candidate = _candidate(artifact, runtime)
    if source is None:
        part = part or "val"
        data = opened(run_of(artifact))
        images = data.sets(artifact, part)[part]
        look = _counted(data, candidate, images) if part == "test" else None
        found = predict.predict(candidate, data.split, part, images, data.run.predictions(candidate, part))
        speed = _speed(candidate, images)
        bound = {} if look is None else _bounded(data, found, look)
    else:
        found, speed, bound = *_on_other_images(candidate, source), {}
    figures = metrics.summary(found.labels, found.scores)
    if predictions is not None:
        _write(predictions, found, artifact, figures)
    matrix = metrics.confusion(found.labels, metrics.predicted_classes(found.scores), len(artifact.classes))
    return {
        "model": candidate.name,
        "runtime": candidate.runtime,
        "images": len(found),
        "part": part or source,
        "size_mb": artifact.size_mb,
        **speed,
        **figures,
        **(bound or {"top1_interval": metrics.interval(figures["top1"], len(found))}),
        "recall": dict(zip(artifact.classes, (float(value) for value in metrics.recall(matrix)), strict=True)),
        "confusion": matrix.tolist(),
    }


def _counted(data: Data, candidate: Candidate, images: ImageSet) -> int | None:
    """The number of this look at the test images, written down before it is taken; None where a judgement has shown
    them to this model already, so that nothing new is learned from them."""
    fingerprint, question = data.split.test_fingerprint, ledger.figure(candidate)
    number = ledger.known(data.run.ledger, fingerprint, question)
    path = data.run.predictions(candidate, "test")
    if number is not None or predict.kept(candidate, data.split, "test", images, path) is not None:
        return number
    number = ledger.look(data.run.ledger, fingerprint, question, data.split.earlier_tests)
    following = 100 * ledger.level(Budget().confidence, number + 1)
    console.say(
        f"this is look {number} at these {len(images):,} test images, and is written down: what is judged on them from "
        f"now on has bounds at {following:g} %. To choose by, evaluate on val"
    )
    return number


def _bounded(data: Data, found: predict.Predictions, look: int) -> dict[str, Any]:
    """What top-1 is at least, at the level of this look."""
    level = ledger.level(Budget().confidence, look)
    wrong = metrics.predicted_classes(found.scores) != found.labels
    lower = accuracy.at_least(wrong, level, Evidence(data.run).groups(found.items))
    return {"look": look, "level": level, "top1_at_least": lower}


def _candidate(artifact: Artifact, runtime: str | None) -> Candidate:
    """The artifact in ``runtime``; without one, a bundle is what it serves, and others run where their format does."""
    if runtime is None and (artifact.directory / bundle.CANDIDATE).is_file():
        return bundle.load(artifact.directory)
    return candidate_of(artifact, artifact.chain or artifact.format, runtime, 1)


def _write(path: Path, found: predict.Predictions, artifact: Artifact, figures: dict[str, float]) -> None:
    """The answers with the names of their classes, so that they can be read beside those of another model, and with
    the metrics, as fractions."""
    table = tables.frame({"item": list(found.items), "label": found.labels.astype(np.int32), "scores": found.scores})
    tables.write(path, table, {**found.header, "classes": list(artifact.classes), "metrics": figures})


def _speed(candidate: Candidate, images: ImageSet) -> dict[str, float]:
    """Milliseconds of one call at batch 1 and at batch 32."""
    rows = sample_rows(images.labels, 64, "timing")
    console.say(f"timing {candidate.name}, one image and {timing.THROUGHPUT_BATCH} at a time")
    session = timing.session(
        [], control=candidate, quartets=QUARTETS, phase="screening", pixels=images.images(rows), throughput=True
    )
    table = session.tables[candidate.id]
    single = table.filter(table["batch"] == 1)["ms"].to_numpy()
    many = table.filter(table["batch"] == timing.THROUGHPUT_BATCH)["ms"].to_numpy()
    return {"latency_ms": float(np.median(single)), f"latency_{timing.THROUGHPUT_BATCH}_ms": float(np.median(many))}


def _on_other_images(candidate: Candidate, source: str) -> tuple[predict.Predictions, dict[str, float]]:
    """Predictions and speed on a whole source; its classes must be among the model's."""
    artifact = candidate.artifact
    with tempfile.TemporaryDirectory(prefix="torchstone-") as scratch:
        catalog = catalogs.read(source, Path(scratch) / "data")
        numbers = np.array(catalogs.numbers_among(catalog.classes, artifact.classes, source))
        images = open_images(catalog, None, None, artifact.preprocess, Path(scratch) / "cache")
        found = predict.answer(candidate, images, source)
        return dataclasses.replace(found, labels=numbers[images.labels]), _speed(candidate, images)
