"""The template, filled in."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from torchstone.report import wording
from torchstone.report.context import Page


def render(page: Page) -> str:
    """The whole HTML document. Every string that does not come from this room is escaped."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure"] = Markup  # made in figures.py, whose texts matplotlib has escaped
    environment.filters["unbroken"] = unbroken
    environment.globals["say"] = wording
    return environment.get_template("template.html.j2").render(page=page)


def unbroken(text: str) -> Markup:
    """The text, escaped, in which no line ends inside 'top-1'."""
    return escape(text).replace("top-1", Markup('<span class="unbroken">top-1</span>'))
