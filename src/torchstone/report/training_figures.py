"""The figures of a training: its curves by epoch, its layers from the first to the last."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torchstone.report import svg, wording

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 420, 220
LEFT, RIGHT, BOTTOM, TOP = 48, 62, 40, 14
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
            axes.plot(epochs, finite, color=colour)
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
    """A value of each layer, in the network's order, on a logarithmic scale; ``usual`` is drawn as a band. Zeros and
    what is not finite are gaps."""
    import matplotlib

    with matplotlib.rc_context(svg.STYLE):
        figure, axes = _panel()
        places = list(range(1, len(names) + 1))
        ends = []
        colours = (svg.MUTED, svg.ACCENT) if len(lines) > 1 else (svg.ACCENT,)
        for (label, values), colour in zip(lines.items(), colours, strict=True):
            shown = [value if value > 0 and math.isfinite(value) else math.nan for value in values]
            axes.plot(places, shown, color=colour, marker="o", markersize=4 if len(names) < 30 else 0, linewidth=1.5)
            known = [value for value in shown if not math.isnan(value)]
            ends.append((known[-1], label, colour))
        if usual:
            axes.axhspan(*usual, color=svg.PASS, alpha=0.12, linewidth=0)
        axes.set_yscale("log")
        _decades(axes)
        axes.set_xlim(0.5, len(names) + 0.5)
        _layer_ticks(axes, names)
        figure.text((WIDTH - RIGHT) / WIDTH, 8 / HEIGHT, "layer", ha="right", color=svg.MUTED)
        svg.label_ends(axes, ends)
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
        _decades(axes)
    else:
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.autoscale_view()


def _decades(axes: Axes) -> None:
    """Few ticks, at powers of ten (1, 2 and 5 of each where there are less than two of these)."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.autoscale_view()
    low, high = axes.get_ylim()
    wide = high > 50 * low
    axes.yaxis.set_major_locator(LogLocator(numticks=6) if wide else LogLocator(subs=(1, 2, 5), numticks=6))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _layer_ticks(axes: Axes, names: Sequence[str]) -> None:
    """The first and the last layer by name."""
    from matplotlib.ticker import FixedLocator, NullFormatter

    axes.xaxis.set_major_locator(FixedLocator([1, len(names)]))
    axes.set_xticklabels([wording.shortened(names[0], 22), wording.shortened(names[-1], 22)])
    axes.xaxis.get_majorticklabels()[0].set_horizontalalignment("left")
    axes.xaxis.get_majorticklabels()[-1].set_horizontalalignment("right")
    axes.xaxis.set_minor_formatter(NullFormatter())
