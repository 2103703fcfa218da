"""Numbers in texts: read from outside, and bounds rounded for whoever reads them."""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any

DIGITS = 18
"""Of the longest whole number that is read: what 64 bits hold. ``int`` itself refuses texts of over 4,300 digits."""
EXACT = 6
"""Decimals, beyond those shown, below which a difference is taken for that of binary fractions: 0.1 + 0.2 is 0.3."""


def whole(text: str) -> int | None:
    """The whole number that ``text`` is, in decimal digits alone; None for any other text."""
    return int(text) if text.isdecimal() and len(text) <= DIGITS else None


def is_number(cell: Any) -> bool:
    """Whether ``float`` reads it: a number, or a text of one."""
    try:
        float(cell)
    except (TypeError, ValueError):
        return False
    return True


def rounded_down(value: float, digits: int) -> float:
    """A lower bound as it may be printed: 'at least 1.96' is no 'at least 2.0'."""
    return _rounded(value, digits, ROUND_FLOOR)


def rounded_up(value: float, digits: int) -> float:
    """An upper bound as it may be printed: 'at most 0.54' is no 'at most 0.5'."""
    return _rounded(value, digits, ROUND_CEILING)


def _rounded(value: float, digits: int, how: str) -> float:
    if not math.isfinite(value):
        return value
    return float(Decimal(f"{value:.{digits + EXACT}f}").quantize(Decimal(1).scaleb(-digits), rounding=how))
