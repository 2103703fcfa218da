"""The core: values that survive a round trip, errors that say what to do, plug-ins found by their names."""

from __future__ import annotations

import errno
import json
import os
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from pydantic import ValidationError

from torchstone.core import console, errors, files, machine, registry, run, values, verdict
from torchstone.core.errors import ArtifactError, ConfigError, MissingPackageError, StorageError
from torchstone.core.values import Artifact, Candidate, Finding, MadeBy, Preprocess, RuntimeOptions, Value

PREPROCESS = Preprocess(decoder_version="12.0", resize=36, crop=32)
ARTIFACT = Artifact(
    id="a" * 64,
    key="b" * 64,
    format="onnx",
    files={"model.onnx": "c" * 64},
    architecture="lenet5",
    classes=("cat", "dog"),
    preprocess=PREPROCESS,
    made_by=MadeBy(step="onnx", version=1, config={"opset": 18}),
    split_fingerprint="d" * 64,
)
CANDIDATE = Candidate(name="int8@openvino", artifact=ARTIFACT, runtime="openvino", options=RuntimeOptions(threads=2))
ACCURACY = verdict.AccuracyResult(
    part="test", images=100, baseline_top1=90, top1=89, lost=2, gained=1, drop=1, drop_upper=3, drop_lower=-1,
    agreement=95,
)  # fmt: skip
METRIC = verdict.MetricResult(name="auroc", baseline=99, value=98.5, difference=0.5, lower=0.1, upper=0.9)
SLICE = verdict.SliceResult(
    column="class", value="cat", images=40, lost=2, gained=1, drop=2.5, drop_upper=12.0, level=0.9875
)
TIMES = verdict.CallTimes(threads=1, batch=1, kind="request", calls=400, median_ms=3.0, p99_ms=4.0, p99_upper_ms=None)
SPEED = verdict.SpeedResult(rival="torch", rival_id="e" * 64, quartets=16, ratio=2.0, lower=1.9, upper=None)


def row(outcome: str, *, shortlisted: bool = True) -> verdict.CandidateVerdict:
    return verdict.CandidateVerdict.model_validate(
        {
            "candidate_id": "f" * 64, "slug": "x", "name": "x", "runtime": "torch", "options": RuntimeOptions(),
            "free": False, "shortlisted": shortlisted, "size_mb": 1.5, "level": 0.975,
            "accuracy": ACCURACY, "speed": SPEED,
            "decisions": [verdict.Decision(criterion="drop", outcome="pass", reason="because")],
            "outcome": outcome, "reason": "because",
        }
    )  # fmt: skip


def of_rows(*rows: verdict.CandidateVerdict) -> verdict.Verdict:
    return verdict.Verdict(
        budget=values.Budget(), test_fingerprint="a", test_images=100, look=1, level=0.975, control=None,
        rows=rows, shortlist=(), sentence="so it is", evidence={},
    )  # fmt: skip


SAMPLES: list[Value] = [
    Finding(check="cores", severity="warning", message="2 of 64", hint="do this", items=("a",), evidence={"host": 64}),
    values.Catalog(
        root="/data", reader="folder", classes=("a", "b"), images=3, fingerprint="x", table=Path("c.parquet")
    ),
    values.Split(seed=1, sizes={"train": 3, "test": 1}, fingerprint="a", test_fingerprint="b", table=Path("s.parquet")),
    PREPROCESS,
    values.InputSpec(layout="NCHW"),
    values.OutputSpec(class_offset=1),
    MadeBy(step="train", version=1),
    ARTIFACT,
    RuntimeOptions(threads=2, precision="bf16"),
    CANDIDATE,
    values.Budget(max_drop=0.5, min_speedup=2, max_latency_ms=5, max_size_mb=10),
    ACCURACY,
    METRIC,
    SLICE,
    TIMES,
    verdict.Portrait(times=(TIMES,), peak_mb=120.5, gzip_mb=2.5),
    SPEED,
    verdict.LatencyResult(median_ms=4.2, lower_ms=4.0, upper_ms=None),
    verdict.Decision(criterion="speedup", outcome="undecided", reason="the bound is 1.9"),
    row("pass"),
    verdict.ControlResult(
        quartets=32, ratio=1.0, interval95=(0.98, 1.02), interval999=None, outcome="clean", reason="it spans 1"
    ),
    verdict.Draws(bit_generator="PCG64", numpy="2.4.0", resamples=10_000, stream="5f0e"),
    of_rows(row("pass")),
]


@pytest.mark.parametrize("value", SAMPLES, ids=lambda value: type(value).__name__)
def test_a_value_survives_the_disk_and_cannot_be_changed(value: Value, tmp_path: Path) -> None:
    value.save(tmp_path / "value.json")
    again = type(value).load(tmp_path / "value.json")
    assert again == value
    assert again.digest() == value.digest()
    with pytest.raises(ValidationError, match="frozen"):
        value.schema_version = 2


