"""What ``evaluate`` writes down can be judged by itself: the way from two models to a verdict without a run."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest

from torchstone.cli import _answers
from torchstone.core import tables
from torchstone.core.errors import ConfigError
from torchstone.core.run import Run
from torchstone.core.values import Artifact, Budget, Candidate
from torchstone.evaluate import metrics, predict
from torchstone.export import bundle
from torchstone.judge import ledger
from torchstone.stages import compress, find
from torchstone.stages.evaluate import evaluate
from torchstone.stages.judge_evidence import judge_evidence
from torchstone.stages.read import Data, opened


@pytest.fixture(scope="module")
def bundled(baseline: Candidate, data: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ONNX export of the small network, away from its run."""
    (exported,) = compress.build_all(compress.plan_all(["onnx"]), baseline, data, seed=0)
    return bundle.write(exported, None, tmp_path_factory.mktemp("bundles") / "next")


def test_a_bundle_and_a_model_answer_other_images_and_are_judged(
    baseline: Candidate, bundled: Path, tmp_path: Path
) -> None:
    models = {"old": str(baseline.artifact.directory), "new": str(bundled)}
    files = {name: tmp_path / f"{name}.parquet" for name in models}
    found = {name: evaluate(model, "digits", None, files[name]) for name, model in models.items()}
    assert found["new"]["runtime"] == "onnxruntime"
    table, header = tables.read(files["old"])
    assert tuple(header["classes"]) == baseline.artifact.classes
    predicted = metrics.predicted_classes(table["scores"].to_numpy())
    assert metrics.top1(table["label"].to_numpy(), predicted) == pytest.approx(found["old"]["top1"])
    assert header["metrics"] == {name: found["old"][name] for name in header["metrics"]}
    likely = metrics.softmax(table["scores"].to_numpy())
    assert header["metrics"]["auroc"] == pytest.approx(metrics.auroc(table["label"].to_numpy(), likely))
    assert header["metrics"]["ece"] == pytest.approx(metrics.ece(table["label"].to_numpy(), likely), abs=1e-6)
    verdict = judge_evidence(files["old"], [files["new"]], Budget(max_drop=0.5))
    row = verdict.rows[1]
    assert row.accuracy is not None
    assert (verdict.outcome, row.accuracy.images) == ("pass", 1797)
    assert row.accuracy.top1 == pytest.approx(100 * found["new"]["top1"])
    assert set(verdict.classes) == set(baseline.artifact.classes)


def test_models_whose_classes_stand_in_another_order_are_compared_by_name(tmp_path: Path) -> None:
    rows = np.arange(30)
    labels = rows % 3
    scores = np.eye(3, dtype=np.float32)[labels]
    for name, order in (("a", [0, 1, 2]), ("b", [2, 0, 1])):
        place = np.argsort(order)
        table = tables.frame(
            {
                "item": [f"{row}.png" for row in rows],
                "label": place[labels].astype(np.int32),
                "scores": scores[:, order],
            }
        )
        tables.write(tmp_path / f"{name}.parquet", table, {"classes": [("cat", "dog", "emu")[k] for k in order]})
    found = judge_evidence(tmp_path / "a.parquet", [tmp_path / "b.parquet"], Budget(max_drop=50))
    assert found.rows[1].accuracy is not None
    assert (found.rows[1].accuracy.agreement, found.rows[1].accuracy.top1) == (100.0, 100.0)


def test_a_figure_on_test_is_a_look_that_is_counted_once(
    data: Data, trained: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a copy: the looks of the shared run are those of other tests."""
    monkeypatch.setattr("torchstone.stages.evaluate._speed", lambda *_: {})  # the clock is not what this is about
    runs = tmp_path / "runs"
    copy = Run(runs / "copy")
    shutil.copytree(data.run.data, copy.data)
    shutil.copytree(trained.directory, copy.artifacts / trained.directory.name)
    model = str(copy.artifacts / trained.directory.name)
    tests = data.split.test_fingerprint
    evaluate(model, None, "val")
    assert ledger.looks(copy.ledger, tests) == 0
    found = evaluate(model, None, "test")
    assert "this is look 1 at these 648 test images" in capsys.readouterr().err
    assert (found["look"], found["level"], found["images"]) == (1, 0.975, 648)
    assert evaluate(model, None, "test") == found
    assert ledger.looks(copy.ledger, tests) == 1
    assert "look" not in capsys.readouterr().err
    z, n, share = NormalDist().inv_cdf(0.975), 648, found["top1"]
    middle, reach = share + z * z / (2 * n), z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    assert found["top1_at_least"] == pytest.approx((middle - reach) / (1 + z * z / n)), "Wilson's bound"
    assert _answers.evaluation({**found, "latency_ms": 1.0, "latency_32_ms": 1.0}, json=False) == 0
    assert f"at least {100 * found['top1_at_least']:.2f} (look 1 at 97.5 %)" in capsys.readouterr().out


def test_a_model_that_a_judgement_has_shown_the_test_images_needs_no_further_look(
    data: Data, trained: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torchstone.stages.evaluate._speed", lambda *_: {})
    copy = Run(tmp_path / "runs" / "copy")
    shutil.copytree(data.run.data, copy.data)
    shutil.copytree(trained.directory, copy.artifacts / trained.directory.name)
    own = find.baseline_of(find.find_artifact(str(copy.root)))
    here = opened(copy)
    predict.predict(own, here.split, "test", here.sets(own.artifact, "test")["test"], copy.predictions(own, "test"))
    found = evaluate(str(copy.root), None, "test")
    assert "look" not in found
    assert ledger.looks(copy.ledger, here.split.test_fingerprint) == 0


def test_predictions_are_written_as_parquet(baseline: Candidate, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"written as Parquet, not as 'x\.csv'"):
        evaluate(str(baseline.artifact.directory), None, "val", tmp_path / "x.csv")
