"""The cards say how each candidate was made, what it cost, what changed and what it now gets wrong."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from torchstone import report
from torchstone.core import files
from torchstone.core.run import Run
from torchstone.core.values import Candidate
from torchstone.core.verdict import Verdict
from torchstone.models import cost
from torchstone.report import cards, making, wording
from torchstone.report.cards import Card


@pytest.fixture(scope="module")
def judged(make_run: Any) -> Run:
    return make_run(trained=False)


@pytest.fixture(scope="module")
def found(judged: Run) -> dict[str, Card]:
    """By the candidates' names."""
    verdict = Verdict.load(judged.verdict)
    known = cards.cards_of(judged, judged.load_candidates(), judged.catalog(), verdict)
    return {verdict.row(key).name: card for key, card in known.items()}


@pytest.fixture(scope="module")
def text(judged: Run) -> str:
    """What the page says, without its elements."""
    page = report.write(judged).read_text().partition("</style>")[2]
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page))


def test_every_candidate_has_a_card(judged: Run, found: dict[str, Card]) -> None:
    rows = Verdict.load(judged.verdict).rows
    assert list(found) == [row.name for row in rows if row.outcome != "baseline"]
    assert report.write(judged).read_text().count('<details class="card') == len(found)


def test_the_cost_of_a_candidate_is_that_of_all_its_steps(found: dict[str, Card], text: str) -> None:
    card = found["prune=0.5+finetune=2+int8@openvino"]
    assert card.making
    assert [step.spelt for step in card.making.steps] == ["prune=0.5", "finetune=2", "int8@openvino"]
    assert [step.seconds for step in card.making.steps] == [12.0, 95.5, 7.75]
    assert card.making.seconds == 115.25
    assert f"Making it {wording.took(115.25)} after the baseline" in text
    prune, finetune, int8 = card.making.steps
    assert prune.options == (("ratio", "0.5", "share of the channels that leaves"),)
    assert prune.notes == ("prune: half of the channels left",)
    assert finetune.notes == int8.notes == ()
    assert "Structured pruning: whole channels leave" in prune.words


def test_a_step_whose_time_is_not_known_is_not_called_quick(found: dict[str, Card], text: str) -> None:
    card = found["bf16@openvino"]
    assert card.making
    assert (card.making.unknown, [step.seconds for step in card.making.steps]) == (1, [None])
    assert f"Making it {wording.NONE} 1 step not timed" in text


def test_a_model_that_is_gone_leaves_the_rest_of_the_card(make_run: Any) -> None:
    run = make_run(trained=False)
    chain = "prune=0.5+finetune=2"
    files.remove(run.artifacts / files.digest(chain)[:16])
    verdict = Verdict.load(run.verdict)
    known = cards.cards_of(run, run.load_candidates(), run.catalog(), verdict)
    broken = [verdict.row(key).name for key, card in known.items() if card.making is None]
    assert broken == [f"{chain}+int8@openvino"]
    assert "A model on the way is gone" in report.write(run).read_text()


def test_the_pictures_are_those_that_only_the_candidate_gets_wrong(judged: Run, found: dict[str, Card]) -> None:
    verdict = Verdict.load(judged.verdict)
    for row in verdict.rows[1:]:
        lost = found[row.name].lost
        assert row.accuracy
        assert lost
        assert (lost.part, lost.lost) == (row.accuracy.part, row.accuracy.lost)
        assert len(lost.pictures) == min(5, lost.lost)
        assert all(picture.mistake.baseline_right and picture.uri for picture in lost.pictures)
        sureness = [picture.mistake.probability for picture in lost.pictures]
        assert sureness == sorted(sureness, reverse=True)
    assert {len(card.lost.pictures) for card in found.values() if card.lost} >= {0, 5}


def test_a_candidate_that_lost_nothing_says_so(found: dict[str, Card], text: str) -> None:
    lost = found["onnx @onnxruntime"].lost
    assert lost
    assert lost.lost == 0
    assert f"It gets none of the {lost.images} test images wrong that the baseline has right." in text


def test_the_front_holds_what_nothing_else_matches(judged: Run) -> None:
    """Against the definition, over drops, speeds and sizes drawn so that many are equal."""
    verdict = Verdict.load(judged.verdict)
    row = verdict.rows[1]
    draw = np.random.default_rng(0)
    assert row.speed
    top1 = row.metrics[0]
    for _ in range(30):
        numbers = draw.integers(1, 5, size=(8, 3))
        rows = [
            row.model_copy(
                update={
                    "candidate_id": str(number),
                    "name": f"{number} by name",
                    "metrics": (top1.model_copy(update={"difference": float(drop)}),),
                    "speed": row.speed.model_copy(update={"ratio": float(ratio)}),
                    "size_mb": float(size),
                }
            )
            for number, (drop, ratio, size) in enumerate(numbers)
        ]
        found = cards.front_of(verdict.model_copy(update={"rows": tuple(rows)}))
        losses = numbers * [1, -1, 1]
        for number, mine in enumerate(losses):
            better = [other for other, its in enumerate(losses) if (its <= mine).all() and (its < mine).any()]
            name = found[str(number)]
            assert (name is None) == (not better)
            assert name is None or int(name.split()[0]) in better


def test_the_front_is_named_on_the_page(judged: Run, found: dict[str, Card], text: str) -> None:
    names = [name for name, card in found.items() if card.on_front]
    assert names
    assert len(names) < len(found)
    assert all(card.beaten_by for card in found.values() if not card.on_front)
    named = text.partition("On the front")[2].partition(": by what was measured")[0]
    assert all(name in named for name in names)
    assert text.count("on the front") == len(names) + 1  # and in the legend


def test_sizes_and_numbers_are_read_from_the_files(baseline: Candidate, exported: dict[str, Candidate]) -> None:
    expected = cost.cost("lenet5", classes=10, crop=32)
    network = making.network_of(baseline.artifact)
    assert network == making.Network(parameters=expected.parameters, macs=expected.macs)
    for candidate in (baseline, exported["onnx"], exported["openvino"]):
        assert making.weights_of(candidate.artifact) == {"FP32": 1.0}


def test_a_chain_that_was_built_is_told_as_it_was_built(baseline: Candidate, exported: dict[str, Candidate]) -> None:
    made = making.making_of(exported["int8@openvino"].artifact, baseline.artifact)
    assert made
    assert [(step.spelt, step.inserted) for step in made.steps] == [
        ("onnx", True), ("openvino", True), ("int8@openvino", False),
    ]  # fmt: skip
    assert made.unknown == 0
    assert made.seconds > 0
    assert making.source_of(exported["int8@openvino"].artifact) == baseline.artifact
    for chain in ("int8@openvino", "int8@onnxruntime"):
        assert making.weights_of(exported[chain].artifact)["INT8"] > 0.95
    assert making.weights_of(exported["bf16@openvino"].artifact)["FP16"] > 0.95
    kept = making.making_of(exported["int8@openvino"].artifact, exported["openvino"].artifact)
    assert kept
    assert [step.spelt for step in kept.steps] == ["int8@openvino"], "the cost since another baseline"


def test_files_of_another_kind_say_nothing(baseline: Candidate, tmp_path: Path) -> None:
    (tmp_path / "weights.safetensors").write_bytes(b"\xff" * 40)
    broken = baseline.artifact.model_copy(update={"directory": tmp_path})
    assert making.weights_of(broken) == {}
    assert making.weights_of(broken.model_copy(update={"directory": tmp_path / "gone"})) == {}
