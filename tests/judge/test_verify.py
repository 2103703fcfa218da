"""Whatever is changed after the verdict is found and named; nothing that is changed ends in a traceback."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from stored_run import World, write_catalog
from test_verdict import judged

from torchstone.core import files, tables
from torchstone.core.errors import ArtifactError
from torchstone.core.values import Budget
from torchstone.judge import bootstrap, select
from torchstone.judge.differences import Mismatch
from torchstone.judge.stream import Stream
from torchstone.judge.verdict import judge
from torchstone.judge.verify import verify

INT8 = 5
"""Place of int8@openvino, the winner, among the candidates."""


@pytest.fixture(scope="session")
def stored_run(stored_ladder: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    """A finished run with its verdict and a bundle of the winner."""
    ladder = stored_ladder.copy(tmp_path_factory.mktemp("done"))
    verdict = judged(ladder, Budget(max_drop=1.0, min_speedup=2.0))
    assert verdict.winner == ladder.candidates[INT8].id
    verdict.save(ladder.run.verdict)
    bundle = ladder.run.bundle
    files.link_or_copy(ladder.candidates[INT8].artifact.directory / "model.onnx", bundle / "model.onnx")
    files.write_bytes(bundle / "golden" / "00.jpg", b"not really a picture")
    names = ["model.onnx", "golden/00.jpg"]
    files.write_json(bundle / "manifest.json", {name: files.sha256(bundle / name) for name in names})
    return ladder


@pytest.fixture
def done(stored_run: World, tmp_path: Path) -> World:
    """A copy of the finished run, to be damaged."""
    return stored_run.copy(tmp_path)


def found(world: World) -> dict[tuple[str, str], Mismatch]:
    return {(mismatch.row, mismatch.field): mismatch for mismatch in verify(world.run)}


def change_predictions(world: World, number: int, part: str, change: Callable[[np.ndarray, np.ndarray], None]) -> str:
    """Rewrite one candidate's scores as a well-formed file; its name in the evidence."""
    path = world.run.predictions(world.candidates[number], part)  # type: ignore[arg-type]
    table, header = tables.read(path)
    scores, labels = table["scores"].to_numpy().copy(), table["label"].to_numpy().copy()
    change(scores, labels)
    tables.write(path, tables.frame({"item": table["item"], "label": labels, "scores": scores}), header)
    return path.relative_to(world.run.root).as_posix()


def change_verdict(world: World, row: str | None, path: tuple, value: object) -> None:
    """Set one field of a row of the stored verdict, or of the verdict itself."""
    content = json.loads(world.run.verdict.read_text())
    place = content if row is None else next(one for one in content["rows"] if one["name"] == row)
    for key in path[:-1]:
        place = place[key]
    assert place[path[-1]] != value
    place[path[-1]] = value
    files.write_json(world.run.verdict, content)


def test_a_fresh_run_verifies(done: World) -> None:
    assert verify(done.run) == []


def test_a_named_shortlist_verifies_too(ladder: World) -> None:
    order = [ladder.candidates[number].id for number in (6, 1)]
    ladder.time("judged", 16)
    for number in (0, 6):
        ladder.predict(ladder.candidates[number], "test")
    shortlist = select.named(ladder.candidates, order)
    judge(ladder.run, ladder.candidates, shortlist, Budget(max_drop=1.0), 2).save(ladder.run.verdict)
    assert verify(ladder.run) == []


def test_an_unordered_set_with_slices_in_groups_verifies_and_a_changed_catalog_is_found(ladder: World) -> None:
    write_catalog(ladder.run, groups=5)
    order = [ladder.candidates[number].id for number in (6, 1)]
    for number in (0, 6, 1):
        ladder.predict(ladder.candidates[number], "test")
    shortlist = select.named(ladder.candidates, order, "holm")
    budget = Budget(max_drop=3.0, metric="ece")
    judge(ladder.run, ladder.candidates, shortlist, budget, 2, ["format"]).save(ladder.run.verdict)
    assert set(found(ladder)) == {("bundle", "bundle")}  # none was written
    write_catalog(ladder.run, groups=4)
    mismatches = found(ladder)
    assert ("verdict", "data/catalog.parquet") in mismatches
    assert ("onnx@onnxruntime", "accuracy.groups") in mismatches


