"""Of stored answers: macro F1 by the predictions, AUROC and calibration by the scores, bounded as a run's are."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stored_run import World

from torchstone.core import files, tables
from torchstone.core.errors import DataError
from torchstone.core.values import Budget, Metric
from torchstone.core.verdict import MetricResult
from torchstone.judge import bootstrap, evidence_directory, select
from torchstone.judge.evidence import Evidence
from torchstone.judge.evidence_directory import verify
from torchstone.judge.external import EvidenceVerdict
from torchstone.judge.verdict import judge
from torchstone.stages.judge_evidence import judge_evidence

IMAGES = 400


def written(path: Path, scores: np.ndarray, *, head: str = "prob", names: Sequence[str] = ("rose", "lily")) -> Path:
    """Scores of items of two classes in turns, a column a class."""
    rows = [f"{n},{('lily', 'rose')[n % 2]}," + ",".join(f"{one:.9g}" for one in row) for n, row in enumerate(scores)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([",".join(["id", "y_true", *(f"{head}_{name}" for name in names)]), *rows]))
    return path


def probabilities(of_rose: np.ndarray) -> np.ndarray:
    return np.stack([of_rose, 1 - of_rose], axis=1)


def sure(wrong: int, confidence: float) -> np.ndarray:
    """Probabilities of rose of a model that is as sure of all, and wrong of the first ``wrong``."""
    rose = np.arange(IMAGES) % 2 == 1
    rose[:wrong] = ~rose[:wrong]
    return np.where(rose, confidence, 1 - confidence)


def numbers(found: MetricResult | None) -> list[float]:
    """Both models' values, the difference, and its bounds, all of which there must be."""
    assert found is not None
    assert found.lower is not None
    assert found.upper is not None
    return [found.baseline, found.value, found.difference, found.lower, found.upper]


def judged(tmp_path: Path, metric: Metric, before: np.ndarray, after: np.ndarray, **options: Any) -> EvidenceVerdict:
    base, candidate = (
        written(tmp_path / name, probabilities(one)) for name, one in (("a.csv", before), ("b.csv", after))
    )
    return judge_evidence(base, [candidate], Budget(metric=metric, **options))


def test_macro_f1_by_hand(tmp_path: Path) -> None:
    """20 lilies and 10 roses; one of the roses is taken for a lily: F1 of lilies is 40/41, of roses 18/19."""
    for name, last in (("a", "rose"), ("b", "lily")):
        rows = [
            f"{n},{'rose' if n < 10 else 'lily'},{'rose' if n < 9 else last if n == 9 else 'lily'}" for n in range(30)
        ]
        (tmp_path / f"{name}.csv").write_text("\n".join(["id,label,prediction", *rows]))
    found = judge_evidence(tmp_path / "a.csv", [tmp_path / "b.csv"], Budget(metric="macro_f1", max_drop=50))
    before, after, lost, least, most = numbers(found.rows[1].metric)
    assert (before, after) == (100, pytest.approx(100 * (40 / 41 + 18 / 19) / 2))
    assert lost == pytest.approx(100 - after)
    assert least < lost < most < 50
    assert found.outcome == "pass"
    assert "points of macro F1" in found.rows[1].reason
    assert "Macro F1 alone was judged" in found.sentence
    assert found.draws == bootstrap.draws()
    baseline = found.rows[0].metric
    assert baseline is not None
    assert (baseline.difference, baseline.upper) == (0, None)
    smaller = judge_evidence(tmp_path / "a.csv", [tmp_path / "b.csv"], Budget(metric="macro_f1", max_drop=0.1))
    assert (smaller.outcome, smaller.look) == ("undecided", 2), "another question"


