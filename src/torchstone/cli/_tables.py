"""What the tables in a terminal share: how wide it is, and how a chain stands in a cell."""

from __future__ import annotations

NARROW = 110
"""Columns of a terminal below which a table does without some of its own."""


def is_narrow(width: int) -> bool:
    return width < NARROW


def chain_cell(name: str, *, narrow: bool) -> str:
    """Where there is little room, each step of a chain has its line."""
    from rich.markup import escape

    return escape(name.replace("+", "+\n") if narrow else name)
