"""A training's page and its section in the report show what was stored beside the artifact."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from torchstone import report
from torchstone.cli import _answers
from torchstone.core import files, numbers, registry, tables
from torchstone.core.run import Run
from torchstone.core.values import Artifact, Finding, MadeBy
from torchstone.data import findings
from torchstone.evaluate import predict
from torchstone.report import training, training_page
from torchstone.train import coach, history, recipes

HOSTILE = "<b>rose & thorn</b>"
FINDINGS = (
    Finding(
        check="rate_too_high",
        severity="warning",
        message="a step moved the weights by 43 % of themselves",
        hint="--set lr=0.01, or measure one: --find-lr",
    ),
    Finding(check="dead_relus", severity="warning", message="units that no gradient reaches", follows="rate_too_high"),
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


TOLD = training_page.Told(
    base="scratch",
    command="torchstone train digits --lr 0.1",
    steps=(training_page.Step(why="train again", command="torchstone train digits --lr 0.01"),),
)


def page_of(run: Run, told: training_page.Told | None = TOLD, **changed: Any) -> str:
    place = next(run.artifacts.glob("*/history.parquet")).parent
    artifact = Artifact.load(place / "artifact.json").model_copy(update={"directory": place, **changed})
    path = training_page.write(artifact, run.catalog(), run.split(), told)
    assert path is not None
    assert path == place / "training.html"
    return path.read_text()


def test_the_page_shows_findings_curves_layers_and_images(run: Run) -> None:
    text = page_of(run)
    for shown in (
        "1 thing to look at", "Rate too high:", "a step moved the weights by 43 % of themselves",
        '<code class="unbroken">--set lr=0.01</code>, or measure one: <code class="unbroken">--find-lr</code>',
        "the median image has 0.25", "5.25", "→ 8",
    ):  # fmt: skip
        assert shown in text
    assert text.count('<svg class="figure"') == 5, "loss, top-1, rate; gradient and step by layer"
    assert text.count("data:image/jpeg") == 2
    assert "<b>rose" not in text
    places = [text.index(title) for title in ("Rate too high", "From this follows", "Dead ReLUs", "Compute-bound")]
    assert places == sorted(places), "the gravest first, and below it what follows from it"
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
    shown, interval, told = _answers._on_val(artifact)
    assert shown == top1[lowest] < max(top1)
    assert interval is not None
    least = numbers.rounded_down(interval[0], 1)
    assert f"{shown:.2f} % top-1 on {run.split().sizes['val']:,} val images (95 %: {least:.1f} to" in told


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
    assert "The coach found nothing wrong with this training." in page_of(run)


def test_the_figure_on_val_has_its_interval(run: Run) -> None:
    text = page_of(run)
    place = next(run.artifacts.glob("*/history.parquet")).parent
    stored, images = history.read(place), run.split().sizes["val"]
    low, high = stored.interval(images)
    assert low < (stored.best["val_top1"] or 0) < high
    assert f"Seen on {images:,} images" in text
    assert f"from {low:.1f} to {high:.1f} %" in text
    least, most = numbers.rounded_down(low, 1), numbers.rounded_up(high, 1)
    assert f"{images:,} val images (95 %: {least:.1f} to {most:.1f})" in text


def keep_answers(run: Run, wrong: int) -> None:
    """Answers on val of which so many are wrong, the first the most confidently: '0' taken for '1' and so on."""
    place = next(run.artifacts.glob("*/history.parquet")).parent
    cut, known = (tables.read(path)[0] for path in (run.split().table, run.catalog().table))
    items = cut.filter(cut["part"] == "val")["item"].to_list()
    label_of = dict(zip(known["item"].to_list(), known["label"].to_list(), strict=True))
    labels = np.array([label_of[item] for item in items])
    given = labels.copy()
    given[:wrong] = (given[:wrong] + 1) % 10
    scores = np.zeros((len(items), 10), np.float32)
    scores[np.arange(len(items)), given] = np.linspace(9, 3, len(items))
    header = {"part": "val", "kind": "logits", "epoch": 1}
    found = predict.Predictions(items=np.array(items), labels=labels, scores=scores, header=header)
    predict.store(place / history.ANSWERS, found)


def test_the_page_shows_what_val_gets_wrong_the_most_confident_first(run: Run) -> None:
    assert 'id="errors"' not in page_of(run), "nothing is shown of what is not stored"
    keep_answers(run, wrong=3)
    text = page_of(run)
    images = run.split().sizes["val"]
    section = text[text.index('<section id="errors">') : text.index('<section id="images">')]
    assert f"3 of {images:,} val images are wrong" in section
    assert section.count("data:image/jpeg") == 3
    assert "Confusion matrix" in section
    assert "Recall by class" in section
    chances = [int(found) for found in re.findall(r"<span>(\d+) %</span>", section)]
    assert len(chances) == 3
    assert chances == sorted(chances, reverse=True)


def test_the_page_counts_the_images_of_each_part_and_class(run: Run) -> None:
    keep_answers(run, wrong=1)
    found = training_page.images_of(run.catalog(), run.split())
    assert found is not None
    assert dict(found.parts) == run.split().sizes
    assert found.left_out == 0
    for at, (_, size) in enumerate(found.parts):
        assert sum(counts[at] for _, counts in found.classes) == size
    assert 'id="images"' in page_of(run)


def test_the_page_has_the_whole_recipe_and_the_command(run: Run) -> None:
    chosen = recipes.changed(recipes.by_name("scratch"), {"lr": 0.1, "freeze": "backbone"})
    made_by = MadeBy(step="train", version=1, config={"recipe": chosen.model_dump(mode="json")})
    text = page_of(run, made_by=made_by)
    section = text[text.index('<section id="recipe">') :]
    assert "2 values in bold differ from the recipe ‘scratch’" in section
    assert '0.1 <span class="muted">(0.002)</span>' in section
    assert 'backbone <span class="muted">(none)</span>' in section
    for name in chosen.model_dump(exclude={"schema_version"}):
        assert f"<dt>{name}</dt>" in section
    assert "<pre>torchstone train digits --lr 0.1</pre>" in section
    assert "<pre>torchstone train digits --lr 0.01</pre>" in section[section.index("What now") :]
    alone = page_of(run, told=None, made_by=made_by)
    assert "What now" not in alone
    assert "differ from" not in alone


@pytest.mark.parametrize(("epochs", "figures"), [(1, 2), (2, 5)])
def test_one_or_two_epochs_are_a_table(run: Run, epochs: int, figures: int) -> None:
    """And points, where there are two of them."""
    path = next(run.artifacts.glob("*/history.parquet"))
    table, _ = tables.read(path)
    tables.write(path, table.head(epochs), {"best_epoch": epochs})
    text = page_of(run)
    assert text.count('<svg class="figure"') == figures
    assert "in numbers</summary>" not in text
    rows = text[text.index('class="lines rule epochs"') :].partition("</table>")[0]
    assert rows.count("<tr") == epochs + 1
    assert f'{epochs} <span class="chosen">kept</span>' in rows
