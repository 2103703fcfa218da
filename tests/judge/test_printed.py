"""What a person reads beneath the table of a verdict."""

import json

import pytest
from stored_run import World
from test_verdict import look_at

from torchstone.cli import _answers
from torchstone.core.values import Budget
from torchstone.report import wording


def test_metrics_the_99_percent_rule_levels_and_slices_stand_beneath_the_table(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    world.add("torch", ms=4.0, runtime="torch")
    for name, lost in (("near", 3), ("sure", 0)):
        world.add(name, ms=1.0, lost=(0, lost))
    budget = Budget(max_drop=3, metric="macro_f1")
    verdict = look_at(world, ["near", "sure"], budget, ("format", "item"), procedure="holm")
    code = _answers.verdict(verdict, world.run, json=False)
    printed = capsys.readouterr().out
    assert code == 0
    assert "margin 3 points of macro F1, levels split by Holm, look 1 at 97.5 %" in printed
    assert "points worse (at most)" in printed
    row = next(line for line in printed.splitlines() if line.startswith("near") and "98.75 %" in line)
    metric = next(one for one in verdict.rows[1].metrics if one.name == "ece")
    assert f"{metric.difference:.2f} ({metric.upper:.2f})" in row
    assert "sure: 'jpeg' loses 0.0 points (at most " in printed
    assert "near: no value of 'item' has as many" in printed

    _answers.verdict(verdict, world.run, json=True)
    answer = json.loads(capsys.readouterr().out)
    assert answer["rows"][1]["metrics"][1]["name"] == "macro_f1"
    assert answer["procedure"] == "holm"


def test_times_of_another_session_are_marked_and_a_narrow_terminal_says_what_it_leaves_out(
    ladder: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    verdict = look_at(ladder, ["int8@openvino"], Budget(max_drop=3))
    for width in ("80", "160"):
        monkeypatch.setenv("COLUMNS", width)
        _answers.verdict(verdict, ladder.run, json=False)
        lines = capsys.readouterr().out.splitlines()
        untested = next(line for line in lines if line.startswith("bf16@openvino"))
        assert "~0.9" in untested
        assert untested.count("×") == untested.count("~") - 1  # its milliseconds and its ratios
        assert "~ of an earlier, shorter session, by which candidates were chosen" in lines
        assert any("a wider terminal also has: same runtime" in line for line in lines) == (width == "80")


def test_where_nothing_was_judged_the_baseline_was_screened_too(
    ladder: World, capsys: pytest.CaptureFixture[str]
) -> None:
    _answers.verdict(look_at(ladder, [], Budget(max_drop=3)), ladder.run, json=False)
    lines = capsys.readouterr().out.splitlines()
    assert "~4.0" in next(line for line in lines if line.startswith("torch"))


def test_a_loss_and_a_gain_in_words() -> None:
    assert wording.change(3.14, 5.01, "points") == "loses 3.1 points (at most 5.1)"
    assert wording.change(-1.6, 0.94) == "gains 1.6 (loses at most 1.0)"
    assert wording.change(-3.1, -1.24) == "gains 3.1 (at least 1.2)"
    assert wording.change(-0.03, 0.5) == "loses 0.0 (at most 0.5)"
