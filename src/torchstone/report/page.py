"""The template, filled in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from torchstone.report import wording

if TYPE_CHECKING:
    from torchstone.report.context import Page


def render(page: Page) -> str:
    """The whole HTML document of a run."""
    return environment().get_template("template.html.j2").render(page=page)


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
    made.globals["say"] = wording
    return made


def unbroken(text: str) -> Markup:
    """The text, escaped, in which no line ends inside 'top-1'."""
    return escape(text).replace("top-1", Markup('<span class="unbroken">top-1</span>'))
