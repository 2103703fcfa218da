"""Numbers as a reader sees them, rounded as in the reasons that the judge gives: two decimals for points and ratios,
and bounds to the side on which they still hold."""

from __future__ import annotations

import math

from torchstone.core.numbers import rounded_down, rounded_up
from torchstone.core.values import LESS_IS_BETTER, METRICS, Metric

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


def at_least(value: float | None, digits: int = 2) -> str:
    """A lower bound, as ``fixed`` and rounded downwards."""
    return NONE if value is None else fixed(rounded_down(value, digits), digits)


def at_most(value: float | None, digits: int = 2) -> str:
    """An upper bound, as ``fixed`` and rounded upwards."""
    return NONE if value is None else fixed(rounded_up(value, digits), digits)


def change(drop: float, upper: float, unit: str = "") -> str:
    """Points lost or gained, and the bound of the loss: ``loses 3.1 (at most 5.0)``, ``gains 1.6 (loses at most 1.0)``;
    a drop bounded below zero is a proven gain: ``gains 3.1 (at least 1.2)``. ``unit`` stands behind the number."""
    unit, said = unit and f" {unit}", fixed(abs(drop), 1)
    if drop >= 0 or not said.strip("0."):
        return f"loses {said}{unit} (at most {at_most(upper, 1)})"
    if upper < 0:
        return f"gains {said}{unit} (at least {fixed(rounded_down(-upper, 1), 1)})"
    return f"gains {said}{unit} (loses at most {at_most(upper, 1)})"


def signed(value: float | None, digits: int = 2) -> str:
    """``value`` with its sign always shown, except for zero."""
    text = fixed(value, digits)
    return text if value is None or text.startswith(MINUS) or not text.strip("0.,") else f"+{text}"


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, whichever is read most easily."""
    if seconds < 120:
        return f"{seconds:.{0 if seconds >= 10 else 1}f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"


def took(seconds: float | None) -> str:
    """As ``duration``, with its unit cut short for a table: 0.4 s, 12 s, 3.1 min, 2.0 h; a dash for None."""
    if seconds is None:
        return NONE
    if seconds < 99.5:
        return f"{seconds:.{0 if seconds >= 9.95 else 1}f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5970 else f"{seconds / 3600:.1f} h"


def signed_short(value: float) -> str:
    """As short as it can be, with its sign: +1, −0.5, 0."""
    return "0" if abs(value) < 1e-9 else f"{value:+.3g}".replace("-", MINUS)


def count(value: int) -> str:
    """With thousands separated."""
    return f"{value:,}"


def counted(value: int) -> str:
    """In full below a million, else with three significant digits: 62,006, 11.2 million, 3.64 billion."""
    for size, name in ((1e9, "billion"), (1e6, "million")):
        if value >= size:
            return f"{fixed(value / size, decimals(value / size))} {name}"
    return count(value)


def plural(value: int, one: str, several: str | None = None) -> str:
    """A count with its noun: 1 image, 1,850 images."""
    return f"{count(value)} {one if value == 1 else several or one + 's'}"


def decimals(value: float, digits: int = 3) -> int:
    """How many decimals show ``digits`` significant digits of ``value``, at most three."""
    return 0 if value == 0 else min(3, max(0, digits - 1 - math.floor(math.log10(abs(value)))))


def milliseconds(value: float | None, digits: int | None = None) -> str:
    """So many decimals, or three significant digits: 42.6, 7.24, 0.813. Without the unit."""
    return NONE if value is None else fixed(value, decimals(value) if digits is None else digits)


def milliseconds_at_most(value: float | None) -> str:
    """An upper bound of a latency, as ``milliseconds``."""
    return NONE if value is None else at_most(value, decimals(value))


def milliseconds_between(lower: float, upper: float) -> str:
    """Both bounds of a latency, as ``milliseconds``."""
    return f"{at_least(lower, decimals(lower))} to {at_most(upper, decimals(upper))}"


def times(value: float | None, digits: int = 2) -> str:
    """A ratio, as 5.87×."""
    return NONE if value is None else f"{fixed(value, digits)}×"


def times_at_least(value: float | None, digits: int = 2) -> str:
    """A lower bound of a ratio."""
    return NONE if value is None else f"{at_least(value, digits)}×"


def times_between(lower: float, upper: float) -> str:
    """Both bounds of a ratio."""
    return f"{at_least(lower)}× to {at_most(upper)}×"


def megabytes(value: float | None) -> str:
    """10⁶ bytes, without the unit: a decimal from 10 on, two below."""
    return NONE if value is None else fixed(value, 1 if value >= 10 else 2)


def per_cent(value: float | None, digits: int = 2) -> str:
    """A value that already is a percentage, without the sign."""
    return fixed(value, digits)


def between(interval: tuple[float, float]) -> str:
    """Both ends of a 95 % interval of per cent: ``95 %: 79.8 to 99.3``."""
    return f"95 %: {at_least(interval[0], 1)} to {at_most(interval[1], 1)}"


def loss_of(metric: Metric) -> str:
    """What points lost are called."""
    return "rise" if metric in LESS_IS_BETTER else "drop"


def drop_of(metric: Metric) -> str:
    """The same, and of what."""
    return f"{loss_of(metric)} of {METRICS[metric]}"


def change_of(metric: Metric) -> str:
    """What points won are called, of which a drop is negative."""
    return f"{'fall' if metric in LESS_IS_BETTER else 'change'} of {METRICS[metric]}"


def capital(text: str) -> str:
    """The first letter large, the others as they are."""
    return text[:1].upper() + text[1:]


def level(value: float) -> str:
    """A confidence level: 0.975 → ``97.5 %``."""
    return f"{value * 100:.4g} %"


def shortened(text: str, length: int) -> str:
    """``text`` with its middle left out where it is longer than ``length``: both ends of a name tell things apart."""
    if len(text) <= length:
        return text
    head = (length - 1) * 2 // 3
    return f"{text[:head]}…{text[len(text) - (length - 1 - head) :]}"
