"""The templates of this room, and what they may call."""

from __future__ import annotations

import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from torchstone.report import wording
from torchstone.train import coach

_FLAG = re.compile(r"--[a-z][a-z-]*(?: \w+=[^\s;,)]+)?")


def environment() -> Environment:
    """The templates of this room. Every string that does not come from it is escaped."""
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["figure"] = Markup  # made in figures.py, whose texts matplotlib has escaped
    made.filters["unbroken"] = unbroken
    made.filters["flags"] = flags
    made.filters["by_steps"] = by_steps
    made.filters["check_title"] = coach.title
    made.globals["say"] = wording
    return made


def flags(text: str) -> Markup:
    """The text, escaped, with what is typed of it set as such: ``--set lr=0.01``, in which no line ends."""
    return Markup(_FLAG.sub(r'<code class="unbroken">\g<0></code>', str(escape(text))))


def by_steps(chain: str) -> Markup:
    """The chain, escaped, in which a line may end between two steps and before the runtime."""
    return Markup(re.sub(r"\+|(?=@)", r"\g<0><wbr>", str(escape(chain))))


def unbroken(text: str) -> Markup:
    """The text, escaped, in which no line ends inside 'top-1'."""
    return escape(text).replace("top-1", Markup('<span class="unbroken">top-1</span>'))
