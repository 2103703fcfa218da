"""What the tables in a terminal share: how wide it is, and how a chain stands in a cell."""

from __future__ import annotations

NARROW = 110
"""Columns of a terminal below which a table does without some of its own."""

STEP = 13
"""Characters of a step that a narrow table has room for in a line."""


def is_narrow(width: int) -> bool:
    return width < NARROW


def chain_cell(name: str, *, narrow: bool) -> str:
    """Where there is little room, each step of a chain has its line, and a long one's runtime another."""
    from rich.markup import escape

    return escape("+\n".join(map(_broken, name.split("+"))) if narrow else name)


def _broken(step: str) -> str:
    return step if len(step) <= STEP else step.replace("@", "\n@")
