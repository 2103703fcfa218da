"""The page beside a trained artifact: what the coach says, the curves, what val gets wrong, the images, the whole
recipe, and what to type next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from torchstone.core import files, registry, tables
from torchstone.core.errors import ArtifactError, MissingPackageError
from torchstone.core.run import Run
from torchstone.core.values import PARTS, Artifact, Catalog, Part, Split
from torchstone.evaluate import predict
from torchstone.report import errors, mistakes
from torchstone.report.errors import Errors
from torchstone.report.mistakes import Comparison
from torchstone.report.templates import environment
from torchstone.report.training import training_of
from torchstone.train import history, recipes

PAGE = "training.html"
CLASSES = 60
"""Of which the images of each part are shown, the smallest classes first where there are more."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """Something to type next, and why."""

    why: str
    command: str


@dataclass(frozen=True, kw_only=True)
class Told:
    """What the artifact does not say of its training: how it was asked for."""

    base: str
    """The named recipe that it started from."""
    command: str
    """That makes it again."""
    steps: Sequence[Step]


@dataclass(frozen=True, kw_only=True)
class Option:
    """One option of the recipe."""

    name: str
    value: str
    usual: str | None
    """What the named recipe says, where that is something else."""
    meaning: str


@dataclass(frozen=True, kw_only=True)
class Images:
    """How the images were split."""

    parts: list[tuple[Part, int]]
    classes: list[tuple[str, list[int]]]
    """Of each class its images in each of ``parts``."""
    left_out: int
    """Classes that are not shown."""


def write(artifact: Artifact, catalog: Catalog, split: Split, told: Told | None = None) -> Path | None:
    """Write ``training.html`` beside a trained artifact and return its path; None where it was not trained here.
    Without ``told`` the page says neither how to make it again nor what comes next."""
    missing = registry.missing_packages(("jinja2", "matplotlib", "polars"))
    if missing:
        raise MissingPackageError("the page of a training", missing)
    found = training_of(artifact, catalog, "training")
    if found is None:
        return None
    path = artifact.directory / PAGE
    text = environment().get_template("training_page.html.j2").render(
        training=found,
        artifact=artifact,
        run=Run(artifact.directory.parents[1]).name,
        classes=catalog.classes,
        errors=errors_on_val(artifact, catalog),
        images=images_of(catalog, split),
        recipe=recipe_of(artifact, told.base if told else None),
        told=told,
    )  # fmt: skip
    files.write_text(path, text)
    return path


def errors_on_val(artifact: Artifact, catalog: Catalog) -> Errors | None:
    """What the kept weights got wrong on val, by the evaluation that chose their epoch; None where it is not stored."""
    try:
        own = mistakes.answers(predict.load(artifact.directory / history.ANSWERS))
    except ArtifactError:
        return None
    return errors.shown(
        Comparison(name="this model", part="val", subject=own, baseline=own), catalog, artifact.preprocess
    )


def images_of(catalog: Catalog, split: Split) -> Images | None:
    """How many images each part has, and of each class; None where the tables are gone."""
    try:
        known, _ = tables.read(catalog.table)
        cut, _ = tables.read(split.table)
    except ArtifactError:
        return None
    parts: list[Part] = [part for part in PARTS if split.sizes.get(part)]
    labels = dict(zip(known["item"].to_list(), known["label"].to_list(), strict=True))
    counts = np.zeros((len(catalog.classes), len(parts)), np.int64)
    for item, part in zip(cut["item"].to_list(), cut["part"].to_list(), strict=True):
        if part in parts and item in labels:
            counts[labels[item], parts.index(part)] += 1
    shown = np.arange(len(counts))
    if len(shown) > CLASSES:
        shown = np.argsort(counts.sum(axis=1), kind="stable")[:CLASSES]
    return Images(
        parts=[(part, split.sizes[part]) for part in parts],
        classes=[(catalog.classes[label], counts[label].tolist()) for label in shown],
        left_out=len(counts) - len(shown),
    )


def recipe_of(artifact: Artifact, base: str | None) -> list[Option]:
    """Every option of the recipe that changes what is trained, with what ``base`` says where that differs; empty for a
    step of a chain."""
    values = artifact.made_by.config.get("recipe", {})
    usual = recipes.by_name(base).model_dump(mode="json") if base else {}
    return [
        Option(
            name=name,
            value=recipes.short(values[name]),
            usual=recipes.short(usual[name]) if name in usual and usual[name] != values[name] else None,
            meaning=recipes.meaning(name),
        )
        for name in recipes.OPTIONS
        if name in values
    ]
