"""A verdict on stored answers can be recomputed from its directory alone, and whatever is changed there is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from stored_run import World, write_catalog
from test_external import IMAGES, other, stored

from torchstone.core import files, tables
from torchstone.core.errors import ArtifactError, ConfigError
from torchstone.core.values import Budget
from torchstone.judge import evidence_directory
from torchstone.judge.evidence_directory import verify
from torchstone.judge.external import EvidenceVerdict
from torchstone.stages.judge_evidence import judge_evidence


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Two candidates, of which the second does not meet the test set, and nothing left of the files they came from."""
    came = tmp_path / "came"
    base = stored(came / "base.csv", wrong=range(100), groups=4)
    candidates = [stored(came / f"{lost}.csv", wrong=range(100 + lost), seed=lost) for lost in (150, 1)]
    judge_evidence(base, candidates, Budget(max_drop=1.0), out=tmp_path / "evidence")
    shutil.rmtree(came)
    return tmp_path / "evidence"


def change(path: Path, *keys: Any, to: Any) -> None:
    content = json.loads(path.read_text())
    inner = content
    for key in keys[:-1]:
        inner = inner[key]
    assert inner[keys[-1]] != to
    inner[keys[-1]] = to
    files.write_json(path, content)


def trust(place: Path, name: str) -> None:
    """Make the verdict vouch for a file as it is now."""
    change(place / "verdict.json", "evidence", name, to=files.sha256(place / name))


def fields(place: Path) -> set[str]:
    return {one.field for one in verify(place)}


def test_what_was_written_verifies_elsewhere(place: Path, tmp_path: Path) -> None:
    moved = place.rename(tmp_path / "moved")
    assert evidence_directory.is_one(moved)
    assert verify(moved) == []
    verdict = EvidenceVerdict.load(moved / "verdict.json")
    assert set(verdict.evidence) == {path.name for path in moved.iterdir()} - {"verdict.json"}
    assert [row.outcome for row in verdict.rows] == ["baseline", "fail", "not tested"]
    assert verdict.rows[1].accuracy is not None
    assert verdict.rows[1].accuracy.groups == IMAGES // 4
    assert json.loads((moved / "environment.json").read_text())["packages"]["numpy"]


def test_a_table_can_be_judged_by_itself(place: Path, tmp_path: Path) -> None:
    baseline, candidate = (place / name for name in ("baseline.parquet", "candidate-1.parquet"))
    again = judge_evidence(baseline, [candidate], Budget(max_drop=1.0), ledger_dir=tmp_path / "looks")
    before = EvidenceVerdict.load(place / "verdict.json")
    assert again.rows[1].accuracy == before.rows[1].accuracy
    assert again.rows[1].answers_id == before.rows[1].answers_id


@pytest.mark.parametrize("name", ["baseline.parquet", "candidate-1.parquet", "candidate-2.parquet"])
def test_one_changed_answer_is_found_by_its_file_and_by_the_numbers(name: str, place: Path) -> None:
    table, header = tables.read(place / name)
    answers = table["prediction"].to_list()
    answers[700] = other(answers[700])
    columns = {one: table[one].to_list() for one in table.columns}
    tables.write(place / name, tables.frame({**columns, "prediction": answers}), header)
    assert name in fields(place)
    trust(place, name)
    number = {"baseline.parquet": 0, "candidate-1.parquet": 1, "candidate-2.parquet": 2}[name]
    row = EvidenceVerdict.load(place / "verdict.json").rows[number].name
    assert (row, "answers_id") in {(one.row, one.field) for one in verify(place)}
    assert "look" in fields(place), "the ledger knows of no such answers"


@pytest.mark.parametrize(
    ("keys", "value", "field"),
    [
        (("rows", 1, "accuracy", "lost"), 3, "accuracy.lost"),
        (("rows", 1, "accuracy", "drop_upper"), 0.4, "accuracy.drop_upper"),
        (("rows", 1, "outcome"), "pass", "outcome"),
        (("rows", 1, "sha256"), "0" * 64, "sha256"),
        (("rows", 1, "name"), "another", "name"),
        (("rows", 1, "lost", 0, "item"), "none.jpg", "lost[0].item"),
        (("budget", "max_drop"), 20.0, "decision.reason"),
        (("look",), 2, "look"),
        (("level",), 0.9, "level"),
        (("test_fingerprint",), "f" * 64, "test_fingerprint"),
        (("procedure",), "holm", "look"),
        (("sentence",), "Ship it.", "sentence"),
    ],
)
def test_a_number_changed_in_the_verdict_is_found(keys: tuple, value: Any, field: str, place: Path) -> None:
    change(place / "verdict.json", *keys, to=value)
    assert field in fields(place)