def test_every_value_is_among_the_samples() -> None:
    here = {values.__name__, verdict.__name__}
    assert {kind for kind in Value.__subclasses__() if kind.__module__ in here} == {type(value) for value in SAMPLES}


@pytest.mark.parametrize("content", ['{"check": "x"}', '{"nonsense": 1}', "[1]"])
def test_a_stored_value_that_does_not_fit_names_its_file(content: str, tmp_path: Path) -> None:
    (tmp_path / "finding.json").write_text(content)
    with pytest.raises(ArtifactError, match=r"finding\.json.*Finding"):
        Finding.load(tmp_path / "finding.json")


@pytest.mark.parametrize(
    "wrong", [{"max_drop": 0}, {"max_drop": 100}, {"confidence": 1}, {"min_speedup": -1}, {"max_size_mb": float("nan")}]
)
def test_a_budget_out_of_range_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        values.Budget.model_validate(wrong)


def test_a_candidate_is_told_apart_by_artifact_runtime_and_options() -> None:
    others = [
        CANDIDATE.model_copy(update={"runtime": "onnxruntime"}),
        CANDIDATE.model_copy(update={"options": RuntimeOptions(threads=1)}),
        CANDIDATE.model_copy(update={"artifact": ARTIFACT.model_copy(update={"id": "0" * 64})}),
    ]
    assert len({candidate.id for candidate in [CANDIDATE, *others]}) == 4
    assert CANDIDATE.model_copy(update={"name": "renamed"}).id == CANDIDATE.id
    assert CANDIDATE.slug == f"int8-openvino-{CANDIDATE.id[:8]}"


@pytest.mark.parametrize(
    ("outcomes", "whole"),
    [
        (["fail", "pass", "void"], "pass"),
        (["fail", "undecided"], "undecided"),
        (["void", "undecided"], "void"),
        (["fail", "fail"], "fail"),
        ([], "fail"),
    ],
)
def test_the_outcome_of_a_run(outcomes: list[str], whole: str) -> None:
    rows = [row("baseline", shortlisted=False), *(row(outcome) for outcome in outcomes)]
    assert of_rows(*rows).outcome == whole


# errors


def test_an_error_prints_its_hint_and_knows_its_exit_code() -> None:
    assert str(ConfigError("unknown flag '--maxdrop'", hint="did you mean '--max-drop'?")) == (
        "unknown flag '--maxdrop'\nhint: did you mean '--max-drop'?"
    )
    assert str(ConfigError("no hint")) == "no hint"
    assert errors.TorchstoneError("ours").exit_code == 70
    assert {kind.exit_code for kind in errors.UserError.__subclasses__()} == {2}


def test_a_missing_package_names_the_extra_that_brings_it() -> None:
    assert MissingPackageError("step 'int8'", ["nncf", "onnx"]).hint == "pip install 'torchstone[openvino,train]'"


def test_a_package_of_several_extras_is_brought_by_the_one_that_is_meant() -> None:
    for missing, own, extras in (
        (["sqlalchemy"], "serve", "serve"),
        (["sqlalchemy"], None, "search"),
        (["sqlalchemy", "starlette"], None, "serve"),
        (["mlflow", "sqlalchemy", "alembic"], None, "track"),
        (["onnxruntime", "torch"], "serve", "serve,train"),
    ):
        assert MissingPackageError("it", missing, extra=own).hint == f"pip install 'torchstone[{extras}]'"


def test_every_extra_in_a_hint_is_one_of_pyproject() -> None:
    import tomllib

    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
    known = {extra for extras in errors.EXTRAS_OF_PACKAGE.values() for extra in extras}
    assert known <= set(project["optional-dependencies"])


def test_the_nearest_name_or_all_of_them() -> None:
    assert errors.nearest("resnet81", ["resnet18", "lenet5"]) == "did you mean 'resnet18'?"
    assert errors.nearest("resnet19", ["resnet9", "resnet18", "resnet20", "lenet5"]) == "did you mean 'resnet18'?"
    assert (
        errors.nearest("efficientnet_b9", ["efficientnet_b0", "efficientnet_b8"]) == "did you mean 'efficientnet_b8'?"
    )
    assert errors.nearest("zzz", ["b", "a"]) == "known: a, b"
    assert errors.nearest("zzz", []) == "none is known"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS])
def test_what_the_disk_refuses_is_told_in_words(code: int) -> None:
    error = errors.from_os_error(OSError(code, "refused", "/runs/x"))
    assert isinstance(error, StorageError)
    assert "/runs/x" in error.message
    assert error.hint
    assert errors.from_os_error(OSError(errno.EBADF, "ours")) is None


# registry


def test_an_unknown_plugin_suggests_the_nearest() -> None:
    with pytest.raises(ConfigError, match="unknown machine check 'corse'") as caught:
        registry.machine_checks.get("corse")
    assert caught.value.hint == "did you mean 'cores'?"


