"""The figures of what a training used of its machine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torchstone.core import tables
from torchstone.core.errors import ArtifactError
from torchstone.report import svg

FEWEST = 3
"""Looks at the machine below which there is nothing to draw."""
SHOWN = (
    ("cores", "Cores busy"),
    ("memory_gb", "Memory, GB"),
    ("gpu_percent", "GPU busy, %"),
    ("gpu_memory_gb", "GPU memory, GB"),
    ("cpu_celsius", "Processor, °C"),
    ("gpu_celsius", "GPU, °C"),
)
"""Column and title of each panel, in their order."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One thing that a training used, over its time."""

    title: str
    summary: str
    """Median and peak, in words."""
    figure: str
    """SVG."""


def panels(path: Path, name: str) -> list[Panel]:
    """Panels of a ``resources.parquet``, without those of what is unknown there; ids in the figures begin with
    ``name``. Empty where there is no table, or too little of it to draw."""
    try:
        table, header = tables.read(path)
    except ArtifactError:
        return []
    if len(table) < FEWEST:
        return []
    seconds = table["seconds"].to_list()
    found = []
    for column, title in SHOWN:
        values = [math.nan if value is None else value for value in table[column].to_list()]
        known = sorted(value for value in values if math.isfinite(value))
        if not known:
            continue
        limit = header.get(column)
        middle, peak = known[len(known) // 2], known[-1]
        of = f" of {_short(limit)}" if limit else ""
        if limit and _near(limit, peak):
            of += " (dashed)"
        found.append(
            Panel(
                title=title,
                summary=f"median {_short(middle)}, at most {_short(peak)}{of}",
                figure=_panel(seconds, values, limit, f"{name}-{column}", f"{title} over the time of the training"),
            )
        )
    return found


def _panel(seconds: Sequence[float], values: Sequence[float], limit: float | None, name: str, told: str) -> str:
    """A line over time from zero. What there is of it at most is a dashed line, where it is near enough to be seen."""
    import matplotlib
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    unit, size = _unit(seconds[-1])
    peak = max(value for value in values if math.isfinite(value))
    with matplotlib.rc_context(svg.STYLE):
        width, height = 420, 170
        figure = svg.canvas(width, height)
        axes = figure.add_axes((48 / width, 40 / height, (width - 48 - 16) / width, (height - 40 - 10) / height))
        times = [value / size for value in seconds]
        shown: Any = values
        axes.plot(times, shown, color=svg.ACCENT, linewidth=1.5)
        axes.fill_between(times, shown, color=svg.ACCENT, alpha=0.12, linewidth=0)
        near = limit is not None and _near(limit, peak)
        if limit is not None and near:
            axes.axhline(limit, color=svg.MUTED, linewidth=1.25, linestyle=(0, (5, 3)))
        axes.set_ylim(0, 1.08 * max(peak, limit if limit is not None and near else 0.0, 1e-9))
        axes.set_xlim(0, times[-1])
        axes.grid(axis="y")
        axes.spines["left"].set_visible(False)
        for axis, most in ((axes.xaxis, 6), (axes.yaxis, 4)):
            axis.set_major_locator(MaxNLocator(nbins=most, steps=[1, 2, 5, 10]))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        figure.text((width - 16) / width, 8 / height, unit, ha="right", color=svg.MUTED)
        return svg.render(figure, name, told)


def _near(limit: float, peak: float) -> bool:
    """Whether a line at the limit leaves the values readable."""
    return limit <= 4 * peak


def _unit(seconds: float) -> tuple[str, float]:
    if seconds < 180:
        return "seconds", 1.0
    return ("minutes", 60.0) if seconds < 3 * 3600 else ("hours", 3600.0)


def _short(value: float) -> str:
    """Three digits, two of them after the point at most."""
    return f"{value:.0f}" if value >= 100 else f"{round(value, 2):.3g}"
