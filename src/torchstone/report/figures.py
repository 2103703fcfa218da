"""The report's figures: accuracy against latency and against size, the quartets of a timing session."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from torchstone.report import svg, wording
from torchstone.report.labels import Box, place

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Quantity = Literal["latency", "size"]
AXIS: dict[Quantity, str] = {
    "latency": "latency at batch 1, ms  (left is faster)", "size": "size of the model's files, MB  (left is smaller)",
}  # fmt: skip
WIDE, NARROW = 1056, 358
HEIGHTS: dict[Quantity, tuple[int, int]] = {"latency": (470, 330), "size": (380, 300)}
"""Of the wide and the narrow figure."""
OUTCOMES = {
    "pass": (svg.PASS, "o"),
    "fail": (svg.FAIL, "X"),
    "undecided": (svg.UNDECIDED, "D"),
    "void": (svg.VOID, "s"),
}
TICK = 46
"""Pixels that the number below a tick takes at most, with some room."""

PAGE_FONT = 0.93
"""Width of the page's font against DejaVu Sans, in which matplotlib measures; Arial's is 0.85 to 0.89 of it."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """A candidate: its latency (ms), size (MB) and change of what the margin is about (points, negative is worse), with
    the intervals; where nothing is claimed, they have no length."""

    number: int
    name: str
    kind: Literal["baseline", "tested", "screened"]
    outcome: str
    winner: bool
    latency: float
    latency_interval: tuple[float, float]
    size: float
    change: float
    change_interval: tuple[float, float]
    front: bool
    """No other is as accurate, as fast and as small."""

    def across(self, quantity: Quantity) -> tuple[float, float, float]:
        """Where it lies on the axis of this quantity, and both ends of its interval."""
        if quantity == "size":
            return self.size, self.size, self.size
        return self.latency, *self.latency_interval


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The budget's lines in the same plane; None is not drawn."""

    max_drop: float
    latency: float | None
    latency_label: str = ""
    size: float | None = None
    change: str = "change of top-1"
    """What the margin is about: the other axis."""

    def across(self, quantity: Quantity) -> tuple[float | None, str]:
        """The line on the axis of this quantity, and what it is called."""
        if quantity == "size":
            return self.size, "" if self.size is None else f"budget {self.size:g} MB"
        return self.latency, self.latency_label


def scatter(points: Sequence[Point], limits: Limits, quantity: Quantity = "latency", *, narrow: bool = False) -> str:
    """Change of what the margin is about against latency or size. The narrow one, for telephones, is labelled with the
    rows' numbers."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with matplotlib.rc_context(svg.STYLE):
        width, height = (NARROW if narrow else WIDE), HEIGHTS[quantity][narrow]
        figure = svg.canvas(width, height)
        left, right, bottom, top = (44, 8, 44, 30) if narrow else (52, 16, 48, 32)
        axes = figure.add_axes(
            (left / width, bottom / height, (width - left - right) / width, (height - top - bottom) / height)
        )
        floor, ceiling = _change_range(points, limits)
        axes.set_ylim(floor, ceiling)
        _cost_axis(axes, points, limits, quantity)
        _draw_limits(axes, limits, floor, quantity)
        for point in points:
            _draw_point(axes, point, floor, quantity)
        for x, y, text, side in (
            (left, height - top + 14, f"{limits.change}, points", "left"),
            (width - right, 8, AXIS[quantity], "right"),
        ):
            figure.text(x / width, y / height, text, ha=side, color=svg.MUTED, fontsize=svg.FONT_SIZE)
        _label_points(axes, points, limits, quantity, FigureCanvasAgg(figure).get_renderer(), narrow=narrow)
        name = f"{'scatter' if quantity == 'latency' else quantity}-{'narrow' if narrow else 'wide'}"
        return svg.render(
            figure, name, f"{wording.capital(limits.change)} against {quantity} for {len(points)} candidates"
        )


def _change_range(points: Sequence[Point], limits: Limits) -> tuple[float, float]:
    """What the y axis shows: everything, except that points far below the margin are drawn at its foot."""
    deepest = 4 * limits.max_drop
    lows = [point.change_interval[0] for point in points if point.kind == "tested" and point.change > -deepest]
    lows += [point.change_interval[0] for point in points if point.change_interval[0] > -deepest]
    low = min([-1.35 * limits.max_drop, *lows])
    high = max([0.35 * limits.max_drop, *(point.change_interval[1] for point in points)])
    room = 0.07 * (high - low)
    return low - room, high + room


def _cost_axis(axes: Axes, points: Sequence[Point], limits: Limits, quantity: Quantity) -> None:
    """Logarithmic where the dearest costs more than three times as much as the cheapest."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter

    limit, _ = limits.across(quantity)
    shown = [value for point in points for value in point.across(quantity)]
    shown += [limit] if limit else []
    low, high = min(shown), max(shown)
    if low > 0 and high > 3 * low:
        axes.set_xscale("log")
        axes.set_xlim(low / (high / low) ** 0.2, high * (high / low) ** 0.09)
        first, last = axes.get_xlim()
        decades = range(math.floor(math.log10(first)), math.ceil(math.log10(last)) + 1)
        ways = ([step * 10.0**decade for decade in decades for step in steps] for steps in ((1, 2, 5), (1, 3), (1,)))
        seen = [[tick for tick in ticks if first <= tick <= last] for ticks in ways]
        room = axes.get_window_extent().width // TICK
        axes.xaxis.set_major_locator(FixedLocator(next((ticks for ticks in seen if len(ticks) <= room), seen[-1])))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        room = 0.1 * (high - low) or 0.1 * high
        axes.set_xlim(max(0.0, low - room), high + room)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=9, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: wording.signed_short(value)))
    axes.grid(axis="y")
    axes.spines["left"].set_visible(False)


