"""The figures of a training: its curves by epoch, its layers from the first to the last."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torchstone.report import svg, wording

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 440, 230
LEFT, RIGHT, BOTTOM, TOP = 48, 62, 40, 14
POINTS = 12
"""Epochs up to which each is a point on its line."""
NAMED = 32
"""Layers up to which each is named."""
NAMES, ROW = 132, 16
"""Pixels for the names of layers, and from one to the next."""
COLOURS = {"train": svg.ACCENT, "val": svg.SECOND, "median": svg.ACCENT, "largest": svg.SECOND, "rate": svg.ACCENT}


def curves(
    epochs: Sequence[int],
    lines: Mapping[str, Sequence[float]],
    name: str,
    description: str,
    *,
    logarithmic: float,
) -> str:
    """One panel of a training's history; each line is labelled at its end. A value that is not finite is a gap.
    The scale is logarithmic where the largest value is more than ``logarithmic`` times the smallest."""
    import matplotlib
    from matplotlib.ticker import MaxNLocator

    with matplotlib.rc_context(svg.STYLE):
        figure, axes = _panel()
        ends = []
        for label, values in lines.items():
            colour = COLOURS.get(label, svg.INK)
            finite = [value if math.isfinite(value) else math.nan for value in values]
            axes.plot(epochs, finite, color=colour, marker="o" if len(epochs) <= POINTS else "", markersize=5)
            known = [value for value in finite if math.isfinite(value)]
            if known:
                ends.append((known[-1], label, colour))
        if "rate" in lines:
            axes.set_ylim(bottom=0)
        _scale(axes, [value for values in lines.values() for value in values], logarithmic=logarithmic)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        figure.text((WIDTH - RIGHT) / WIDTH, 8 / HEIGHT, "epoch", ha="right", color=svg.MUTED)
        svg.label_ends(axes, ends)
        return svg.render(figure, name, description)


def by_layer(
    names: Sequence[str],
    lines: Mapping[str, Sequence[float]],
    name: str,
    description: str,
    usual: tuple[float, float] | None = None,
) -> str:
    """A value of each layer, a row each in the network's order, the first on top, on a logarithmic scale; ``usual`` is
    drawn as a band. Zeros and what is not finite are gaps. Of more than ``NAMED`` layers every so many is named, and
    the last."""
    import matplotlib
    from matplotlib.ticker import FixedLocator

    row = ROW if len(names) <= NAMED else NAMED * ROW / len(names)
    head, foot = 24, 26
    height = head + foot + row * len(names)
    with matplotlib.rc_context(svg.STYLE):
        figure = svg.canvas(WIDTH, height)
        axes = figure.add_axes((NAMES / WIDTH, foot / height, (WIDTH - NAMES - 16) / WIDTH, row * len(names) / height))
        axes.grid(axis="x")
        axes.spines["left"].set_visible(False)
        if usual:
            axes.axvspan(*usual, color=svg.PASS, alpha=0.12, linewidth=0)
        places = list(range(1, len(names) + 1))
        colours = (svg.MUTED, svg.ACCENT) if len(lines) > 1 else (svg.ACCENT,)
        across = NAMES
        for (label, values), colour in zip(lines.items(), colours, strict=True):
            shown = [value if value > 0 and math.isfinite(value) else math.nan for value in values]
            axes.plot(shown, places, color=colour, marker="o", markersize=min(5, row / 3), linewidth=1.25)
            figure.text(across / WIDTH, 1 - 12 / height, f"● {label}", color=colour, va="center_baseline")
            across += 12 + 8 * (len(label) + 2)
        axes.set_xscale("log")
        axes.set_ylim(len(names) + 0.5, 0.5)
        axes.autoscale_view()
        _decades(axes.xaxis, axes.get_xlim())
        every = math.ceil(len(names) / NAMED)
        named = [*(at for at in places[::every] if at <= len(names) - every), len(names)]
        axes.yaxis.set_major_locator(FixedLocator(named))
        axes.set_yticklabels([wording.shortened(names[at - 1], 20) for at in named])
        return svg.render(figure, name, description)


def _panel() -> tuple[Figure, Axes]:
    figure = svg.canvas(WIDTH, HEIGHT)
    axes = figure.add_axes(
        (LEFT / WIDTH, BOTTOM / HEIGHT, (WIDTH - LEFT - RIGHT) / WIDTH, (HEIGHT - BOTTOM - TOP) / HEIGHT)
    )
    axes.margins(x=0.02, y=0.08)
    axes.grid(axis="y")
    axes.spines["left"].set_visible(False)
    return figure, axes


def _scale(axes: Axes, values: Sequence[float], *, logarithmic: float) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    positive = [value for value in values if math.isfinite(value) and value > 0]
    if positive and max(positive) > logarithmic * min(positive):
        axes.set_yscale("log")
        axes.autoscale_view()
        _decades(axes.yaxis, axes.get_ylim())
    else:
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.autoscale_view()


def _decades(axis: Axis, limits: tuple[float, float]) -> None:
    """Few ticks, at powers of ten (1, 2 and 5 of each where there are less than two of these)."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = limits
    wide = high > 50 * low
    axis.set_major_locator(LogLocator(numticks=6) if wide else LogLocator(subs=(1, 2, 5), numticks=6))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
