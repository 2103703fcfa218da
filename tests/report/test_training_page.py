"""A training's page and its section in the report show what was stored beside the artifact."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from torchstone import report
from torchstone.cli import _answers
from torchstone.core import files, registry, tables
from torchstone.core.run import Run
from torchstone.core.values import Artifact, Finding
from torchstone.data import findings
from torchstone.report import training
from torchstone.train import coach

HOSTILE = "<b>rose & thorn</b>"
FINDINGS = (
    Finding(
        check="rate_too_high",
        severity="warning",
        message="a step moved the weights by 43 % of themselves",
        hint="--set lr=0.01, or measure one: --find-lr",
    ),
    Finding(
        check="compute_bound", severity="info", message=f"{HOSTILE} takes all the time", hint="--set precision=auto"
    ),
)


def write_measurements(place: Path) -> None:
    findings.store(place, FINDINGS)
    names = ["conv1", "conv2", "head"]
    rows = [(name, epoch, 0.1 / epoch * (at + 1), 0.004) for epoch in (1, 2, 3) for at, name in enumerate(names)]
    columns: dict[str, Any] = {
        "layer": [row[0] for row in rows],
        "kind": ["Conv2d"] * len(rows),
        "epoch": [row[1] for row in rows],
        "gradient": [row[2] for row in rows],
        "update": [row[3] for row in rows],
        "silent": [0.0] * len(rows),
    }
    tables.write(place / "layers.parquet", tables.frame(columns))
    worst = {"item": ["0003.png", "0007.png"], "label": ["0", HOSTILE], "predicted": ["8", "1"], "loss": [5.25, 3.5]}
    tables.write(place / "images.parquet", tables.frame(worst), {"median_loss": 0.25})


@pytest.fixture(scope="module")
def whole(make_run: Any) -> Run:
    return make_run()


@pytest.fixture
def run(whole: Run, tmp_path: Path) -> Run:
    copy = tmp_path / "run"
    shutil.copytree(whole.root, copy)
    write_measurements(next(copy.glob("artifacts/*/history.parquet")).parent)
    return Run(copy)


def test_the_page_shows_findings_curves_layers_and_images(run: Run) -> None:
    place = next(run.artifacts.glob("*/history.parquet")).parent
    artifact = Artifact.load(place / "artifact.json").model_copy(update={"directory": place})
    path = training.write(artifact, run.catalog())
    assert path == place / "training.html"
    text = (place / "training.html").read_text()
    for shown in (
        "1 finding to look at", "Rate too high:", "a step moved the weights by 43 % of themselves",
        '<code class="unbroken">--set lr=0.01</code>, or measure one: <code class="unbroken">--find-lr</code>',
        "the median image has 0.25", "5.25", "→ 8",
    ):  # fmt: skip
        assert shown in text
    assert text.count('<svg class="figure"') == 5, "loss, top-1, rate; gradient and step by layer"
    assert text.count("data:image/jpeg") == 2
    assert "<b>rose" not in text
    assert text.index("Rate too high") < text.index("Compute-bound"), "the gravest first"
    assert "http" not in text.replace("http-equiv", "")


def test_the_headline_is_the_epoch_whose_weights_were_kept(run: Run) -> None:
    """Not the one with the highest top-1, where the recipe asks for another metric."""
    path = next(run.artifacts.glob("*/history.parquet"))
    table, _ = tables.read(path)
    top1 = table["val_top1"].to_list()
    lowest = top1.index(min(top1))
    tables.write(path, table, {"best_epoch": lowest + 1})
    artifact = Artifact.load(path.parent / "artifact.json")
    made_by = artifact.made_by.model_copy(update={"config": {"recipe": {"metric": "loss"}}})
    artifact = artifact.model_copy(update={"directory": path.parent, "made_by": made_by})
    found = training.training_of(artifact, run.catalog(), "t")
    assert found is not None
    assert (found.best_top1, found.best_epoch, found.metric) == (top1[lowest], lowest + 1, "loss")
    assert _answers._best_val_top1(artifact) == top1[lowest] < max(top1)


def test_headings_are_words() -> None:
    titles = {name: coach.title(name) for name in registry.training_checks.names()}
    assert titles["dead_relus"] == "Dead ReLUs"
    assert titles["rate_too_high"] == "Rate too high"
    assert coach.title("of_a_plugin_that_is_gone") == "Of a plugin that is gone"
    assert not any("_" in title for title in titles.values())


def test_the_report_has_the_same_section(run: Run) -> None:
    text = report.write(run).read_text()
    section = text[text.index('<section id="training">') : text.index('<section id="timing">')]
    assert "a step moved the weights by 43 % of themselves" in section
    assert section.count('<svg class="figure"') == 5
    assert section.count("data:image/jpeg") == 2


def test_what_is_missing_leaves_its_part_out(run: Run) -> None:
    place = next(run.artifacts.glob("*/history.parquet")).parent
    for name in ("findings.json", "layers.parquet", "images.parquet"):
        (place / name).unlink()
    found = training.training_of(Artifact.load(place / "artifact.json").model_copy(update={"directory": place}),
                                 run.catalog(), "t")  # fmt: skip
    assert found is not None
    assert (found.findings, found.judged, found.layers, found.pictures) == ([], False, [], [])
    (place / "history.parquet").unlink()
    assert training.trainings_of(run, run.catalog()) == []


def test_a_training_without_findings_is_said_to_be_sound(run: Run) -> None:
    place = next(run.artifacts.glob("*/history.parquet")).parent
    files.write_json(place / "findings.json", [])
    artifact = Artifact.load(place / "artifact.json").model_copy(update={"directory": place})
    path = training.write(artifact, run.catalog())
    assert path and "The coach found nothing wrong with this training." in path.read_text()
