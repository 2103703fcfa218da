"""Stored answers are matched by item and judged as a run's are; what does not belong together is refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from stored_run import World

from torchstone.core import tables
from torchstone.core.errors import ConfigError, DataError
from torchstone.core.run import Run
from torchstone.core.values import Budget
from torchstone.judge import accuracy, answers, ledger, matching
from torchstone.judge.evidence_directory import verify
from torchstone.judge.external import EvidenceVerdict
from torchstone.stages.judge_evidence import judge_evidence

CLASSES = ("daisy", "lily", "rose")
IMAGES = 2000


def other(label: str) -> str:
    return CLASSES[(CLASSES.index(label) + 1) % len(CLASSES)]


def stored(
    path: Path, *, wrong: Sequence[int] = (), images: int = IMAGES, seed: int = 0, groups: int | None = None
) -> Path:
    """Answers to ``images`` items, right but for ``wrong``, in an order of their own."""
    labels = [CLASSES[number % 3] for number in range(images)]
    predicted = [other(label) if number in set(wrong) else label for number, label in enumerate(labels)]
    lines = [f"{number}.jpg,{labels[number]},{predicted[number]}" for number in range(images)]
    head = "image,label,prediction"
    if groups is not None:
        lines = [f"{line},{number // groups}" for number, line in enumerate(lines)]
        head += ",patient"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([head, *np.random.default_rng(seed).permutation(lines)]) + "\n")
    return path


@pytest.fixture
def baseline(tmp_path: Path) -> Path:
    return stored(tmp_path / "base.csv", wrong=range(100))


def judged(baseline: Path, *candidates: Path, max_drop: float = 1.0, unordered: bool = False) -> EvidenceVerdict:
    return judge_evidence(baseline, candidates, Budget(max_drop=max_drop), unordered=unordered)


def test_the_numbers_are_those_of_the_paired_judge(baseline: Path, tmp_path: Path) -> None:
    candidate = stored(tmp_path / "cand.csv", wrong=[*range(5, 100), *range(500, 509)], seed=1)
    found = judged(baseline, candidate)
    row = found.rows[1]
    assert row.accuracy is not None
    assert (row.accuracy.lost, row.accuracy.gained, row.accuracy.images) == (9, 5, IMAGES)
    assert row.accuracy.top1 == pytest.approx(94.8)
    assert row.accuracy.drop_upper == pytest.approx(100 * accuracy.upper_bound(9, 5, IMAGES, 0.975))
    assert (found.outcome, found.look, found.level) == ("pass", 1, 0.975)
    assert [one.item for one in row.lost] == sorted(f"{number}.jpg" for number in range(500, 509))
    assert {(one.label, one.answer) for one in row.lost} <= {(label, other(label)) for label in CLASSES}
    assert {one.column for one in row.slices} == {"class"}
    assert sum(one.lost for one in row.slices) == 9


def test_the_order_of_the_rows_does_not_matter(baseline: Path, tmp_path: Path) -> None:
    paths = [stored(tmp_path / f"{seed}.csv", wrong=range(90, 110), seed=seed) for seed in (1, 2)]
    one, two = (matching.case([answers.read(baseline), answers.read(path)]) for path in paths)
    assert one.answers[1].id == two.answers[1].id
    assert (one.answers[1].predicted == two.answers[1].predicted).all()
    assert one.fingerprint == two.fingerprint


@pytest.mark.parametrize(
    ("lost", "outcome"), [(0, "pass"), (15, "undecided"), (150, "fail")]
)  # fmt: skip
def test_each_outcome(lost: int, outcome: str, baseline: Path, tmp_path: Path) -> None:
    found = judged(baseline, stored(tmp_path / "cand.csv", wrong=range(100 + lost)))
    assert (found.outcome, found.rows[1].outcome) == (outcome, outcome)
    assert (found.rows[1].images_needed is not None) == (outcome == "undecided")
    assert "nothing of speed" in found.sentence


def test_the_first_that_does_not_pass_ends_the_look(baseline: Path, tmp_path: Path) -> None:
    good, bad = (stored(tmp_path / f"{lost}.csv", wrong=range(100 + lost)) for lost in (1, 150))
    assert [row.outcome for row in judged(baseline, good, bad, good).rows] == ["baseline", "pass", "fail", "not tested"]
    found = judged(baseline, bad, good)
    assert [row.outcome for row in found.rows] == ["baseline", "fail", "not tested"]
    assert found.rows[2].accuracy is None
    assert found.rows[2].lost == ()
    assert found.outcome == "fail"


def test_without_an_order_all_are_tested_at_levels_split_by_holm(baseline: Path, tmp_path: Path) -> None:
    good, bad = (stored(tmp_path / f"{lost}.csv", wrong=range(100 + lost)) for lost in (1, 150))
    found = judged(baseline, bad, good, unordered=True)
    assert [row.outcome for row in found.rows] == ["baseline", "fail", "pass"]
    assert [row.level for row in found.rows[1:]] == pytest.approx([0.975, 0.9875])  # what the good one left over
    assert found.rows[2].accuracy is not None
    assert found.rows[2].accuracy.drop_upper == pytest.approx(100 * accuracy.upper_bound(1, 0, IMAGES, 0.9875))
    again = judged(baseline, good, bad, unordered=True)
    assert again.look == found.look, "the order makes no other question"


def test_looks_are_counted_beside_the_baseline(baseline: Path, tmp_path: Path) -> None:
    paths = [stored(tmp_path / f"{lost}.csv", wrong=range(100 + lost)) for lost in range(3)]
    assert [judged(baseline, path).look for path in paths] == [1, 2, 3]
    assert [judged(baseline, path).look for path in paths] == [1, 2, 3], "a question that was put keeps its number"
    assert judged(baseline, paths[0], max_drop=2.0).look == 4
    same_answers = stored(tmp_path / "renamed.csv", wrong=range(101), seed=9)
    assert judged(baseline, same_answers).look == 2
    (book,) = (tmp_path / "ledger").glob("*.json")
    assert book.stem == judged(baseline, paths[0]).test_fingerprint
    elsewhere = judge_evidence(baseline, [paths[2]], Budget(), ledger_dir=tmp_path / "other")
    assert elsewhere.look == 1
    fewer = [stored(tmp_path / f"fewer{k}.csv", wrong=range(9), images=1000) for k in range(2)]
    assert judged(*fewer).look == 1, "another test set"


def test_items_of_one_group_count_for_less(tmp_path: Path) -> None:
    base, candidate = tmp_path / "base.csv", tmp_path / "cand.csv"
    lost = range(0, 20)  # two whole patients
    plain = judged(stored(base, groups=None), stored(candidate, wrong=lost)).rows[1].accuracy
    grouped = judged(stored(base, groups=10), stored(candidate, wrong=lost)).rows[1].accuracy
    alone = judged(stored(base, groups=1), stored(candidate, wrong=lost)).rows[1].accuracy
    assert plain and grouped and alone
    assert (plain.groups, grouped.groups, alone.groups) == (None, 200, None)
    assert grouped.drop == plain.drop == alone.drop
    assert grouped.drop_upper > 1.2 * plain.drop_upper
    assert alone.drop_upper == plain.drop_upper
    theirs = judged(stored(base, groups=None), stored(candidate, wrong=lost, groups=10)).rows[1].accuracy
    assert theirs == grouped, "groups that the candidate's file alone has count as well"
    with pytest.raises(DataError, match="groups the items otherwise"):
        judged(stored(base, groups=10), stored(candidate, wrong=lost, groups=20))


def test_what_is_odd_about_answers_is_said(baseline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    same = stored(tmp_path / "same.csv", wrong=range(100), seed=2)
    typo = stored(tmp_path / "typo.csv")
    typo.write_text(typo.read_text().replace("0.jpg,daisy,daisy", "0.jpg,daisy,dasy"))
    judged(baseline, same, typo)
    notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
    assert any("same.csv' gives the very answers of the baseline" in note for note in notes)
    assert any("typo.csv' is no item's label: 'dasy'" in note for note in notes)
    assert not any("typo.csv' gives" in note or "same.csv' is no" in note for note in notes)


def test_predictions_and_scores_of_other_tools_meet(tmp_path: Path) -> None:
    """One file has scores of named classes in an order of its own, the other predictions and no labels."""
    rows = ["id,y_true,prob_rose,prob_lily", "1,rose,0.9,0.1", "2,lily,0.2,0.8", "3,lily,0.6,0.4"]
    base, candidate = tmp_path / "base.csv", tmp_path / "cand.tsv"
    base.write_text("\n".join(rows))
    candidate.write_text("filename\tpred\n3\tlily\n2\tlily\n1\tlily\n")
    row = judged(base, candidate).rows[1]
    assert row.accuracy is not None
    assert (row.accuracy.lost, row.accuracy.gained) == (1, 1)
    assert [one.item for one in row.lost] == ["1"]


def changed(path: Path, old: str, new: str) -> Path:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    return path


def test_what_does_not_belong_together_is_refused(baseline: Path, tmp_path: Path) -> None:
    def candidate(images: int = IMAGES) -> Path:
        return stored(tmp_path / "cand.csv", images=images)

    with pytest.raises(DataError, match=r"lacks 2 items of the baseline \(199[89]\.jpg, 199[89]\.jpg\)"):
        judged(baseline, candidate(IMAGES - 2))
    with pytest.raises(DataError, match=r"has 2 items that the baseline lacks \(.*2000\.jpg"):
        judged(baseline, candidate(IMAGES + 2))
    with pytest.raises(DataError, match=r"labels 1 item otherwise .* '7\.jpg' is 'rose', there 'lily'"):
        judged(baseline, changed(candidate(), "\n7.jpg,lily", "\n7.jpg,rose"))
    path = candidate()
    path.write_text(path.read_text().replace(".jpg", ".png"))
    with pytest.raises(DataError, match="no item in common") as caught:
        judged(baseline, path)
    assert caught.value.hint
    path = candidate()
    path.write_text("\n".join(["image,prediction", *(f"{number}.jpg,{number % 3}" for number in range(IMAGES))]))
    with pytest.raises(DataError, match=r"no prediction of .* is among the labels: it answers '0', '1', '2'"):
        judged(baseline, path)
    with pytest.raises(DataError, match="has no column of labels"):
        judged(path, baseline)
    assert not (tmp_path / "ledger").exists(), "what cannot be judged is no look"


def test_classes_that_seem_to_be_counted_in_two_ways_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [f"{number},{1 + number % 3},{number % 3}" for number in range(99)]
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("\n".join(["item,label,pred", *lines]))
    judged(tmp_path / "a.csv", tmp_path / "b.csv")
    assert "counted alike?" in capsys.readouterr().err


def test_a_look_at_a_runs_own_answers_is_counted_with_the_runs_looks(ladder: World) -> None:
    run: Run = ladder.run
    first, second = ladder.candidates[:2]
    for one in (first, second):
        ladder.predict(one, "test")
    paths = [run.predictions(one, "test") for one in (first, second)]
    book = run.ledger, ladder.split.test_fingerprint
    before = ledger.looks(*book)
    found = judge_evidence(paths[0].parent, [paths[1].parent], Budget(max_drop=3.0))
    assert found.look == before + 1
    assert ledger.looks(*book) == before + 1
    table, _ = tables.read(paths[0])
    assert found.test_images == len(table)
    out = run.root / "stored"
    found = judge_evidence(paths[0], [paths[1]], Budget(max_drop=3.0), slices=["format", "width", "format"], out=out)
    assert found.look == before + 1, "where one looks closer is the same question"
    assert found.slices == ("format", "width")
    assert {one.column for one in found.rows[1].slices} == {"class", "format", "width"}
    assert verify(out) == []
    with pytest.raises(ConfigError, match="the catalog has no column 'formt'"):
        judge_evidence(paths[0], [paths[1]], Budget(max_drop=3.0), slices=["formt"])


def test_what_needs_a_model_is_refused() -> None:
    from torchstone.cli import _evidence

    for budget, named in (
        (Budget(min_speedup=2), "--min-speedup"),
        (Budget(max_latency_ms=2), "--max-latency-ms"),
        (Budget(max_size_mb=2), "--max-size-mb"),
    ):
        with pytest.raises(ConfigError, match=named):
            _evidence.refuse_what_needs_a_model(budget)
    _evidence.refuse_what_needs_a_model(Budget())


def with_columns(path: Path, **cells: Sequence[str]) -> Path:
    """The file with further columns; ``cells`` by the number of the item."""
    head, *lines = path.read_text().splitlines()
    beside = [",".join(column[int(line.split(".")[0])] for column in cells.values()) for line in lines]
    text = [f"{line},{more}" for line, more in zip(lines, beside, strict=True)]
    path.write_text("\n".join([",".join([head, *cells]), *text]) + "\n")
    return path


def test_slices_of_any_column_of_the_first_table_that_has_it(baseline: Path, tmp_path: Path) -> None:
    with_columns(
        baseline,
        camera=["old" if number % 2 else "new" for number in range(IMAGES)],
        light=["" if number < 10 else f"{number / 10:.1f}" for number in range(IMAGES)],
    )
    candidate = stored(tmp_path / "cand.csv", wrong=[*range(100), *range(601, 661, 2)], groups=40)
    asked = ["camera", "light", "patient"]
    found = judge_evidence(baseline, [candidate], Budget(max_drop=1.0), slices=asked, out=tmp_path / "out")
    assert found.slices == ("camera", "light", "group")  # what groups the items is 'group', as in a catalog
    by_column = {name: [one for one in found.rows[1].slices if one.column == name] for name in found.slices}
    assert [(one.value, one.images, one.lost) for one in by_column["camera"]] == [("old", 1000, 30), ("new", 1000, 0)]
    assert by_column["light"][0].lost == 30
    assert sorted(one.images for one in by_column["light"]) == [497, 497, 498, 498]  # ten have no number
    assert {one.images for one in by_column["group"]} == {40}
    assert (by_column["group"][0].value, by_column["group"][0].lost) == ("15", 20)  # 600 to 639
    assert verify(tmp_path / "out") == []
    table, header = tables.read(tmp_path / "out" / "baseline.parquet")
    columns = {one: table[one].to_list() for one in table.columns}
    columns["slice_camera"] = ["old", *columns["slice_camera"][1:-1], "old"]
    tables.write(tmp_path / "out" / "baseline.parquet", tables.frame(columns), header)
    changed = {one.field for one in verify(tmp_path / "out")}
    assert any(name.startswith("slices") for name in changed)


def test_tables_that_disagree_on_a_sliced_column_are_named(
    baseline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cameras = ["old" if number % 2 else "new" for number in range(IMAGES)]
    ages = ["n/a" if number < 50 else str(number % 90) for number in range(IMAGES)]
    with_columns(baseline, camera=cameras, age=ages, size=["1"] * IMAGES)
    changed = ["New" if number == 0 else "odd" if number in {3, 5} else cameras[number] for number in range(IMAGES)]
    older = ["NA" if number < 50 else "unknown" if number == 60 else f"{number % 90}.0" for number in range(IMAGES)]
    candidate = with_columns(stored(tmp_path / "cand.csv"), camera=changed, age=older, size=["1.0"] * IMAGES)
    asked = ["camera", "age", "size"]
    found = judge_evidence(baseline, [candidate], Budget(max_drop=1.0), slices=asked)
    assert {one.value for one in found.rows[1].slices if one.column == "camera"} == {"old", "new"}
    said = " ".join(capsys.readouterr().err.split())
    assert "has other values of 'camera' for 3 items than" in said
    assert "'New' instead of 'new'" in said
    assert "has other values of 'age' for 1 item than" in said
    assert "'unknown' instead of '60'" in said
    assert "'size'" not in said
    judge_evidence(candidate, [baseline], Budget(max_drop=1.0), slices=asked)
    assert "'age' is taken as names, not as numbers" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("name", ["label", "image", "class", "prediction", "item"])
def test_what_the_judge_reads_cannot_be_sliced_by(name: str, baseline: Path, tmp_path: Path) -> None:
    with_columns(baseline, **{"class": ["a"] * IMAGES})
    with pytest.raises(DataError, match=f"'{name}' cannot be sliced by"):
        judge_evidence(baseline, [stored(tmp_path / "cand.csv")], Budget(), slices=[name])


def test_groups_are_one_column_by_whichever_name(tmp_path: Path) -> None:
    baseline, candidate = stored(tmp_path / "base.csv", groups=40), stored(tmp_path / "cand.csv", wrong=range(9))
    asked, out = ["patient", "group"], tmp_path / "out"
    found = judge_evidence(baseline, [candidate], Budget(max_drop=3.0), slices=asked, out=out)
    assert found.slices == ("group",)
    assert next((one.value, one.lost) for one in found.rows[1].slices if one.column == "group") == ("0", 9)
    assert verify(out) == []


def test_where_it_loses_is_printed(baseline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from torchstone.cli import _evidence

    with_columns(baseline, camera=["old" if number % 2 else "new" for number in range(IMAGES)])
    candidate = stored(tmp_path / "cand.csv", wrong=[*range(0, 100, 2), *range(501, 601, 2)])
    found = judge_evidence(baseline, [candidate], Budget(max_drop=3.0), slices=["camera"])
    _evidence.verdict(found, json=False)
    printed = " ".join(capsys.readouterr().out.split())
    assert "by camera, of at least 20 test images each:" in printed
    assert "'old' loses 0.0 points (at most " in printed
    assert "rarer values" not in printed

    rare = [*["lab"] * 19, *["old", "new"] * (IMAGES // 2)]
    with_columns(baseline, place=rare[:IMAGES], site=[str(number // 300) for number in range(IMAGES)])
    failing = stored(tmp_path / "bad.csv", wrong=range(600))
    found = judge_evidence(baseline, [failing, candidate], Budget(max_drop=3.0), slices=["place", "site"])
    _evidence.verdict(found, json=False)
    printed = " ".join(capsys.readouterr().out.split())
    assert "19 images have rarer values" in printed
    assert "4 more in --json" in printed  # of seven sites three are shown
    assert "not tested: '" in printed


def test_a_column_that_no_table_has_is_named_with_the_nearest(baseline: Path, tmp_path: Path) -> None:
    with_columns(baseline, camera=["old"] * IMAGES)
    with pytest.raises(DataError, match="no table has a column 'camra'") as caught:
        judge_evidence(baseline, [stored(tmp_path / "cand.csv")], Budget(), slices=["camra"])
    assert "'camera'" in (caught.value.hint or "")
    assert not (tmp_path / "ledger").exists()  # refused before the look
