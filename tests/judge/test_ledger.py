"""Looks are counted once each, whoever asks, and spend no more than α together."""

import subprocess
import sys
from pathlib import Path

import pytest
from stored_run import World

from torchstone.core.errors import ArtifactError
from torchstone.core.values import Budget
from torchstone.judge import ledger


def test_the_same_question_is_the_same_look(ladder: World, tmp_path: Path) -> None:
    baseline, budget = ladder.candidates[0], Budget(max_drop=1.0)
    first = ledger.entry(baseline, ["a", "b"], budget)
    others = [
        ledger.entry(baseline, ["b", "a"], budget),
        ledger.entry(baseline, ["a", "b"], Budget(max_drop=2.0)),
        ledger.entry(ladder.candidates[1], ["a", "b"], budget),
    ]
    assert ledger.looks(tmp_path / "ledger", "set") == 0
    assert [ledger.look(tmp_path / "ledger", "set", question) for question in (first, *others, first)] == [
        1,
        2,
        3,
        4,
        1,
    ]
    assert ledger.looks(tmp_path / "ledger", "set") == 4
    assert ledger.look(tmp_path / "ledger", "another set", first) == 1


def test_an_unordered_set_is_one_question_in_any_order(ladder: World, tmp_path: Path) -> None:
    baseline, budget = ladder.candidates[0], Budget(max_drop=1.0)
    asked = [ledger.entry(baseline, order, budget, "holm") for order in (["a", "b"], ["b", "a"])]
    asked.append(ledger.entry(baseline, ["a", "b"], budget))
    asked.append(ledger.entry(baseline, ["a", "b"], Budget(max_drop=1.0, metric="auroc"), "holm"))
    assert [ledger.look(tmp_path, "set", question) for question in asked] == [1, 1, 2, 3]


def test_a_test_set_that_grew_begins_where_the_earlier_ones_ended(tmp_path: Path) -> None:
    for number in range(3):
        ledger.look(tmp_path, "first", {"question": number})
    assert ledger.looks(tmp_path, "grown", ["first"]) == 3
    assert [ledger.look(tmp_path, "grown", {"question": number}, ["first"]) for number in (0, 1, 0)] == [4, 5, 4]
    assert ledger.looks(tmp_path, "again", ["first", "grown"]) == 5
    assert ledger.look(tmp_path, "again", {"question": 0}, ["first", "grown", "again"]) == 6
    (tmp_path / "first.json").unlink()
    assert ledger.look(tmp_path, "grown", {"question": 2}, ["first"]) == 6


def test_all_looks_together_spend_alpha() -> None:
    spent = [1 - ledger.level(0.95, number) for number in range(1, 40)]
    assert spent[0] == pytest.approx(0.025)
    assert spent[1] == pytest.approx(0.0125)
    assert sum(spent) <= 0.05 + 1e-12
    with pytest.raises(ValueError, match="counted from 1"):
        ledger.level(0.95, 0)


def test_processes_that_look_at_the_same_time_lose_no_look(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from torchstone.judge import ledger\n"
        "for k in range(8): ledger.look(Path(sys.argv[1]), 'set', {'who': sys.argv[2], 'k': k})"
    )
    running = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path), str(who)]) for who in range(3)]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    assert ledger.looks(tmp_path, "set") == 24


@pytest.mark.parametrize("content", ["", "[]", '{"looks": [1]}', "{"])
def test_a_damaged_ledger_is_said_to_be_so(tmp_path: Path, content: str) -> None:
    (tmp_path / "set.json").write_text(content)
    with pytest.raises(ArtifactError, match=r"set\.json") as caught:
        ledger.look(tmp_path, "set", {})
    assert caught.value.hint
