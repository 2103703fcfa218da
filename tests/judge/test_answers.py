"""What other tools write is understood, or refused with the place that is wrong; nothing is guessed in silence."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from torchstone.core import tables
from torchstone.core.errors import DataError, UserError
from torchstone.judge import answer_tables, answers


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def parquet(path: Path, columns: dict[str, Any], header: dict[str, Any] | None = None) -> Path:
    tables.write(path, tables.frame(columns), header)
    return path


ITEMS, LABELS, ANSWERS = ["a.jpg", "b.jpg", "c.jpg"], ["rose", "lily", "rose"], ["rose", "rose", "iris"]
SCORES = [[0.1, 0.2, 0.7], [0.0, 0.1, 0.9], [0.8, 0.1, 0.1]]
"""Of iris, lily, rose: the answers above."""


def csv(*rows: str) -> str:
    return "\n".join(rows) + "\n"


FORMS: dict[str, Any] = {
    "a CSV of predictions": lambda place: written(
        place / "x.csv", csv("item,label,prediction", "a.jpg,rose,rose", "b.jpg,lily,rose", "c.jpg,rose,iris")
    ),
    "near-miss names, another delimiter, another order of columns": lambda place: written(
        place / "x.csv",
        csv("y_pred;Y_True; File Name;conf", "rose;rose;a.jpg;1", "rose;lily;b.jpg;2", "iris;rose;c.jpg;"),
    ),
    "a TSV with a byte order mark": lambda place: written(
        place / "x.tsv",
        "\ufeff" + csv("id\ttarget\tpred", "a.jpg\trose\trose", "b.jpg\tlily\trose", "c.jpg\trose\tiris"),
    ),
    "a CSV of scores": lambda place: written(
        place / "x.csv",
        csv("item,label,score_iris,score_lily,score_rose")
        + csv(*(f"{i},{t},{','.join(map(str, s))}" for i, t, s in zip(ITEMS, LABELS, SCORES, strict=True))),
    ),
    "scores of named classes, labels by number": lambda place: written(
        place / "x.csv",
        csv("item,label,prob_iris,prob_lily,prob_rose")
        + csv(*(f"{i},{n},{','.join(map(str, s))}" for i, n, s in zip(ITEMS, (2, 1, 2), SCORES, strict=True))),
    ),
    "JSON lines": lambda place: written(
        place / "x.jsonl",
        csv(*(json.dumps({"id": i, "label": t, "pred": p}) for i, t, p in zip(ITEMS, LABELS, ANSWERS, strict=True))),
    ),
    "Parquet of predictions": lambda place: parquet(
        place / "x.parquet", {"image_id": ITEMS, "y_true": LABELS, "y_pred": ANSWERS}
    ),
    "Parquet of score columns": lambda place: parquet(
        place / "x.parquet",
        {"item": ITEMS, "label": LABELS}
        | {f"logit_{name}": [row[k] for row in SCORES] for k, name in enumerate(("iris", "lily", "rose"))},
    ),
    "Parquet of lists, with torchstone's names of the classes": lambda place: parquet(
        place / "x.parquet",
        {"item": ITEMS, "label": [2, 1, 2], "scores": SCORES},
        {"classes": ["iris", "lily", "rose"]},
    ),
    "Parquet of arrays": lambda place: parquet(
        place / "x.parquet",
        {"item": ITEMS, "label": [2, 1, 2], "scores": np.array(SCORES, np.float32)},
        {"classes": ["iris", "lily", "rose"]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_each_form_says_the_same(form: str, tmp_path: Path) -> None:
    told = answers.read(FORMS[form](tmp_path))
    assert (list(told.items), list(told.labels or ()), list(told.predictions)) == (ITEMS, LABELS, ANSWERS)
    assert told.notes == ()


def test_it_says_how_it_understood(tmp_path: Path) -> None:
    path = written(tmp_path / "x.csv", csv("Filename,gt,y_pred,confidence", "a,1,1,0.5"))
    assert answers.read(path).understood == f"{path}: 1 item; item = 'Filename', label = 'gt', prediction = 'y_pred'"
    scored = written(tmp_path / "y.csv", csv("id,y_true,logit_0,logit_1", "a,1,0.5,1"))
    assert answers.read(scored).understood.endswith("scores = 'logit_0' … 'logit_1'")


@pytest.mark.parametrize("cells", [["3", "12"], ["3.0", "12.0"], ["3.00", " 12 "]])
def test_numbers_of_classes_are_the_same_however_they_are_written(cells: Sequence[str], tmp_path: Path) -> None:
    path = written(tmp_path / "x.csv", csv("item,label,pred", *(f"i{cell},3,{cell}" for cell in cells)))
    assert list(answers.read(path).predictions) == ["3", "12"]
    floats = parquet(tmp_path / "x.parquet", {"id": [7.0, 8.0], "label": [3, 3], "pred": [3.0, 12.0]})
    assert list(answers.read(floats).predictions) == ["3", "12"]
    assert list(answers.read(floats).items) == ["7", "8"]


def test_items_keep_their_spelling(tmp_path: Path) -> None:
    path = written(tmp_path / "x.csv", csv("item,label,pred", "007,a,a", "7,a,a", "7.0,a,b"))
    assert list(answers.read(path).items) == ["007", "7", "7.0"]


def test_a_prediction_counts_more_than_scores(tmp_path: Path) -> None:
    path = written(tmp_path / "x.csv", csv("item,label,pred,score_a,score_b", "1,a,b,0.9,0.1", "2,a,a,0.9,0.1"))
    told = answers.read(path)
    assert list(told.predictions) == ["b", "a"]
    assert "not the largest score of 1 item" in told.notes[0]


def test_equal_scores_are_said(tmp_path: Path) -> None:
    path = written(tmp_path / "x.csv", csv("item,label,score_a,score_b", "1,a,0.5,0.5", "2,a,0.9,0.1"))
    told = answers.read(path)
    assert list(told.predictions) == ["a", "a"]
    assert "1 item with several equal largest scores" in told.notes[0]


def test_a_file_without_labels_can_be_a_candidate(tmp_path: Path) -> None:
    told = answers.read(written(tmp_path / "x.csv", csv("item,pred", "1,a")))
    assert told.labels is None
    assert set(told.columns) == {"item", "prediction"}


HEAD = "item,label,pred"
DAMAGED: dict[str, tuple[str, str]] = {
    "no item": (csv("label,pred", "a,a"), "no column 'item'"),
    "no answer": (csv("item,label", "1,a"), "no column 'prediction', and no column of scores"),
    "a misspelt column": (csv("item,label,predcition", "1,a,a"), "did you mean 'prediction' by 'predcition'?"),
    "no rows": (csv(HEAD), "has no rows"),
    "nothing": ("", "column 'item'"),
    "a repeated item": (csv(HEAD, "1,a,a", "2,a,a", "1,a,b", "2,a,a"), "'1' stands twice: line 2"),
    "an empty label": (csv(HEAD, "1,a,a", "2,,a"), "line 3"),
    "an empty prediction": (csv(HEAD, "1,a,a", "2,a,", "3,a,nan"), "has no prediction in 'pred', nor have 1 other"),
    "an empty item": (csv(HEAD, ",a,a"), "has no item"),
    "a NaN": (csv("item,label,score_a,score_b", "1,a,1,0", "2,a,nan,0"), "line 3 of"),
    "an empty score": (csv("item,label,score_a,score_b", "1,a,1,"), "the score of 'b' is empty"),
    "an infinite score": (csv("item,label,score_a,score_b", "1,a,1,inf"), "infinite"),
    "a score in words": (csv("item,label,score_a,score_b", "1,a,1,high"), "'score_b' is 'high', which is no number"),
    "one score alone": (csv("item,label,prob_1", "1,1,0.4"), "the scores of one class alone"),
    "a label beyond the scores": (csv("item,label,score_0,score_1", "1,2,0,1"), "the label '2' is none of the 2"),
    "a label that has no scores": (csv("item,label,score_a,score_b", "1,c,0,1"), "call the classes of labels and"),
    "two columns of one name": (csv("item,label,label", "1,a,a"), "two columns called 'label'"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGED)
def test_what_is_wrong_is_named(damage: str, tmp_path: Path) -> None:
    text, expected = DAMAGED[damage]
    with pytest.raises(DataError) as caught:
        answers.read(written(tmp_path / "x.csv", text))
    assert expected in str(caught.value)
    assert "x.csv" in caught.value.message
    assert caught.value.hint


LISTS: dict[str, tuple[Any, str]] = {
    "lists of different length": ([[0.1, 0.9], [1.0]], "row 2"),
    "a list that is missing": ([[0.1, 0.9], None], "row 2"),
    "a gap in a list": ([[0.1, 0.9], [None, 1.0]], "the score of '0' is empty"),
    "lists of words": ([["x", "y"], ["x", "y"]], "lists of numbers"),
}


@pytest.mark.parametrize("damage", LISTS)
def test_what_is_wrong_in_a_column_of_lists_is_named(damage: str, tmp_path: Path) -> None:
    cells, expected = LISTS[damage]
    with pytest.raises(DataError) as caught:
        answers.read(parquet(tmp_path / "x.parquet", {"item": ["a", "b"], "label": [0, 1], "scores": cells}))
    assert expected in str(caught.value)


@pytest.mark.parametrize("cell", ['[0.1, "much"]', "[0.1, [0.9, 1]]", "[0.1]"])
def test_what_is_wrong_in_json_lines_is_named(cell: str, tmp_path: Path) -> None:
    rows = csv('{"item": 1, "label": 0, "scores": [0.1, 0.9]}', f'{{"item": 2, "label": 1, "scores": {cell}}}')
    with pytest.raises(DataError, match="line 2"):
        answers.read(written(tmp_path / "x.jsonl", rows))


def test_a_directory_stands_for_the_table_in_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no \.csv"):
        answer_tables.find(tmp_path)
    only = written(tmp_path / "mine.csv", "")
    (tmp_path / "ledger").mkdir()
    assert answer_tables.find(tmp_path) == only
    written(tmp_path / "timings.csv", "")
    with pytest.raises(DataError, match=r"several tables: mine\.csv, timings\.csv"):
        answer_tables.find(tmp_path)
    for name in ("predictions.csv", "predictions-test.parquet"):  # the usual name; torchstone's own before that
        path = written(tmp_path / name, "")
        assert answer_tables.find(tmp_path) == path


@pytest.mark.parametrize("name", ["nowhere", "model.onnx"])
def test_what_is_no_table_is_refused(name: str, tmp_path: Path) -> None:
    if "." in name:
        written(tmp_path / name, "")
    with pytest.raises(DataError) as caught:
        answers.read(tmp_path / name)
    assert caught.value.hint


def test_a_damaged_parquet_file_is_said_to_be_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a readable table"):
        answers.read(written(tmp_path / "x.parquet", "PAR1 and no more"))


def test_there_are_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = written(tmp_path / "x.csv", csv(HEAD, *(f"{row},a,a" for row in range(20))))
    table = parquet(tmp_path / "x.parquet", {"item": range(20), "label": [0] * 20, "scores": [[0.1, 0.9]] * 20})
    for limit, value, path in (
        ("MAX_TEXT", 50, text),
        ("MAX_PARQUET", 50, table),
        ("MAX_ITEMS", 19, text),
        ("MAX_ITEMS", 19, table),
        ("MAX_CELLS", 79, table),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(answer_tables, limit, value)
            with pytest.raises(DataError, match="at most"):
                answers.read(path)
    assert len(answers.read(text).items) == len(answers.read(table).items) == 20
