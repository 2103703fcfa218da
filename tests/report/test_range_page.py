"""The page of a learning-rate range test, with and without a proposal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from torchstone.report import range_page
from torchstone.train import range_test

RATES = np.geomspace(1e-6, 1, 60)


@pytest.mark.parametrize("falls", [True, False])
def test_the_page_says_what_is_proposed_and_draws_the_curve(falls: bool, tmp_path: Path) -> None:
    losses = np.where(falls * (RATES > 1e-3) * (RATES < 0.1), 1.2, 2.3)
    curve = range_test.read(RATES, losses, diverged=False)
    page = range_page.write(curve, 2e-3, tmp_path / "sub" / "learning_rate.html").read_text()
    assert (curve.proposed is not None) == falls
    assert (f"--lr {curve.proposed}" in page) == falls
    assert ("does not say" in page) != falls
    assert page.count("<svg") == 2, "for a wide and a narrow window"
    assert "0.0001<" in page, "rates are written as people write them"
    assert "mathdefault" not in page
    assert "recipe's 0.002" in page.replace("&#39;", "'")
