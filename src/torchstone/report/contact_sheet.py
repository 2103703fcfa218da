"""A contact sheet of augmented images: one row an image, first as evaluation sees it, then as each epoch does."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from torchstone.report.pictures import data_uri
from torchstone.report.templates import environment

TILE = 144
"""Pixels of a picture on the sheet; smaller ones are enlarged by a whole number, so that they stay sharp."""
GAP, MARGIN, HEAD, LABEL = 6, 24, 62, 22
BETWEEN = 18
"""Pixels between the original and its views."""
PAPER, INK, MUTED = "#ffffff", "#1b2733", "#566574"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One image."""

    path: str
    label: str
    original: NDArray[np.uint8]
    """uint8[size, size, 3]: the evaluation's pixels."""
    views: Sequence[NDArray[np.uint8]]
    """uint8[size, size, 3] of each epoch."""

    @property
    def uris(self) -> list[str]:
        return [data_uri(pixels) for pixels in (self.original, *self.views)]


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """All that is shown."""

    policy: str
    size: int
    seed: int
    rows: Sequence[Row]

    @property
    def title(self) -> str:
        return f"Augmentation policy {self.policy}"

    @property
    def subtitle(self) -> str:
        return f"{self.size} by {self.size} pixels, seed {self.seed}"

    @property
    def columns(self) -> list[str]:
        return ["as evaluated", *(f"epoch {number + 1}" for number in range(len(self.rows[0].views)))]


def render(sheet: Sheet, suffix: str) -> bytes:
    """The sheet as the content of a ``.png`` or ``.html`` file."""
    if suffix == ".html":
        return environment().get_template("contact_sheet.html.j2").render(sheet=sheet).encode()
    buffer = io.BytesIO()
    _drawn(sheet).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _drawn(sheet: Sheet) -> Image.Image:
    side = _tile(sheet.rows[0].original).width
    columns = sheet.columns
    width = 2 * MARGIN + len(columns) * (side + GAP) - GAP + BETWEEN
    height = 2 * MARGIN + HEAD + len(sheet.rows) * (LABEL + side + GAP)
    canvas = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(canvas)
    pen.text((MARGIN, MARGIN), sheet.title, INK, ImageFont.load_default(20))
    pen.text((MARGIN, MARGIN + 28), sheet.subtitle, MUTED, ImageFont.load_default(13))
    small = ImageFont.load_default(13)
    for number, row in enumerate(sheet.rows):
        top = MARGIN + HEAD + number * (LABEL + side + GAP)
        for column, pixels in enumerate((row.original, *row.views)):
            left = MARGIN + column * (side + GAP) + (BETWEEN if column else 0)
            canvas.paste(_tile(pixels), (left, top + LABEL))
            if column and number:
                continue
            text = row.label if not column else columns[column]
            pen.text((left, top + LABEL - 5), _shortened(text, small, side), INK if not column else MUTED, small, "ls")
    return canvas


def _tile(pixels: NDArray[np.uint8]) -> Image.Image:
    image = Image.fromarray(np.ascontiguousarray(pixels))
    times = TILE // image.width
    if times > 1:
        return image.resize((times * image.width, times * image.height), Image.Resampling.NEAREST)
    image.thumbnail((TILE, TILE), Image.Resampling.LANCZOS)
    return image


def _shortened(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """The text, or its beginning with dots (Pillow's own font has no ellipsis), in at most ``width`` pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."
