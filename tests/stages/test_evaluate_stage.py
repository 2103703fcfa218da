"""What ``evaluate`` writes down can be judged by itself: the way from two models to a verdict without a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from torchstone.core import tables
from torchstone.core.errors import ConfigError
from torchstone.core.values import Budget, Candidate
from torchstone.evaluate import metrics
from torchstone.export import bundle
from torchstone.stages import compress
from torchstone.stages.evaluate import evaluate
from torchstone.stages.judge_evidence import judge_evidence
from torchstone.stages.read import Data


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


def test_predictions_are_written_as_parquet(baseline: Candidate, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"written as Parquet, not as 'x\.csv'"):
        evaluate(str(baseline.artifact.directory), None, "val", tmp_path / "x.csv")
