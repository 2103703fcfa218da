"""Numbers as a reader sees them. A bound is rounded to its own bad side, so that no printed bound claims too much."""

from __future__ import annotations

import math

NONE = "—"
MINUS = "\N{MINUS SIGN}"


def fixed(value: float | None, digits: int = 2) -> str:
    """``value`` with so many decimals, a true minus sign and no negative zero; a dash for None."""
    if value is None:
        return NONE
    text = f"{value:,.{digits}f}"
    if float(text.replace(",", "")) == 0:
        text = text.lstrip("-")
    return text.replace("-", MINUS)


def at_most(value: float | None, digits: int = 2) -> str:
    """An upper bound, rounded up."""
    return NONE if value is None else fixed(math.ceil(value * 10**digits - 1e-9) / 10**digits, digits)


def at_least(value: float | None, digits: int = 2) -> str:
    """A lower bound, rounded down."""
    return NONE if value is None else fixed(math.floor(value * 10**digits + 1e-9) / 10**digits, digits)


def signed(value: float | None, digits: int = 2) -> str:
    """``value`` with its sign always shown, except for zero."""
    text = fixed(value, digits)
    return text if value is None or text.startswith(MINUS) or not text.strip("0.,") else f"+{text}"


def signed_short(value: float) -> str:
    """As short as it can be, with its sign: +1, −0.5, 0."""
    return "0" if abs(value) < 1e-9 else f"{value:+.3g}".replace("-", MINUS)


def count(value: int | None) -> str:
    return NONE if value is None else f"{value:,}"


def decimals(value: float, digits: int = 3) -> int:
    """How many decimals show ``digits`` significant digits of ``value``, at most three."""
    return 0 if value == 0 else min(3, max(0, digits - 1 - math.floor(math.log10(abs(value)))))


def milliseconds(value: float | None) -> str:
    """Three significant digits without the unit: 42.6, 7.24, 0.813."""
    return NONE if value is None else fixed(value, decimals(value))


def times(value: float | None) -> str:
    """A ratio: 5.87×, 10.4×."""
    return NONE if value is None else f"{fixed(value, min(2, decimals(value)))}×"


def at_least_times(value: float | None) -> str:
    """A lower bound of a ratio, rounded down."""
    return NONE if value is None else f"{at_least(value, min(2, decimals(value)))}×"


def at_most_times(value: float | None) -> str:
    """An upper bound of a ratio, rounded up."""
    return NONE if value is None else f"{at_most(value, min(2, decimals(value)))}×"


def megabytes(value: float | None) -> str:
    """10⁶ bytes, without the unit."""
    return NONE if value is None else fixed(value, max(1, min(2, decimals(value, 2))))


def per_cent(value: float | None, digits: int = 2) -> str:
    """A value that already is a percentage, without the sign."""
    return fixed(value, digits)


def level(value: float) -> str:
    """A confidence level: 0.975 → ``97.5 %``."""
    return f"{value * 100:.4g} %"


def shortened(text: str, length: int) -> str:
    """``text`` with its middle left out where it is longer than ``length``: both ends of a name tell things apart."""
    if len(text) <= length:
        return text
    head = (length - 1) * 2 // 3
    return f"{text[:head]}…{text[len(text) - (length - 1 - head) :]}"
