"""A training as it is shown: what the coach says of it, its curves, its layers, the images it could not learn. The
section of a run's report and the page beside an artifact are made of the same parts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from torchstone.core import tables
from torchstone.core.errors import ArtifactError
from torchstone.core.run import Run
from torchstone.core.values import Artifact, Catalog, Finding
from torchstone.data import findings as reported
from torchstone.report import pictures, resources, training_figures
from torchstone.train import history as histories

PICTURES = 14
"""Images with the highest late losses that are shown."""
PIXELATED = 64
"""Longest side in pixels up to which an image is enlarged without blur."""
FEW = 3
"""Epochs below which the numbers are shown beside the curves: they are all that is known."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A drawing with what stands above it."""

    title: str
    caption: str
    svg: str


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A training image whose loss was high to the end. ``uri`` is None where it cannot be read."""

    item: str
    uri: str | None
    pixelated: bool
    label: str
    predicted: str
    loss: float


@dataclass(frozen=True, kw_only=True)
class Training:
    """What the template shows of one training."""

    name: str
    """Beginning of the ids of its elements."""
    title: str
    epochs: int
    best_top1: float
    """On val, in the best epoch."""
    val_images: int | None
    """That the figure rests on; None where the split is gone."""
    interval: tuple[float, float] | None
    """95 %, of the figure, per cent."""
    best_epoch: int
    """Whose weights were kept."""
    metric: str | None
    """By what it is the best, in words; None: by its top-1."""
    seconds: float
    images_per_second: float | None
    waited_share: float | None
    findings: list[Finding]
    """The gravest first, each before what follows from it."""
    judged: bool
    """Whether the coach has looked at it."""
    rows: list[dict[str, float]]
    """Of the history, a dictionary an epoch."""
    few: bool
    """Whether there are so few epochs that their numbers say more than a curve."""
    curves: list[Figure]
    layers: list[Figure]
    resources: list[Figure]
    pictures: list[Picture]
    median_loss: float | None
    note: str | None


def trainings_of(run: Run, catalog: Catalog) -> list[Training]:
    """Every training in the run, the first model's first; imported weights have none."""
    artifacts = []
    for path in sorted(run.artifacts.glob("*/history.parquet")):
        try:
            artifact = Artifact.load(path.parent / "artifact.json")
        except ArtifactError:
            continue
        artifacts.append(artifact.model_copy(update={"directory": path.parent}))
    artifacts.sort(key=lambda artifact: (len(artifact.chain), artifact.chain))
    found = [training_of(artifact, catalog, f"training{at}") for at, artifact in enumerate(artifacts)]
    return [training for training in found if training is not None]


def training_of(artifact: Artifact, catalog: Catalog, name: str) -> Training | None:
    """What is stored of this artifact's training; None where there is no history. What else is missing leaves its part
    out."""
    directory = artifact.directory
    try:
        history = histories.read(directory)
    except ArtifactError:
        return None
    columns = {column: _numbers(history.table[column].to_list()) for column in history.table.columns}
    seconds = float(np.nansum(columns["seconds"]))
    shown, median, note = _pictures(directory, catalog)
    judged = (directory / reported.FILE).exists()
    images = _val_images(directory)
    return Training(
        name=name,
        title=artifact.chain or f"Training of {artifact.architecture}",
        epochs=len(history.table),
        best_top1=_numbers([history.best["val_top1"]])[0],
        val_images=images,
        interval=history.interval(images) if images else None,
        best_epoch=history.best_epoch,
        metric=METRICS[artifact.made_by.config.get("recipe", {}).get("metric", "top1")],
        seconds=seconds,
        images_per_second=_median(columns.get("images_per_second")),
        waited_share=_median(columns.get("waited_share")),
        findings=reported.load(directory),
        judged=judged,
        rows=[{name: values[at] for name, values in columns.items()} for at in range(len(history.table))],
        few=len(history.table) < FEW,
        curves=_curves(columns, name),
        layers=_layers(directory, name),
        resources=_resources(directory, name),
        pictures=shown,
        median_loss=median,
        note=note,
    )


def _numbers(values: Sequence[Any]) -> list[float]:
    return [math.nan if value is None else float(value) for value in values]


def _median(values: Sequence[float] | None) -> float | None:
    known = [value for value in values or () if math.isfinite(value)]
    return float(np.median(known)) if known else None


