"""Numbers in texts from outside."""

from __future__ import annotations

DIGITS = 18
"""Of the longest whole number that is read: what 64 bits hold. ``int`` itself refuses texts of over 4,300 digits."""


def whole(text: str) -> int | None:
    """The whole number that ``text`` is, in decimal digits alone; None for any other text."""
    return int(text) if text.isdecimal() and len(text) <= DIGITS else None