def test_one_changed_prediction_is_found_and_its_numbers_are_named(done: World) -> None:
    def flip(scores: np.ndarray, labels: np.ndarray) -> None:
        right = np.flatnonzero(scores.argmax(axis=1) == labels)[0]
        scores[right] = np.roll(scores[right], 1)

    name = change_predictions(done, INT8, "test", flip)
    mismatches = found(done)
    assert mismatches["int8@openvino", name].stored != mismatches["int8@openvino", name].recomputed
    lost = mismatches["int8@openvino", "accuracy.lost"]
    assert int(lost.recomputed) == int(lost.stored) + 1
    assert {row for row, _ in mismatches} <= {"int8@openvino", "verdict"}
    assert "int8@openvino: accuracy.lost is 3, recomputed 4" in map(str, mismatches.values())


def test_a_changed_score_that_flips_nothing_is_found(done: World) -> None:
    def nudge(scores: np.ndarray, labels: np.ndarray) -> None:
        scores[5, scores[5].argmin()] -= np.float32(1e-3)

    name = change_predictions(done, INT8, "test", nudge)
    assert set(found(done)) == {("int8@openvino", name)}


def test_a_changed_val_prediction_of_one_that_was_not_tested_is_found(done: World) -> None:
    def flip(scores: np.ndarray, labels: np.ndarray) -> None:
        scores[:] = np.roll(scores, 1, axis=1)

    change_predictions(done, 4, "val", flip)
    assert ("int8@onnxruntime", "accuracy.top1") in found(done)


@pytest.mark.parametrize("number", [0, INT8])
def test_one_changed_timing_is_found(done: World, number: int) -> None:
    candidate = done.candidates[number]
    rows = [list(row) for row in done.timings(candidate)]
    rows[-8][8] *= 1.0001
    done.write_timings(candidate, rows)
    place = done.run.timings(candidate).relative_to(done.run.root).as_posix()
    assert (candidate.name, place) in found(done)


def test_changed_times_change_the_ratio_by_name(done: World) -> None:
    candidate = done.candidates[INT8]
    rows = [list(row) for row in done.timings(candidate)]
    for changed in rows:
        changed[8] *= 0.5 if changed[6] == "candidate" else 1
    done.write_timings(candidate, rows)
    fields = {field for row, field in found(done) if row == candidate.name}
    assert {"speed.ratio", "speed.lower", "latency.median_ms", "throughput"} <= fields


@pytest.mark.parametrize(
    ("row", "path", "value"),
    [
        ("int8@openvino", ("accuracy", "drop_upper"), 0.01),
        ("int8@openvino", ("accuracy", "keeps_99"), "refuted"),
        ("int8@openvino", ("metrics", 1, "upper"), 0.01),
        ("int8@openvino", ("metrics", 3, "difference"), -5.0),
        ("int8@openvino", ("slices", 0, "drop_upper"), 0.01),
        ("int8@openvino", ("level",), 0.9),
        ("int8@openvino", ("speed", "lower"), 99.0),
        ("int8@openvino", ("outcome",), "fail"),
        ("int8@openvino", ("decisions", 0, "reason"), "perfect"),
        ("int8@onnxruntime", ("reason",), "did not feel like it"),
        ("torch", ("size_mb",), 1.0),
        ("torch", ("latency", "median_ms"), 40.0),
        (None, ("winner",), None),
        (None, ("level",), 0.95),
        (None, ("procedure",), "holm"),
        (None, ("sentence",), "Ship it."),
        (None, ("test_images",), 100_000),
        (None, ("control", "ratio"), 1.01),
        (None, ("worth_compressing",), False),
    ],
)
def test_a_number_changed_in_the_verdict_is_found(done: World, row: str | None, path: tuple, value: object) -> None:
    change_verdict(done, row, path, value)
    fields = {field for name, field in found(done) if name == (row or "verdict")}
    assert any(field.startswith(str(path[0])) for field in fields)


def test_a_changed_missing_or_added_file_of_the_bundle_is_found(done: World) -> None:
    bundle = done.run.bundle
    files.write_bytes(bundle / "golden" / "00.jpg", b"another picture")
    files.write_bytes(bundle / "golden" / "01.jpg", b"one more")
    (bundle / "model.onnx").unlink()
    mismatches = found(done)
    assert set(mismatches) == {("bundle", "golden/00.jpg"), ("bundle", "golden/01.jpg"), ("bundle", "model.onnx")}
    assert mismatches["bundle", "model.onnx"].recomputed == "missing"
    assert mismatches["bundle", "golden/01.jpg"].stored == "not in the manifest"


def test_a_bundle_that_holds_another_model_than_the_winner_is_found(done: World) -> None:
    files.write_bytes(done.run.bundle / "model.onnx", b"another model")
    manifest = {name: files.sha256(done.run.bundle / name) for name in ("model.onnx", "golden/00.jpg")}
    files.write_json(done.run.bundle / "manifest.json", manifest)
    assert set(found(done)) == {("int8@openvino", "bundle: model.onnx")}


