"""What is lost where: by class, by group, by any column."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from torchstone.judge import accuracy, slices


@dataclass
class Answers:
    items: Any
    labels: np.ndarray
    scores: np.ndarray


def pair(n: int = 300) -> tuple[Answers, Answers]:
    """Three classes of which the candidate loses every fifth image of the second."""
    labels = np.arange(n) % 3
    after = np.where((labels == 1) & (np.arange(n) % 5 == 0), 2, labels)
    return Answers(np.arange(n), labels, np.eye(3)[labels]), Answers(np.arange(n), labels, np.eye(3)[after])


def test_the_class_that_loses_comes_first_with_a_bound_for_all_classes_together() -> None:
    one, other = pair()
    found = slices.compare(one, other, [slices.classes(one.labels, ("cat", "dog", "owl"))], 0.95)
    assert [(row.value, row.images, row.lost, row.gained, row.drop) for row in found] == [
        ("dog", 100, 20, 0, 20.0), ("cat", 100, 0, 0, 0.0), ("owl", 100, 0, 0, 0.0),
    ]  # fmt: skip
    assert {row.level for row in found} == {1 - 0.05 / 3}
    assert found[0].drop_upper == 100 * accuracy.upper_bound(20, 0, 100, 1 - 0.05 / 3)


def test_small_slices_are_left_out_and_do_not_count() -> None:
    one, other = pair()
    cells = ["few"] * 19 + ["many"] * 281
    found = slices.compare(one, other, [slices.column("camera", cells)], 0.95)
    assert [(row.column, row.value, row.level) for row in found] == [("camera", "many", 0.95)]
    assert slices.compare(one, other, [slices.column("path", [str(row) for row in range(300)])], 0.95) == ()


def test_many_numbers_are_cut_into_quarters_and_few_are_not() -> None:
    quarters = slices.column("width", [*range(200), None, float("nan")])
    names, sizes = np.unique(quarters.values, return_counts=True)
    assert dict(zip(names.tolist(), sizes.tolist(), strict=True)) == {
        "0 to 49": 50, "50 to 99": 50, "100 to 149": 50, "150 to 199": 50, slices.NONE: 2,
    }  # fmt: skip
    assert set(slices.column("channels", [1, 3, 3, None]).values.tolist()) == {"1", "3", slices.NONE}
    assert set(slices.column("sharp", [True, False]).values.tolist()) == {"True", "False"}


def test_values_that_differ_stay_apart() -> None:
    assert set(slices.column("site", [10000001, 10000002, 1.0, 0.25]).values.tolist()) == {
        "10000001", "10000002", "1", "0.25",
    }  # fmt: skip
    taken = slices.column("taken", [1_790_000_000 + second for second in range(100)])
    assert set(taken.values.tolist()) == {
        f"{1_790_000_000 + first} to {1_790_000_024 + first}" for first in (0, 25, 50, 75)
    }  # fmt: skip
    assert slices.typed(["1.5", "", "nan"]) == ["1.5", None, None]  # few different ones are names
    assert slices.typed([str(number) for number in range(30)]) == list(range(30))
    assert slices.typed([*map(str, range(30)), "north"])[0] == "0"
    assert slices.typed([*map(str, range(30)), "n/a", "NA"])[29:] == [29, None, None]
    assert slices.typed([*range(30), "n/a"])[29:] == [29, None]  # as JSON has them
    assert slices.typed(["1", "2", "n/a", ""]) == ["1", "2", None, None]
    assert slices.typed(["n/a", "-"]) == ["n/a", "-"]
    assert slices.words_among_numbers([*map(str, range(30)), "n/a", "unknown"]) == ["unknown"]
    assert slices.words_among_numbers([*map(str, range(30)), "n/a"]) == []
    assert slices.words_among_numbers([*"abcdefghijklmnopqrstuvwxyz", "1"]) == []
    assert slices.typed(["NA", "DE"] * 20) == ["NA", "DE"] * 20  # Namibia


def test_groups_widen_the_bounds_of_every_column_but_their_own() -> None:
    one, other = pair()
    names = [f"patient {row // 30}" for row in range(300)]
    groups = np.arange(300) // 30
    columns = [slices.classes(one.labels, ("cat", "dog", "owl")), slices.column("group", names)]
    alone, together = (slices.compare(one, other, columns, 0.95, used) for used in (None, groups))
    by_class = [[row.drop_upper for row in found if row.column == "class"] for found in (alone, together)]
    assert by_class[1][0] == by_class[0][0]  # what is lost of the dogs is spread over all patients
    assert all(wide > 2 * narrow for narrow, wide in zip(by_class[0][1:], by_class[1][1:], strict=True))
    assert [row for row in alone if row.column == "group"] == [row for row in together if row.column == "group"]