def test_auroc_and_calibration_by_hand(tmp_path: Path) -> None:
    """A model that is sure of 90 % and wrong of one in ten is calibrated, and of its pairs of classes ranks 81 % right,
    1 % wrong and 18 % alike; sure of 60 % it ranks as well and is 30 points off."""
    before, after = sure(IMAGES // 10, 0.9), sure(IMAGES // 10, 0.6)
    ece = judged(tmp_path, "ece", before, after, max_drop=5).rows[1]
    assert ece.metric is not None
    assert (ece.metric.baseline, ece.metric.value) == (pytest.approx(0, abs=1e-9), pytest.approx(30))
    assert (ece.outcome, ece.accuracy and ece.accuracy.drop) == ("fail", 0.0)
    auroc = judged(tmp_path, "auroc", before, after, max_drop=5).rows[1]
    assert auroc.metric is not None
    assert (auroc.metric.baseline, auroc.metric.value) == (pytest.approx(90), pytest.approx(90))
    assert auroc.outcome == "pass"


def test_logits_and_probabilities_say_the_same(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    logits = random.normal(0, 2, (IMAGES, 2))
    likely = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    base = written(tmp_path / "base.csv", probabilities(sure(3, 0.8)))
    found = []
    for name, head, values, order in (
        ("p", "prob", likely, ("rose", "lily")),
        ("l", "logit", logits, ("rose", "lily")),
        ("turned", "score", logits[:, ::-1], ("lily", "rose")),
    ):
        path = written(tmp_path / f"{name}.csv", values, head=head, names=order)
        found.append(judge_evidence(base, [path], Budget(metric="ece"), ledger_dir=tmp_path / name).rows[1])
    for row in found[1:]:
        assert numbers(row.metric) == pytest.approx(numbers(found[0].metric), abs=1e-5)
    assert found[1].answers_id == found[2].answers_id != found[0].answers_id


def test_other_scores_are_another_question_where_they_count(tmp_path: Path) -> None:
    base = written(tmp_path / "base.csv", probabilities(sure(3, 0.8)))
    ones = [written(tmp_path / f"{k}.csv", probabilities(sure(3, 0.7 + k / 10))) for k in range(2)]
    assert [judge_evidence(base, [one], Budget(metric="auroc")).look for one in (*ones, *ones)] == [1, 2, 1, 2]
    assert [judge_evidence(base, [one], Budget()).look for one in ones] == [3, 3]


@pytest.mark.parametrize(
    ("values", "head", "names", "said"),
    [
        (probabilities(sure(0, 0.9)) * 0.5, "prob", ("rose", "lily"), "neither probabilities"),
        (np.full((IMAGES, 2), (0.9, 0.8)), "score", ("rose", "lily"), r"add up to 1\.7"),
        (np.full((IMAGES, 2), (4.0, -3.0)), "probability", ("rose", "lily"), "neither probabilities"),
        (probabilities(sure(0, 0.9)), "prob", ("rose", "tulip"), "'lily' is none of the 2 classes"),
    ],
)
def test_scores_that_cannot_be_understood_are_refused(
    values: np.ndarray, head: str, names: Sequence[str], said: str, tmp_path: Path
) -> None:
    base = written(tmp_path / "base.csv", probabilities(sure(3, 0.8)))
    bad = written(tmp_path / "bad.csv", values, head=head, names=names)
    with pytest.raises(DataError, match=said) as caught:
        judge_evidence(base, [bad], Budget(metric="ece"))
    assert caught.value.hint
    assert not (tmp_path / "ledger").exists(), "what cannot be judged is no look"


def test_without_scores_the_true_reason_is_given(tmp_path: Path) -> None:
    base = written(tmp_path / "base.csv", probabilities(sure(3, 0.8)))
    bare, fewer = tmp_path / "bare.csv", tmp_path / "fewer.csv"
    bare.write_text("\n".join(["id,y_pred", *(f"{n},{('lily', 'rose')[n % 2]}" for n in range(IMAGES))]))
    fewer.write_text("\n".join(["id,score_lily,score_tulip", *(f"{n},0.5,0.5" for n in range(IMAGES))]))
    for metric in ("auroc", "ece"):
        with pytest.raises(
            DataError, match=r"made of scores, and '.*bare\.csv' has none: its column 'y_pred'"
        ) as caught:
            judge_evidence(base, [bare], Budget(metric=metric))
        assert "macro_f1" in str(caught.value.hint)
    assert judge_evidence(base, [bare], Budget(metric="macro_f1", max_drop=50)).outcome == "pass"
    with pytest.raises(DataError, match=r"fewer\.csv' has no scores of 'rose', of which there are labels"):
        judge_evidence(base, [fewer], Budget(metric="auroc"))


def test_the_bounds_are_those_of_the_same_candidate_inside_its_run(ladder: World, tmp_path: Path) -> None:
    number = 5
    pair = [ladder.candidates[0], ladder.candidates[number]]
    for one in pair:
        ladder.predict(one, "test")
    paths = [ladder.run.predictions(one, "test") for one in pair]
    evidence = Evidence(ladder.run)
    metrics: tuple[Metric, ...] = ("macro_f1", "auroc", "ece")
    for metric in metrics:
        budget = Budget(metric=metric, max_drop=3.0)
        shortlist = select.named(ladder.candidates, [pair[1].id])
        inside = judge(ladder.run, ladder.candidates, shortlist, budget, 1, evidence=evidence)
        outside = judge_evidence(paths[0], paths[1:], budget, ledger_dir=tmp_path / metric).rows[1]
        expected = inside.metric(inside.rows[number])
        assert numbers(outside.metric) == pytest.approx(numbers(expected), rel=1e-9)
        assert outside.decision == inside.rows[number].decisions[0]


METRICS: tuple[Metric, ...] = ("macro_f1", "ece")


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> dict[Metric, Path]:
    """By metric, an evidence directory of two candidates, with nothing left of the files they came from."""
    root = tmp_path_factory.mktemp("kept")
    one, *others = (written(root / "came" / f"{k}.csv", probabilities(sure(3 + k, 0.8 - k / 50))) for k in range(3))
    for metric in METRICS:
        judge_evidence(one, others, Budget(metric=metric, max_drop=9), unordered=True, out=root / metric)
    shutil.rmtree(root / "came")
    return {metric: root / metric for metric in METRICS}


@pytest.fixture(params=METRICS)
def place(request: pytest.FixtureRequest, kept: dict[Metric, Path], tmp_path: Path) -> Path:
    shutil.copytree(kept[request.param], tmp_path / "evidence")
    return tmp_path / "evidence"


def test_the_directory_carries_the_metric_and_is_verified(place: Path) -> None:
    stored = EvidenceVerdict.load(place / "verdict.json")
    assert all(row.metric is not None and row.metric.name == stored.budget.metric for row in stored.rows)
    assert verify(place) == []
    table, _ = tables.read(place / "candidate-1.parquet")
    assert ("scores" in table.columns) == (stored.budget.metric == "ece")


def test_an_altered_metric_is_found(place: Path) -> None:
    content = json.loads((place / "verdict.json").read_text())
    content["rows"][1]["metric"]["upper"] += 0.001
    files.write_json(place / "verdict.json", content)
    assert {(one.row.endswith("1.csv"), one.field) for one in verify(place)} == {(True, "metric.upper")}


@pytest.mark.parametrize("place", ["ece"], indirect=True)
def test_an_altered_score_is_found_though_its_digest_was_changed_with_it(place: Path) -> None:
    path = place / "candidate-2.parquet"
    table, header = tables.read(path)
    scores = np.array(table["scores"].to_list())
    scores[40] = (0.3, 0.7) if scores[40, 0] < scores[40, 1] else (0.7, 0.3)
    columns = {name: table[name].to_list() for name in table.columns if name != "scores"}
    tables.write(path, tables.frame({**columns, "scores": scores}), header)
    content = json.loads((place / "verdict.json").read_text())
    content["evidence"][path.name] = files.sha256(path)
    files.write_json(place / "verdict.json", content)
    assert {"answers_id", "metric.value", "metric.upper"} <= {one.field for one in verify(place)}


def test_bounds_of_another_numpy_are_taken_as_they_are(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = bootstrap.draws()
    metric = EvidenceVerdict.load(place / "verdict.json").budget.metric
    monkeypatch.setattr(bootstrap, "draws", lambda: now.model_copy(update={"numpy": "9.0", "stream": "another"}))
    monkeypatch.setattr(bootstrap, "_draw", None)
    found = evidence_directory.verify(place)
    assert {(one.field, one.cannot is not None) for one in found} == {(f"the bounds of {metric}", True)}
    assert len(found) == 2


def test_where_the_images_define_no_auroc_nothing_is_claimed(tmp_path: Path) -> None:
    rows = [f"{n},rose,0.8,0.2" for n in range(IMAGES)]
    for name in "ab":
        (tmp_path / f"{name}.csv").write_text("\n".join(["id,label,prob_rose,prob_lily", *rows]))
    found = judge_evidence(tmp_path / "a.csv", [tmp_path / "b.csv"], Budget(metric="auroc"))
    assert (found.outcome, found.rows[1].metric, found.draws) == ("undecided", None, None)
    assert "do not bound it" in found.rows[1].reason