METRICS = {
    "top1": None, "loss": "loss", "macro_f1": "macro F1", "balanced_accuracy": "balanced accuracy",
}  # fmt: skip


def _val_images(directory: Path) -> int | None:
    try:
        return Run(directory.parents[1]).split().sizes.get("val")
    except ArtifactError:
        return None


def _curves(columns: dict[str, list[float]], name: str) -> list[Figure]:
    """Loss, top-1, rate and gradient by epoch."""
    epochs = [int(epoch) for epoch in columns["epoch"]]
    if len(epochs) < 2:
        return []
    wanted = (
        ("loss", "Loss", "in nats", {"train": "train_loss", "val": "val_loss"}, 200.0),
        ("top1", "Top-1, %", "of training on augmented images", {"train": "train_top1", "val": "val_top1"}, math.inf),
        ("rate", "Learning rate", "at the epoch's end", {"rate": "lr"}, math.inf),
        ("gradient", "Norm of the gradient", "before it is clipped",
         {"median": "gradient", "largest": "gradient_largest"}, 10.0),
    )  # fmt: skip
    drawn = []
    for part, title, caption, lines, logarithmic in wanted:
        known = {label: columns[column] for label, column in lines.items() if column in columns}
        known = {label: values for label, values in known.items() if any(map(math.isfinite, values))}
        if known:
            text = f"{title} by epoch, {caption}"
            svg = training_figures.curves(epochs, known, f"{name}-{part}", text, logarithmic=logarithmic)
            drawn.append(Figure(title=title, caption=caption, svg=svg))
    return drawn


def _layers(directory: Path, name: str) -> list[Figure]:
    """The gradient and the length of a step by layer, in the first and the last epoch."""
    try:
        table, _ = tables.read(directory / "layers.parquet")
    except ArtifactError:
        return []
    names = list(dict.fromkeys(zip(table["layer"].to_list(), table["kind"].to_list(), strict=True)))
    if not len(table) or len(names) < 2:
        return []
    numbers = table["epoch"].to_list()
    epochs = sorted({min(numbers), max(numbers)})
    drawn = []
    for part, title, caption, usual in (
        ("gradient", "Gradient by layer", "root mean square over its weights, from the first layer to the last", None),
        ("update", "Length of a step by layer", "against that of the weights; the band is usual", (1e-3, 1e-2)),
    ):
        lines = {f"epoch {epoch}": _numbers(table.filter(table["epoch"] == epoch)[part].to_list()) for epoch in epochs}
        lines = {label: values for label, values in lines.items() if any(value > 0 for value in values)}
        if lines:
            titles = [f"{layer} {kind}" if layer.isdigit() else layer or kind for layer, kind in names]
            svg = training_figures.by_layer(titles, lines, f"{name}-layers-{part}", f"{title}, {caption}", usual)
            drawn.append(Figure(title=title, caption=caption, svg=svg))
    return drawn


def _resources(directory: Path, name: str) -> list[Figure]:
    """What processor, memory and GPU did, where it was measured."""
    found = resources.panels(directory / "resources.parquet", f"{name}-resources")
    return [Figure(title=panel.title, caption=panel.summary, svg=panel.figure) for panel in found]


def _pictures(directory: Path, catalog: Catalog) -> tuple[list[Picture], float | None, str | None]:
    """The images with the highest late losses, the median late loss, and a note when some could not be read."""
    try:
        table, header = tables.read(directory / "images.parquet")
        known, _ = tables.read(catalog.table)
    except ArtifactError:
        return [], None, None
    worst = list(table.head(PICTURES).iter_rows(named=True))
    rows = {
        row["item"]: row
        for row in known.filter(known["item"].is_in([one["item"] for one in worst])).iter_rows(named=True)
    }
    uris, note = pictures.uris(catalog, list(rows.values()))
    shown = [
        Picture(
            item=one["item"],
            uri=uris.get(one["item"]),
            pixelated=max(rows[one["item"]].get(side, PIXELATED) for side in ("width", "height")) <= PIXELATED,
            label=one["label"],
            predicted=one["predicted"],
            loss=one["loss"],
        )
        for one in worst
        if one["item"] in rows
    ]
    return shown, header.get("median_loss"), note
