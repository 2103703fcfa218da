"""The page of a learning-rate range test: its curve, and what is proposed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from torchstone.core import files
from torchstone.report import svg
from torchstone.report.templates import environment

if TYPE_CHECKING:
    from torchstone.train.range_test import Curve

WIDE, NARROW = 1056, 358


def write(curve: Curve, usual: float, path: Path) -> Path:
    """Write the page; ``usual`` is the rate that the recipe has."""
    page = (
        environment()
        .get_template("range.html.j2")
        .render(curve=curve, usual=usual, figures=[draw(curve, usual, narrow=narrow) for narrow in (False, True)])
    )
    files.make_directory(path.parent)
    files.write_text(path, page)
    return path


def draw(curve: Curve, usual: float, *, narrow: bool = False) -> str:
    """The loss at each rate, smoothed and as it was, with the proposal and the recipe's own rate."""
    import matplotlib

    with matplotlib.rc_context(svg.STYLE):
        width, height = (NARROW, 300) if narrow else (WIDE, 400)
        figure = svg.canvas(width, height)
        axes = figure.add_axes((46 / width, 46 / height, (width - 62) / width, (height - 78) / height))
        axes.plot(curve.rates, curve.losses, "o", color=svg.MUTED, markersize=3, alpha=0.55)
        axes.plot(curve.rates, curve.smoothed, color=svg.ACCENT)
        axes.set_xscale("log")
        decades = range(
            math.ceil(math.log10(curve.rates[0]) - 0.01), math.floor(math.log10(curve.rates[-1]) + 0.01) + 1
        )
        ticks = list(decades)[:: 2 if narrow else 1]
        axes.set_xticks([10.0**tick for tick in ticks], [f"{10.0**tick:g}" for tick in ticks])
        low, high = min(*curve.smoothed, *curve.losses), curve.smoothed[0]
        room = max(high - low, 0.05 * high)
        axes.set_ylim(low - 0.1 * room, high + 0.5 * room)  # what breaks at the end would flatten the rest
        axes.grid(axis="y")
        marks = [(usual, "the recipe's", svg.MUTED, 1.0)]
        if curve.proposed is not None:
            marks.append((curve.proposed, "proposed", svg.PASS, 1.06 if _near(usual, curve.proposed, narrow) else 1.0))
        for rate, name, colour, place in marks:
            axes.axvline(rate, color=colour, linewidth=1.5, linestyle="-" if name == "proposed" else (0, (3, 3)))
            axes.annotate(
                f"{name} {rate:g}", (rate, place), xycoords=("data", "axes fraction"), xytext=(0, 4),
                textcoords="offset points", ha="center", color=colour,
            )  # fmt: skip
        axes.set_xlabel("learning rate", loc="right")
        axes.set_title("loss", loc="left", fontsize=svg.FONT_SIZE, color=svg.MUTED, pad=16 if narrow else 6)
        proposal = "no rate is proposed" if curve.proposed is None else f"{curve.proposed:g} is proposed"
        return svg.render(
            figure,
            f"range-{'narrow' if narrow else 'wide'}",
            f"Loss over learning rates from {curve.rates[0]:.1e} to {curve.rates[-1]:.1e}; {proposal}",
        )


def _near(one: float, other: float, narrow: bool) -> bool:
    """Whether the names of two rates would lie on each other."""
    return max(one, other) / min(one, other) < (100 if narrow else 10)