def test_a_changed_model_is_found_by_its_name(done: World) -> None:
    files.write_bytes(done.candidates[4].artifact.directory / "model.onnx", b"other weights")
    assert ("int8@onnxruntime", "model files") in found(done)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"a": 1}', b"\xff\xfe", b"null"])
@pytest.mark.parametrize(
    "name", ["verdict.json", "candidates.json", "bundle/manifest.json", "data/split.json", "artifact", "predictions"]
)
def test_no_damage_ends_in_a_traceback(done: World, name: str, content: bytes) -> None:
    candidate = done.candidates[INT8]
    places = {
        "artifact": candidate.artifact.directory / "artifact.json",
        "predictions": done.run.predictions(candidate, "test"),
    }
    places.get(name, done.run.root / name).write_bytes(content)
    assert verify(done.run)


@pytest.mark.parametrize("keep", [0, 10, 500, -1])
def test_a_truncated_table_is_found(done: World, keep: int) -> None:
    for path in (done.run.predictions(done.candidates[0], "test"), done.run.timings(done.candidates[INT8])):
        content = path.read_bytes()
        path.write_bytes(content[:keep])
        assert any(field == path.relative_to(done.run.root).as_posix() for _, field in found(done))
        path.write_bytes(content)
    assert verify(done.run) == []


def test_every_deleted_file_is_found(done: World) -> None:
    evidence = json.loads(done.run.verdict.read_text())["evidence"]
    for name in (*evidence, "candidates.json", "bundle/manifest.json"):
        path = done.run.root / name
        content = path.read_bytes()
        path.unlink()
        assert verify(done.run), name
        path.write_bytes(content)


def test_a_table_of_other_columns_is_found(done: World) -> None:
    path = done.run.timings(done.candidates[0])
    tables.write(path, tables.frame({"ms": [1.0]}))
    assert ("torch", path.relative_to(done.run.root).as_posix()) in found(done)


def test_a_directory_without_a_verdict_is_a_users_mistake(world: World) -> None:
    with pytest.raises(ArtifactError, match="no verdict") as caught:
        verify(world.run)
    assert caught.value.hint


def test_what_another_numpy_cannot_draw_again_is_said_and_the_rest_is_recomputed(
    done: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = bootstrap.draws()
    monkeypatch.setattr(bootstrap, "draws", lambda: now.model_copy(update={"numpy": "9.0", "stream": "another"}))
    monkeypatch.setattr(Stream, "below", lambda _, bound, shape: np.full(shape, bound - 1))
    mismatches = verify(done.run)
    assert mismatches
    assert all(one.cannot and f"numpy {now.numpy}" in one.cannot and "numpy 9.0" in one.cannot for one in mismatches)
    assert {one.field for one in mismatches} == {"the bounds of macro_f1, auroc, ece"}
    change_verdict(done, "int8@openvino", ("metrics", 1, "value"), 12.0)
    change_verdict(done, "int8@openvino", ("accuracy", "drop_upper"), 0.01)
    differ = {one.field for one in verify(done.run) if one.cannot is None}
    assert differ == {"metrics[macro_f1].value", "accuracy.drop_upper"}


def test_bounds_that_decide_are_taken_as_they_are_where_they_cannot_be_drawn(
    ladder: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = [ladder.candidates[number].id for number in (6, 1)]
    for number in (0, 6, 1):
        ladder.predict(ladder.candidates[number], "test")
    shortlist = select.named(ladder.candidates, order, "holm")
    judge(ladder.run, ladder.candidates, shortlist, Budget(max_drop=1.0, metric="ece"), 2).save(ladder.run.verdict)
    monkeypatch.setattr(bootstrap, "draws", lambda: bootstrap.stream.described(7))
    assert {(one.row, one.cannot is None) for one in verify(ladder.run)} == {
        ("bundle", True), ("onnx@onnxruntime", False), ("prune=0.7+int8@openvino", False),
    }  # fmt: skip
    change_verdict(ladder, "onnx@onnxruntime", ("metrics", 3, "upper"), 50.0)
    assert "decisions[drop].reason" in {one.field for one in verify(ladder.run)}, "what rests on the bounds is checked"


def test_another_version_of_numpy_with_the_same_stream_recomputes_everything(
    done: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = bootstrap.draws()
    monkeypatch.setattr(bootstrap, "draws", lambda: now.model_copy(update={"numpy": "9.0"}))
    assert verify(done.run) == []
