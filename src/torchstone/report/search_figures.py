"""The figures of a search: its trials one after the other, one objective against another, an option against what it
brings, the epochs of all trials."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from torchstone.report import svg
from torchstone.report.labels import Box, place

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDE, NARROW = 1056, 358
PANEL = 330
MARKS = "osD^vPX*"


@dataclass(frozen=True, kw_only=True)
class Point:
    """A finished trial in a plane."""

    x: float
    y: float
    label: str
    best: bool
    kind: int = 0
    """Points of different kinds have different marks."""


def both(draw: Callable[[bool], str]) -> tuple[str, str]:
    """The figure for the wide page and for the narrow one."""
    return draw(False), draw(True)


def history(values: Sequence[tuple[int, float]], stopped: Sequence[int], sign: int, title: str, *, narrow: bool) -> str:
    """Each finished trial, and the best value so far as a line; a cross at the foot is a trial that was stopped."""
    import matplotlib

    with matplotlib.rc_context(svg.STYLE):
        figure, axes = _frame(NARROW if narrow else WIDE, 240 if narrow else 280, bottom=44)
        numbers = [number for number, _ in values]
        found = [value for _, value in values]
        record = [sign * max(sign * value for value in found[: place + 1]) for place in range(len(found))]
        last = max([*numbers, *stopped])
        axes.step([*numbers, last], [*record, record[-1]], where="post", color=svg.ACCENT, linewidth=1.5)
        axes.plot(numbers, found, "o", color=svg.MUTED, markersize=5, alpha=0.75)
        place = record.index(record[-1])
        axes.plot(numbers[place], found[place], "o", color=svg.ACCENT, markersize=9)
        _at_the_foot(axes, stopped)
        _whole_numbers(axes)
        axes.set_xlabel("trial", loc="right")
        name = f"history-{'narrow' if narrow else 'wide'}"
        return svg.render(
            figure, name, f"{title} of each trial; the line is the best so far, {record[-1]:.4g} at the end"
        )


def trade(points: Sequence[Point], across: str, up: str, *, narrow: bool) -> str:
    """One objective against another; the trials that no other one beats are joined and named."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with matplotlib.rc_context(svg.STYLE):
        figure, axes = _frame(NARROW if narrow else WIDE, 280 if narrow else 360, bottom=44)
        front = sorted((point for point in points if point.best), key=lambda point: point.x)
        axes.plot([point.x for point in front], [point.y for point in front], color=svg.ACCENT, linewidth=1.25)
        for point in points:
            colour, size = (svg.ACCENT, 8) if point.best else (svg.MUTED, 5)
            mark = MARKS[point.kind % len(MARKS)]
            axes.plot(point.x, point.y, mark, color=colour, markersize=size, alpha=1 if point.best else 0.75)
        axes.margins(x=0.05, y=0.14)
        axes.set_xlabel(across, loc="right")
        _name(axes, front, points, FigureCanvasAgg(figure).get_renderer())
        name = f"trade-{'narrow' if narrow else 'wide'}"
        return svg.render(figure, name, f"{up} against {across} of {len(points)} trials, {len(front)} of them best")


def learning(
    lines: Mapping[int, Mapping[int, float]], stopped: set[int], best: Sequence[int], title: str, *, narrow: bool
) -> str:
    """The epochs of every trial: the best in colour, the finished ones grey, the stopped ones dashed to their end."""
    import matplotlib

    with matplotlib.rc_context(svg.STYLE):
        figure, axes = _frame(NARROW if narrow else WIDE, 240 if narrow else 300, bottom=44)
        for number, line in lines.items():
            if not line or number in best:
                continue
            style = (0, (2, 2)) if number in stopped else "-"
            axes.plot(list(line), list(line.values()), color=svg.MUTED, linewidth=1, alpha=0.6, linestyle=style)
            if number in stopped:
                axes.plot(max(line), line[max(line)], "x", color=svg.MUTED, markersize=5)
        for number in best:
            if line := lines.get(number):
                axes.plot(list(line), list(line.values()), color=svg.ACCENT, linewidth=2)
        _whole_numbers(axes)
        axes.set_xlabel("epoch", loc="right")
        name = f"learning-{'narrow' if narrow else 'wide'}"
        return svg.render(
            figure, name, f"{title} after each epoch of {len(lines)} trials, {len(stopped)} of them stopped"
        )