def test_a_changed_ledger_is_found_though_the_verdict_vouches_for_it(place: Path) -> None:
    path = place / "ledger.json"
    change(path, "looks", 0, "shortlist", to=["somebody else"])
    trust(place, "ledger.json")
    assert "ledger.json: look 1" in fields(place)
    change(path, "looks", 0, "look", to=4)
    trust(place, "ledger.json")
    assert "ledger.json: look 4" in fields(place)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"looks": [{}]}', b"\xff\xfe"])
def test_no_damage_ends_in_a_traceback(content: bytes, place: Path) -> None:
    for path in sorted(place.iterdir()):
        whole = path.read_bytes()
        path.write_bytes(content)
        assert verify(place), path.name
        path.unlink()
        assert verify(place), path.name
        path.write_bytes(whole)
    assert verify(place) == []
    (place / "candidate-3.parquet").write_bytes(content)
    assert "candidate-3.parquet" in fields(place)


def test_the_looks_are_those_of_then(tmp_path: Path) -> None:
    base = stored(tmp_path / "base.csv", wrong=range(100))
    for lost in (1, 2):
        candidate = stored(tmp_path / f"{lost}.csv", wrong=range(100 + lost))
        judge_evidence(base, [candidate], Budget(), out=tmp_path / f"evidence{lost}")
    numbers = [len(json.loads((tmp_path / f"evidence{lost}/ledger.json").read_text())["looks"]) for lost in (1, 2)]
    assert numbers == [1, 2]
    assert verify(tmp_path / "evidence1") == verify(tmp_path / "evidence2") == []


def test_the_groups_of_a_run_travel_with_its_answers(ladder: World, tmp_path: Path) -> None:
    write_catalog(ladder.run, groups=5)
    pair = ladder.candidates[0], ladder.candidates[6]
    for one in pair:
        ladder.predict(one, "test")
    paths = [ladder.run.predictions(one, "test") for one in pair]
    found = judge_evidence(paths[0], paths[1:], Budget(max_drop=3.0), out=tmp_path / "evidence")
    assert found.rows[1].accuracy is not None
    assert found.rows[1].accuracy.groups
    assert verify(tmp_path / "evidence") == []


def test_a_place_that_holds_something_else_is_refused_before_a_look_is_spent(tmp_path: Path) -> None:
    base, candidate = (stored(tmp_path / "answers" / f"{name}.csv", wrong=range(9)) for name in "ab")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    with pytest.raises(ArtifactError, match=r"holds 'thesis\.txt', which is no part of evidence"):
        judge_evidence(base, [candidate], Budget(), out=tmp_path / "mine")
    for out in (base.parent, tmp_path, base.parent / "ledger"):
        with pytest.raises(ConfigError, match="would replace the directory of"):
            judge_evidence(base, [candidate], Budget(), out=out)
    with pytest.raises(ConfigError, match="is a file"):
        judge_evidence(base, [candidate], Budget(), out=tmp_path / "mine" / "thesis.txt")
    assert not (base.parent / "ledger").exists()
    for _ in range(2):  # what an earlier verdict left is replaced
        judge_evidence(base, [candidate], Budget(), out=tmp_path / "evidence")
    assert verify(tmp_path / "evidence") == []
    other = stored(tmp_path / "answers" / "c.csv", wrong=range(12))
    with pytest.raises(ArtifactError, match=r"holds the evidence of other answers: .*b\.csv"):
        judge_evidence(base, [other], Budget(), out=tmp_path / "evidence")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answers", "evidence", "mine"]


def test_a_table_that_another_tool_wrote_again_is_named(place: Path) -> None:
    table, _ = tables.read(place / "baseline.parquet")
    tables.write(place / "baseline.parquet", table, {})
    (found,) = (str(one) for one in verify(place) if "written by something else" in str(one))
    assert "'baseline.parquet'" in found
    assert "file, name, sha256" in found
