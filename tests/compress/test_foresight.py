"""What a dry run foresees: the baseline's epochs, what steps took, what is shared, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from built import made

from torchstone.compress import chain
from torchstone.compress.foresight import Foreseen, Foresight
from torchstone.core import files, tables
from torchstone.core.run import Run
from torchstone.core.values import Artifact, Candidate, MadeBy
from torchstone.stages.compress import foresee
from torchstone.stages.read import Data


def foreseen(baseline: Candidate, run: Run, *chains: str) -> list[Foreseen]:
    return Foresight(baseline.artifact, run, 0).of([chain.plan(text, check_packages=False) for text in chains])


def told(one: Foreseen) -> list[tuple[str, float | None, str]]:
    return [(str(step.planned), step.expected.seconds, step.expected.basis) for step in one.steps]


@pytest.fixture
def empty(tmp_path: Path) -> Run:
    """Nothing has been built here."""
    return Run(tmp_path / "empty")


def stored(run: Run, baseline: Candidate, text: str, config: dict[str, object], seconds: float) -> None:
    """An artifact as if the last step of ``text`` had taken so long."""
    planned = chain.plan(text, check_packages=False).steps[-1]
    made_by = MadeBy(
        step=planned.name, version=planned.step.version, config=config or planned.config.model_dump(mode="json")
    )
    place = run.artifacts / files.digest([text, config, seconds])[:8]
    place.mkdir(parents=True)
    artifact = baseline.artifact.model_copy(update={"chain": text, "made_by": made_by, "seconds": seconds})
    artifact.save(place / "artifact.json")


def test_what_trains_takes_the_baselines_epochs(baseline: Candidate, empty: Run) -> None:
    history, _ = tables.read(baseline.artifact.directory / "history.parquet")
    epoch = float(history["seconds"].median())  # pyright: ignore[reportArgumentType]
    one, other = foreseen(baseline, empty, "finetune=3", "prune=0.3+distill=2:views=1")
    assert one.seconds == pytest.approx(3 * epoch)
    assert not one.at_least
    assert other.steps[0].expected.seconds is None
    assert other.steps[1].expected.seconds == pytest.approx(2 * epoch)
    assert other.steps[1].expected.at_least, "the teacher's answers come on top"
    assert other.seconds == pytest.approx(2 * epoch)
    assert other.at_least


def test_where_the_baseline_has_no_epochs_those_of_its_descendants_count(
    baseline: Candidate, empty: Run, tmp_path: Path
) -> None:
    probed = baseline.model_copy(update={"artifact": baseline.artifact.model_copy(update={"directory": tmp_path})})
    foresight = Foresight(probed.artifact, empty, 0)
    plans = [chain.plan("resolution=24:epochs=2", check_packages=False)]
    assert foresight.of(plans)[0].seconds is None
    stored(empty, baseline, "prune=0.3+finetune=2", {}, 9.0)
    (place,) = empty.artifacts.iterdir()
    tables.write(place / "history.parquet", tables.frame({"epoch": [1, 2, 3], "seconds": [5.0, 3.0, 4.0]}), {})
    (step,) = foresight.of(plans)[0].steps
    assert (step.expected.seconds, step.expected.basis) == (8.0, "the epochs of what this run has trained, 4 s each")
    foreign = Artifact.load(place / "artifact.json").model_copy(update={"architecture": "another"})
    foreign.save(place / "artifact.json")
    assert foresight.of(plans)[0].seconds is None


def test_nobody_knows_another_networks_epochs(baseline: Candidate, empty: Run) -> None:
    (one,) = foreseen(baseline, empty, "student=resnet20:epochs=2+onnx")
    assert told(one)[0] == ("student=resnet20:epochs=2", None, "nothing in this run")
    assert one.seconds is None


def test_without_a_trained_model_nothing_is_known(empty: Run) -> None:
    (one,) = Foresight(None, empty, 0).of([chain.plan("finetune=2+int8@openvino", check_packages=False)])
    assert {step.expected.seconds for step in one.steps} == {None}
    assert one.seconds is None


def test_what_a_step_took_is_what_it_takes(baseline: Candidate, empty: Run) -> None:
    stored(empty, baseline, "int8@openvino", {}, 8.0)
    stored(empty, baseline, "int8=64@openvino", {}, 4.0)
    stored(empty, baseline, "int8:max_drop=0.3@openvino", {}, 300.0)
    stored(empty, baseline, "int8@onnxruntime", {}, 1.0)
    same, other, rescued, else_where = (
        foreseen(baseline, empty, text)[0].steps[-1].expected
        for text in ("int8@openvino", "int8=32@openvino", "int8:max_drop=0.5@openvino", "int8=32@onnxruntime")
    )
    assert (same.seconds, same.basis) == (8.0, "the same step in this run")
    assert (other.seconds, other.basis) == (6.0, "the same step with other options")
    assert rescued.seconds == 300.0, "what chooses layers on val is compared with its like"
    assert else_where.seconds == 1.0


def test_common_beginnings_are_counted_once(baseline: Candidate, empty: Run) -> None:
    first, second = foreseen(baseline, empty, "finetune=2+int8@openvino", "finetune=2+onnx+openvino")
    assert [step.shared_with for step in first.steps] == [None] * 4
    assert [step.shared_with for step in second.steps] == [0, 0, 0]
    assert second.seconds == 0.0
    assert [(step.takes, step.makes) for step in first.steps] == [
        ("torch", "torch"), ("torch", "onnx"), ("onnx", "openvino"), ("openvino", "openvino"),
    ]  # fmt: skip
    assert first.steps[0].needs.epochs == 2
    assert (first.steps[0].val, first.steps[3].val) == (True, False)
    assert first.steps[3].needs.calibration == 128


def test_what_stands_takes_no_time(baseline: Candidate, data: Data) -> None:
    made("onnx", baseline, data)
    (one,) = foreseen(baseline, data.run, "onnx")
    assert told(one) == [("onnx", 0.0, "is built already")]
    assert one.seconds == 0.0


def test_what_may_not_be_meant_is_said_before_anything_is_built(
    baseline: Candidate, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(baseline.artifact.directory)
    foresee(model, ["qat=2+onnx", "student=lenet5:epochs=3", "qat=2+int8", "student=resnet20"])
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
    assert len(said) == 2, said
    assert "qat=2+onnx: 'qat' makes nothing smaller or faster" in said[0]
    assert "the student is the network that teaches it, 'lenet5'" in said[1]
