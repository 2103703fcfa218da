"""Numbers in texts from outside."""

from __future__ import annotations

import pytest

from torchstone.core.numbers import whole


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("0017", 17), ("9" * 18, 10**18 - 1)])
def test_whole_numbers(text: str, number: int) -> None:
    assert whole(text) == number


@pytest.mark.parametrize("text", ["", "-1", "1.5", "1e3", " 7", "²", "9" * 19, "9" * 5_000])
def test_what_is_none(text: str) -> None:
    assert whole(text) is None
