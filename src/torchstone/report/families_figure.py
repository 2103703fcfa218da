"""Families of networks in the plane of cost and published accuracy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from torchstone.report import svg
from torchstone.report.labels import Box, place

WIDE, NARROW = 1056, 358
COLOURS = (svg.ACCENT, svg.SECOND, svg.PASS, svg.FAIL, svg.UNDECIDED, svg.MUTED)


@dataclass(frozen=True, kw_only=True)
class Dot:
    """One network."""

    name: str
    family: str
    cost: float
    top1: float


def compared(dots: Sequence[Dot], unit: str, *, narrow: bool = False) -> str:
    """Published top-1 against cost (logarithmic): a line a family, labelled at every network, or on the narrow one at
    the ends of each line."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

    with matplotlib.rc_context(svg.STYLE):
        width, height = (NARROW, 360) if narrow else (WIDE, 470)
        figure = svg.canvas(width, height)
        left, right, bottom, top = (36, 10, 44, 30) if narrow else (44, 20, 48, 32)
        axes = figure.add_axes(
            (left / width, bottom / height, (width - left - right) / width, (height - top - bottom) / height)
        )
        axes.set_xscale("log")
        low, high = min(dot.cost for dot in dots), max(dot.cost for dot in dots)
        axes.set_xlim(low / 1.7, high * (2.6 if narrow else 1.9))
        values = [dot.top1 for dot in dots]
        room = 0.08 * (max(values) - min(values)) + 0.5
        axes.set_ylim(min(values) - room, max(values) + room)
        named: list[tuple[Dot, str]] = []
        for number, family in enumerate(dict.fromkeys(dot.family for dot in dots)):
            colour = COLOURS[number % len(COLOURS)]
            own = [dot for dot in dots if dot.family == family]
            axes.plot(
                [dot.cost for dot in own], [dot.top1 for dot in own],
                color=colour, marker="o", markersize=6, linewidth=1.5,
            )  # fmt: skip
            named += [(dot, colour) for dot in (own[-1:] if narrow else own)]
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10]))
        axes.grid(axis="y")
        axes.spines["left"].set_visible(False)
        for x, y, text, side in (
            (left, height - top + 14, "published top-1 on ImageNet, %", "left"),
            (width - right, 8, unit, "right"),
        ):
            figure.text(x / width, y / height, text, ha=side, color=svg.MUTED, fontsize=svg.FONT_SIZE)
        renderer = FigureCanvasAgg(figure).get_renderer()
        texts = []
        for dot, colour in named:
            label = dot.family if narrow else dot.name.removeprefix("tf_").removesuffix("_100")
            texts.append(figure.text(0, 0, label, color=colour, ha="left", va="bottom", fontsize=svg.FONT_SIZE - 0.5))
        sizes = [(text.get_window_extent(renderer).width, text.get_window_extent(renderer).height) for text in texts]
        anchors = [tuple(map(float, axes.transData.transform((dot.cost, dot.top1)))) for dot, _ in named]
        spots = [tuple(map(float, axes.transData.transform((dot.cost, dot.top1)))) for dot in dots]
        obstacles = [Box(x - 4, y - 4, x + 4, y + 4) for x, y in spots]
        frame = axes.get_window_extent()
        area = Box(frame.x0, frame.y0, frame.x1, frame.y1)
        boxes = place([(x, y) for x, y in anchors], sizes, obstacles, _along(dots, spots), area)
        for text, box in zip(texts, boxes, strict=True):
            text.set_position((box.left / width, box.bottom / height))
        name = "families-narrow" if narrow else "families-wide"
        return svg.render(figure, name, f"Published top-1 against {unit} for {len(dots)} networks")


def _along(dots: Sequence[Dot], spots: Sequence[tuple[float, ...]]) -> list[Box]:
    """Small boxes along the families' lines, so that labels keep off them."""
    found = []
    for (dot, (x0, y0)), (following, (x1, y1)) in pairwise(zip(dots, spots, strict=True)):
        if dot.family == following.family:
            steps = max(1, int(math.dist((x0, y0), (x1, y1)) / 6))
            for step in range(1, steps):
                x, y = x0 + (x1 - x0) * step / steps, y0 + (y1 - y0) * step / steps
                found.append(Box(x - 3, y - 3, x + 3, y + 3))
    return found