def _draw_limits(axes: Axes, limits: Limits, floor: float, quantity: Quantity) -> None:
    """The margin with what lies beyond it shaded, and the latency or size that the budget asks for."""
    axes.axhspan(floor, -limits.max_drop, color=svg.SHADE, alpha=0.55, linewidth=0)
    axes.axhline(-limits.max_drop, color=svg.FAIL, linewidth=1.25, linestyle=(0, (5, 3)))
    axes.axhline(0, color=svg.MUTED, linewidth=1)
    axes.annotate(
        f"margin {wording.MINUS}{limits.max_drop:g}", (1, -limits.max_drop), xycoords=("axes fraction", "data"),
        xytext=(-2, -4), textcoords="offset points", ha="right", va="top", color=svg.FAIL,
    )  # fmt: skip
    limit, label = limits.across(quantity)
    if limit is not None:
        axes.axvline(limit, color=svg.MUTED, linewidth=1.25, linestyle=(0, (5, 3)))
        late = _pixels(axes, limit, floor)[0] > axes.get_window_extent().x1 - 7.5 * len(label)
        axes.annotate(
            label, (limit, 1), xycoords=("data", "axes fraction"), xytext=(-5 if late else 5, -1),
            textcoords="offset points", ha="right" if late else "left", va="top", color=svg.MUTED,
        )  # fmt: skip


def _draw_point(axes: Axes, point: Point, floor: float, quantity: Quantity) -> None:
    """One candidate: filled and coloured where it met the test set, hollow and grey where it was only screened."""
    colour, marker = OUTCOMES.get(point.outcome, (svg.MUTED, "o"))
    tested = point.kind == "tested"
    if point.kind == "baseline":
        colour, marker = svg.INK, "s"
    across, *interval = point.across(quantity)
    if point.change < floor:
        axes.plot(across, floor, marker="v", color=colour, markersize=9, clip_on=False, linestyle="none")
        return
    bars = {"color": colour, "linewidth": 1.5 if tested else 1.0, "alpha": 1.0 if tested else 0.6, "zorder": 2}
    axes.plot(interval, (point.change, point.change), **bars)
    axes.plot((across, across), point.change_interval, **bars)
    if point.winner:
        axes.plot(across, point.change, "o", markersize=19, color="none", markeredgecolor=colour, zorder=3)
    axes.plot(
        across, point.change, marker=marker, markersize=9 if point.kind != "screened" else 7,
        color=colour if point.kind != "screened" else svg.PAPER, markeredgecolor=colour, markeredgewidth=1.5,
        linestyle="none", zorder=4,
    )  # fmt: skip


def _label_points(
    axes: Axes, points: Sequence[Point], limits: Limits, quantity: Quantity, renderer: Any, *, narrow: bool
) -> None:
    """Names (numbers in the narrow figure) beside their points, the tested ones first; those on the front in bold."""
    from matplotlib.font_manager import FontProperties

    floor = axes.get_ylim()[0]
    order = sorted(points, key=lambda point: (point.kind == "screened", point.across(quantity)))
    anchors = [_pixels(axes, point.across(quantity)[0], max(floor, point.change)) for point in order]
    texts = [_label(point, floor, narrow=narrow) for point in order]
    weights = ["bold" if point.front else "normal" for point in order]
    sizes = []
    for text, weight in zip(texts, weights, strict=True):
        width, height, _ = renderer.get_text_width_height_descent(
            text, FontProperties(size=svg.FONT_SIZE, weight=weight), False
        )
        sizes.append((PAGE_FONT * width, height))
    obstacles = [Box(x - 9, y - 9, x + 9, y + 9) for x, y in anchors]
    obstacles += [_box(text.get_window_extent(renderer)) for text in axes.texts]
    boxes = place(
        anchors, sizes, obstacles, _lines(axes, points, limits, quantity), _box(axes.get_window_extent(renderer))
    )
    inverse = axes.transData.inverted()
    for point, text, weight, (x, y), box in zip(order, texts, weights, anchors, boxes, strict=True):
        side, edge = "center", (box.left + box.right) / 2
        if box.left >= x:
            side, edge = "left", box.left
        elif box.right <= x:
            side, edge = "right", box.right
        near = box.nearest(x, y)
        if math.dist(near, (x, y)) > 13:
            ends = inverse.transform([(x, y), near])
            axes.plot(ends[:, 0], ends[:, 1], color=svg.MUTED, linewidth=0.75, zorder=1)
        across, up = inverse.transform((edge, (box.bottom + box.top) / 2))
        axes.text(
            across, up, text, ha=side, va="center_baseline", weight=weight,
            color=svg.INK if point.front or point.kind != "screened" else svg.MUTED, zorder=5,
        )  # fmt: skip