def test_a_plugin_whose_packages_are_missing_says_how_to_get_them() -> None:
    assert registry.machine_checks.ready("cores")
    with pytest.raises(MissingPackageError, match="machine check 'cores' needs no_such_package"):
        registry.machine_checks.ready("cores", "no_such_package", "json")


def test_class_names() -> None:
    assert registry.class_name("mnist_idx") == "MnistIdx"
    assert registry.class_name("int8") == "Int8"


def test_another_package_joins_by_an_entry_point_but_may_not_take_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def points(name: str) -> None:
        point = EntryPoint(name, "torchstone.doctor.cores:Cores", "torchstone.machine_checks")
        monkeypatch.setattr(registry, "_entry_points", lambda _: (point,))

    points("theirs")
    assert "theirs" in registry.machine_checks.names()
    assert type(registry.machine_checks.get("theirs")).__name__ == "Cores"
    points("memory")
    with pytest.raises(ConfigError, match="two machine checks are called 'memory'"):
        registry.machine_checks.names()


# machine


@pytest.mark.parametrize(
    ("content", "cores"),
    [
        ({"cpu.max": "200000 100000\n"}, 2),
        ({"cpu.max": "250000 100000\n"}, 2),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, 64),
        ({"cpu.max": "9900000 100000\n"}, 64),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 64),
        ({"cpu.max": "nonsense"}, 64),
        ({}, 64),
    ],
)
def test_usable_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: dict[str, str], cores: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    for name, text in content.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert machine.usable_cores(tmp_path) == cores


def test_the_environment_is_one_that_json_holds() -> None:
    environment = machine.summary()
    assert json.loads(json.dumps(environment)) == environment
    assert environment["packages"]["numpy"]
    assert environment["cores"] >= 1


# run


def artifact_in(directory: Path) -> Artifact:
    directory.mkdir(parents=True)
    (directory / "model.onnx").write_bytes(b"a model")
    artifact = ARTIFACT.model_copy(
        update={"files": {"model.onnx": files.sha256(directory / "model.onnx")}, "directory": directory}
    )
    artifact.save(directory / "artifact.json")
    return artifact


def test_candidates_are_found_again_after_the_run_was_moved(tmp_path: Path) -> None:
    old = run.Run(tmp_path / "old")
    artifact = artifact_in(old.artifacts / "key")
    old.save_candidates([CANDIDATE.model_copy(update={"artifact": artifact})])
    old.root.rename(tmp_path / "new")
    (candidate,) = run.Run(tmp_path / "new").load_candidates()
    assert candidate.artifact.directory == tmp_path / "new/artifacts/key"
    assert candidate.artifact.size_mb == 7e-6
    assert (candidate.name, candidate.options) == (CANDIDATE.name, CANDIDATE.options)


def test_an_artifact_that_was_changed_is_refused(tmp_path: Path) -> None:
    directory = artifact_in(tmp_path / "key").directory
    assert run.load_artifact(directory).files
    (directory / "model.onnx").write_bytes(b"another")
    with pytest.raises(ArtifactError, match="sha256 differs"):
        run.load_artifact(directory)
    (directory / "model.onnx").unlink()
    with pytest.raises(ArtifactError, match="is missing"):
        run.load_artifact(directory)
    with pytest.raises(ArtifactError, match="not a directory"):
        run.load_artifact(tmp_path / "nothing")
    with pytest.raises(ArtifactError, match="does not lie in a run"):
        run.run_of(ARTIFACT.model_copy(update={"directory": directory}))


def test_file_names_of_any_text() -> None:
    assert run.slug("prune=0.3+int8 @x/..") == "prune=0.3-int8-x"
    assert run.slug("...") == "run"


# console


def test_the_answer_and_the_talk_go_to_different_places(capsys: pytest.CaptureFixture[str]) -> None:
    console.say("training [1/3]")
    assert list(console.track(range(3), "reading")) == [0, 1, 2]
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "training [1/3]\n"
    console.be_quiet()
    try:
        console.say("not heard")
    finally:
        console.be_quiet(False)
    assert capsys.readouterr().err == ""


def test_what_was_said_is_kept_in_a_file_that_the_environment_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(console.LOG, str(tmp_path / "said.log"))
    console.say("training [1/3]")
    console.say("done")
    first, second = (tmp_path / "said.log").read_text().splitlines()
    assert first.endswith(" training [1/3]")
    assert second.endswith(" done")
    monkeypatch.setenv(console.LOG, str(tmp_path / "nowhere" / "said.log"))
    console.say("work goes on where it cannot be written")


def test_long_work_leaves_lines_in_a_log(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "LOG_SECONDS", -1.0)
    assert list(console.track(iter("abc"), "reading", 3)) == ["a", "b", "c"]
    assert capsys.readouterr().err == "reading: 0 of 3\nreading: 1 of 3\nreading: 2 of 3\n"
