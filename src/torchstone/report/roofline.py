"""The roofline: what each operator reaches, under what the machine allows at its intensity (Williams et al. 2009)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torchstone.report import svg

if TYPE_CHECKING:
    from torchstone.evaluate.profile import Profile

WIDE, NARROW = 1056, 358
COLOURS = {"f32": svg.ACCENT, "bf16": svg.PASS, "f16": svg.PASS, "int8": svg.SECOND}
LEAST = 0.002
"""Share of the time below which an operator is not drawn: tiny ones would stretch the axes."""
SMALLEST, LARGEST = 16.0, 1400.0
"""Areas of the circles, in square pixels: the time of an operator."""


def roofline(profile: Profile, *, narrow: bool = False) -> str:
    """GFLOP/s against operations a byte, both logarithmic: a circle for each operator that computes, its area the time
    it takes; a level line for each arithmetic that was measured, a slope for memory and one for the caches."""
    import matplotlib
    from matplotlib.ticker import FuncFormatter, NullFormatter

    shown = [one for one in profile.singles if one.macs and one.ms and one.share >= LEAST]
    peaks = profile.peaks
    with matplotlib.rc_context(svg.STYLE):
        width, height = (NARROW, 320) if narrow else (WIDE, 440)
        figure = svg.canvas(width, height)
        left, right, bottom, top = (46, 10, 44, 30) if narrow else (56, 96, 48, 32)
        axes = figure.add_axes(
            (left / width, bottom / height, (width - left - right) / width, (height - top - bottom) / height)
        )
        axes.set_xscale("log")
        axes.set_yscale("log")
        first = min([0.5, *(one.intensity / 1.6 for one in shown)])
        last = max([4 * peaks.arithmetic("f32") / peaks.memory, *(one.intensity * 1.6 for one in shown)])
        highest = max(peaks.gflops.values())
        lowest = min([highest / 100, *(one.gflops / 1.8 for one in shown)])
        axes.set_xlim(first, last)
        axes.set_ylim(lowest, highest * 1.8)
        for name, level in peaks.gflops.items():
            colour = COLOURS.get(name, svg.MUTED)
            axes.plot([level / peaks.cache, last], [level, level], color=colour, linewidth=1.5)
            axes.annotate(
                f"{name} {level:.0f}", (last, level), xytext=(-2, 3) if narrow else (5, 0), textcoords="offset points",
                ha="right" if narrow else "left", va="bottom" if narrow else "center", color=colour,
            )  # fmt: skip
        for label, bandwidth, dashes in (("memory", peaks.memory, "-"), ("caches", peaks.cache, (0, (4, 3)))):
            end = highest / bandwidth
            axes.plot([first, end], [first * bandwidth, highest], color=svg.MUTED, linewidth=1.25, linestyle=dashes)
            start = max(first, lowest / bandwidth)
            middle = math.sqrt(start * end) if label == "memory" else start * (end / start) ** 0.28
            spot = axes.transData.transform([(first, first * bandwidth), (end, highest)])
            angle = math.degrees(math.atan2(spot[1][1] - spot[0][1], spot[1][0] - spot[0][0]))
            axes.annotate(
                f"{label} {bandwidth:.0f} GB/s", (middle, middle * bandwidth), xytext=(-3, 4),
                textcoords="offset points", rotation=angle, rotation_mode="anchor", ha="center", va="bottom",
                color=svg.MUTED,
            )  # fmt: skip
        longest = max((one.ms for one in shown), default=1.0)
        for one in sorted(shown, key=lambda one: -one.ms):
            axes.scatter(
                one.intensity, one.gflops, s=max(SMALLEST, LARGEST * one.ms / longest * (0.5 if narrow else 1)),
                color=COLOURS.get(one.precision, svg.MUTED), alpha=0.45, linewidths=0.75,
                edgecolors=svg.PAPER,
            )  # fmt: skip
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_minor_formatter(NullFormatter())
        axes.grid(axis="y")
        axes.spines["left"].set_visible(False)
        for x, y, text, side in (
            (left, height - top + 14, "GFLOP/s", "left"),
            (width - right, 8, "operations a byte", "right"),
        ):
            figure.text(x / width, y / height, text, ha=side, color=svg.MUTED, fontsize=svg.FONT_SIZE)
        name = "roofline-narrow" if narrow else "roofline-wide"
        return svg.render(figure, name, f"GFLOP/s against operations a byte for {len(shown)} operators")