def _lines(axes: Axes, points: Sequence[Point], limits: Limits, quantity: Quantity) -> list[Box]:
    """The intervals and the budget's lines as thin boxes."""
    floor, ceiling = axes.get_ylim()
    first, last = axes.get_xlim()
    spans = [((first, last), (level, level)) for level in (0.0, -limits.max_drop)]
    limit, _ = limits.across(quantity)
    spans += [((limit, limit), (floor, ceiling))] if limit else []
    for point in points:
        if point.change >= floor:
            across, first, last = point.across(quantity)
            spans.append(((first, last), (point.change, point.change)))
            spans.append(((across, across), point.change_interval))
    lines = []
    for (left, right), (low, high) in spans:
        (x0, y0), (x1, y1) = _pixels(axes, left, max(floor, low)), _pixels(axes, right, high)
        lines.append(Box(x0 - 2, y0 - 2, x1 + 2, y1 + 2))
    return lines


def _pixels(axes: Axes, x: float, y: float) -> tuple[float, float]:
    across, up = axes.transData.transform((x, y))
    return float(across), float(up)


def _box(extent: Any) -> Box:
    """matplotlib's bounding box as ours."""
    return Box(extent.x0, extent.y0, extent.x1, extent.y1)


def _label(point: Point, floor: float, *, narrow: bool) -> str:
    name = str(point.number) if narrow else wording.shortened(point.name, 34)
    return f"{name}  {wording.fixed(point.change, 1)}" if point.change < floor else name


def quartets(ratios: Sequence[float], lower: float | None, needed: float | None, name: str, description: str) -> str:
    """The ratio of every quartet in the order of measurement, their median, the bound, and what the budget asks."""
    import matplotlib
    import numpy as np
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    with matplotlib.rc_context(svg.STYLE):
        width, height = 340, 136
        figure = svg.canvas(width, height)
        axes = figure.add_axes((48 / width, 22 / height, (width - 48 - 66) / width, (height - 30) / height))
        median = float(np.median(ratios))
        ends = [(median, wording.times(median), svg.ACCENT)]
        axes.axhline(median, color=svg.ACCENT, linewidth=1.5)
        if lower is not None:
            axes.axhline(lower, color=svg.SECOND, linewidth=1.25, linestyle=(0, (4, 3)))
            ends.append((lower, f"≥ {wording.times_at_least(lower)}", svg.SECOND))
        low, high = _usual_range(ratios, lower or median)
        if needed is not None and low - 0.6 * (high - low) <= needed <= high + 0.6 * (high - low):
            low, high = min(low, needed), max(high, needed)
            axes.axhline(needed, color=svg.FAIL, linewidth=1.25, linestyle=(0, (1, 2)))
        room = 0.1 * (high - low)
        axes.set_ylim(low - room, high + room)
        for number, ratio in enumerate(ratios, start=1):
            marker = "o" if low <= ratio <= high else "^" if ratio > high else "v"
            axes.plot(
                number,
                min(max(ratio, low - room), high + room),
                marker,
                color=svg.ACCENT,
                markersize=5,
                alpha=0.7,
                clip_on=False,
            )
        axes.set_xlim(0.4, len(ratios) + 0.6)
        axes.grid(axis="y")
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=2))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=4))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}×"))
        svg.label_ends(axes, ends)
        return svg.render(figure, name, description)


def _usual_range(ratios: Sequence[float], lower: float) -> tuple[float, float]:
    """What the axis shows: all quartets but those far from the rest, which are drawn as arrows at its ends; at least
    3 % around the median, so that a calm session looks calm."""
    import numpy as np

    first, median, last = (float(value) for value in np.quantile(ratios, (0.1, 0.5, 0.9)))
    reach = max(2 * (last - first), 0.03 * median)
    low, high = max(min(ratios), first - reach), min(max(ratios), last + reach)
    return min(low, lower, 0.97 * median), max(high, 1.03 * median)
