"""matplotlib figures as inline SVG with real text, in the colours and the font of the page around them.

Figures are drawn in placeholder colours, one for each role. ``render`` replaces them by CSS variables, so that one
figure serves the light and the dark page. One figure unit is one CSS pixel (72 dots an inch).
"""

from __future__ import annotations

import math
import re
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#1b2733"
MUTED = "#5c6b79"
LINE = "#d7dee6"
PAPER = "#fefefd"
ACCENT = "#0a67a5"
SECOND = "#b3590b"
PASS = "#0b7a69"
FAIL = "#b23c0d"
UNDECIDED = "#86630b"
VOID = "#5d6a78"
SHADE = "#f0e3da"

VARIABLES = {
    INK: "ink", MUTED: "muted", LINE: "line", PAPER: "paper", ACCENT: "accent", SECOND: "second",
    PASS: "pass", FAIL: "fail", UNDECIDED: "undecided", VOID: "void", SHADE: "shade",
}  # fmt: skip

FONT_SIZE = 12.0

STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "torchstone",
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": FONT_SIZE,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 1.0,
    "axes.facecolor": "none",
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": LINE,
    "grid.linewidth": 0.75,
    "figure.facecolor": "none",
    "figure.dpi": 72,
    "lines.linewidth": 2.0,
    "lines.solid_capstyle": "round",
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.major.size": 4,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
}

_STYLE_ATTRIBUTE = re.compile(r'style="[^"]*"')
_COLOUR = re.compile(r"#[0-9a-f]{6}")
_FONT_FAMILY = re.compile(r"font-family: [^;\"]+")


def canvas(width: float, height: float) -> Figure:
    """An empty figure of so many CSS pixels. Call inside ``matplotlib.rc_context(STYLE)``."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width / 72, height / 72))


def label_ends(axes: Axes, ends: list[tuple[float, str, str]], apart: float = 15) -> None:
    """The lines' names at their right ends, moved apart (pixels) where the lines meet: of each its last value, its name
    and its colour."""
    frame = axes.get_window_extent()
    previous = -math.inf
    for value, label, colour in sorted(ends):
        height = max(float(axes.transData.transform((axes.get_xlim()[0], value))[1]), previous + apart)
        previous = height
        axes.text(
            1.02, (height - frame.y0) / frame.height, label, transform=axes.transAxes, ha="left",
            va="center_baseline", color=colour,
        )  # fmt: skip


def render(figure: Figure, name: str, description: str) -> str:
    """The figure as an ``<svg>`` element: ids begin with ``name``, ``description`` is its text alternative."""
    import io

    from markupsafe import escape

    buffer = io.StringIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # the browser has other fonts
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    width, height = (side * 72 for side in figure.get_size_inches())
    text = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", buffer.getvalue(), flags=re.DOTALL)
    body = text[text.index(">", text.index("<svg")) + 1 : text.rindex("</svg>")]
    body = re.sub(r"<style[^>]*>.*?</style>", "", body, flags=re.DOTALL)
    body = _STYLE_ATTRIBUTE.sub(_themed, body)
    body = re.sub(r'id="([^"]*)"', rf'id="{name}-\1"', body)
    body = re.sub(r"url\(#", f"url(#{name}-", body)
    body = re.sub(r' transform="rotate\(-?0 [^"]*"', "", body)
    body = re.sub(r'xlink:href="#', f'href="#{name}-', body)
    body = re.sub(r">\s+<", "><", body)
    return (
        f'<svg class="figure" viewBox="0 0 {width:g} {height:g}" style="max-width:{width:g}px" role="img" '
        f'aria-label="{escape(description)}">{body.strip()}</svg>'
    )


def _themed(attribute: re.Match[str]) -> str:
    """A style attribute with the page's colours and font."""
    style = _FONT_FAMILY.sub("font-family: var(--font)", attribute.group())
    return _COLOUR.sub(
        lambda found: f"var(--{VARIABLES[found.group()]})" if found.group() in VARIABLES else found.group(), style
    )