def against(
    points: Sequence[Point],
    stopped: Sequence[float],
    option: str,
    up: str,
    choices: Sequence[str] | None,
    *,
    log: bool,
) -> str:
    """What each value of one option brought; a cross at the foot is a trial that was stopped."""
    import matplotlib
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    with matplotlib.rc_context(svg.STYLE):
        figure, axes = _frame(PANEL, 190, bottom=32)
        if log:
            axes.set_xscale("log")
            shown = [*(point.x for point in points), *stopped]
            wide = bool(shown) and max(shown) >= 30 * min(shown)
            axes.xaxis.set_major_locator(LogLocator(subs=(1,) if wide else (1, 2, 5), numticks=6))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
        for point in points:
            colour, size = (svg.ACCENT, 8) if point.best else (svg.MUTED, 5)
            axes.plot(point.x, point.y, "o", color=colour, markersize=size, alpha=1 if point.best else 0.7)
        _at_the_foot(axes, stopped)
        if choices is not None:
            axes.set_xticks(range(len(choices)), choices)
            axes.set_xlim(-0.5, len(choices) - 0.5)
        else:
            axes.margins(x=0.06)
        name = "".join(letter if letter.isalnum() else "-" for letter in option)
        return svg.render(figure, f"option-{name}", f"{up} against {option}")


def _name(axes: Axes, front: Sequence[Point], points: Sequence[Point], renderer: Any) -> None:
    """The labels of the front beside its points, where they cover nothing."""
    from matplotlib.font_manager import FontProperties

    def pixels(point: Point) -> tuple[float, float]:
        across, up = axes.transData.transform((point.x, point.y))
        return float(across), float(up)

    axes.set_xlim(axes.get_xlim())  # the labels keep their distance in pixels only if the axes stay as they are
    axes.set_ylim(axes.get_ylim())
    font = FontProperties(size=svg.FONT_SIZE)
    sizes = [renderer.get_text_width_height_descent(point.label, font, False)[:2] for point in front]
    obstacles = [Box(x - 6, y - 6, x + 6, y + 6) for x, y in map(pixels, points)]
    frame = axes.get_window_extent(renderer)
    area = Box(frame.x0, frame.y0, frame.x1, frame.y1)
    inverse = axes.transData.inverted()
    anchors = [*map(pixels, front)]
    for point, (x, _), box in zip(front, anchors, place(anchors, sizes, obstacles, _along(anchors), area), strict=True):
        side, edge = "center", (box.left + box.right) / 2
        if box.left >= x:
            side, edge = "left", box.left
        elif box.right <= x:
            side, edge = "right", box.right
        across, up = inverse.transform((edge, (box.bottom + box.top) / 2))
        axes.text(across, up, point.label, ha=side, va="center_baseline")


def _along(corners: Sequence[tuple[float, float]]) -> list[Box]:
    """The line through these pixels as small boxes."""
    found = []
    for (x0, y0), (x1, y1) in pairwise(corners):
        steps = max(1, round(math.dist((x0, y0), (x1, y1)) / 6))
        for step in range(steps + 1):
            x, y = x0 + (x1 - x0) * step / steps, y0 + (y1 - y0) * step / steps
            found.append(Box(x - 3, y - 3, x + 3, y + 3))
    return found


def _frame(width: float, height: float, *, bottom: float) -> tuple[Figure, Axes]:
    figure = svg.canvas(width, height)
    left, right, top = 48, 16, 14
    box = (left / width, bottom / height, (width - left - right) / width, (height - bottom - top) / height)
    axes = figure.add_axes(box)
    axes.grid(axis="y")
    axes.spines["left"].set_visible(False)
    axes.margins(x=0.02, y=0.1)
    return figure, axes


def _at_the_foot(axes: Axes, places: Sequence[float]) -> None:
    """Crosses on the axis, as small as the dots."""
    across = axes.get_xaxis_transform()
    axes.plot(list(places), [0.03] * len(places), "x", color=svg.MUTED, markersize=5, alpha=0.75, transform=across)


def _whole_numbers(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True, min_n_ticks=1))
