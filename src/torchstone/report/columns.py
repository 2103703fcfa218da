"""The columns of a verdict's table: the one list that the terminal and the page print, and what a cell holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from torchstone.core.values import METRICS
from torchstone.core.verdict import AccuracyResult, CandidateVerdict, SpeedResult, Verdict
from torchstone.report import wording

Row = TypeVar("Row")


@dataclass(frozen=True)
class Cell:
    """What stands there: a number, the bound on it where something is claimed, the part of images if not test."""

    value: str
    bound: str | None = None
    tag: str = ""


NOTHING = Cell(wording.NONE)
SCREENED = "~"
"""Before a time that was not measured in the judged session, but while candidates were chosen."""


@dataclass(frozen=True, kw_only=True)
class Column(Generic[Row]):
    """One column of a table with a row a candidate."""

    title: str
    cell: Callable[[Row], Cell]
    unit: str = ""
    """Of its numbers: beside each in the terminal, in the head of the page's table."""
    below: str = ""
    """The page's head has it below the title, where there is no unit."""
    wide: bool = False
    """Left out in a narrow terminal."""
    is_bounded: bool = False
    """On the page, the numbers keep room for a bound, so that they stand below each other."""

    def text(self, row: Row) -> str:
        """The cell in the terminal."""
        it = self.cell(row)
        parts = [it.value, self.unit if it.value != wording.NONE else "", f"({it.bound})" if it.bound else "", it.tag]
        return " ".join(filter(None, parts))


def of_verdict(found: Verdict, digits: int = 2, ms_digits: int | None = None) -> tuple[Column[CandidateVerdict], ...]:
    """With so many decimals of points and ratios; latencies with so many, or with three significant digits."""
    metric = found.budget.metric
    drop = wording.loss_of(metric)

    def latency(row: CandidateVerdict) -> Cell:
        if row.latency is None:
            return NOTHING
        return _timed(found, row, Cell(wording.milliseconds(row.latency.median_ms, ms_digits)))

    return (
        Column(title="top-1", cell=lambda row: top1(row.accuracy, digits), below="%"),
        Column(
            title=f"{drop} (at most)", cell=lambda row: _drop(found, row, digits), is_bounded=True,
            below="points" if metric == "top1" else f"points of {METRICS[metric]}",
        ),
        Column(title="batch 1", cell=latency, unit="ms"),
        Column(
            title="faster (at least)", cell=lambda row: _timed(found, row, _speed(row.speed, digits)), is_bounded=True,
            below="than the baseline",
        ),
        Column(
            title="same runtime", cell=lambda row: _timed(found, row, _speed(row.same_runtime, digits, bound=False)),
            wide=True, below="unchanged weights",
        ),
        Column(title="size", cell=lambda row: Cell(wording.megabytes(row.size_mb)), unit="MB"),
    )  # fmt: skip


def top1(accuracy: AccuracyResult | None, digits: int = 2) -> Cell:
    if accuracy is None:
        return NOTHING
    return Cell(wording.per_cent(accuracy.top1, digits), tag="" if accuracy.part == "test" else accuracy.part)


def bounded(drop: float, upper: float | None, digits: int = 2) -> Cell:
    """Points lost, and how many at most."""
    return Cell(wording.fixed(drop, digits), None if upper is None else wording.at_most(upper, digits))


def is_screened(found: Verdict, row: CandidateVerdict) -> bool:
    """Whether its times are those of screening: of what was not tested, and of the baseline where nothing was."""
    judged = any(one.outcome not in ("baseline", "not tested") for one in found.rows)
    timed = row.speed is not None or row.latency is not None
    return timed and (row.outcome == "not tested" or not judged)


def any_screened(found: Verdict) -> bool:
    """Whether the table has such times, so that their mark is to be explained."""
    return any(is_screened(found, row) for row in found.rows)


def _timed(found: Verdict, row: CandidateVerdict, cell: Cell) -> Cell:
    """What a clock says of it, marked where that was not in the judged session."""
    if cell.value == wording.NONE or not is_screened(found, row):
        return cell
    return replace(cell, value=SCREENED + cell.value)


def _drop(found: Verdict, row: CandidateVerdict, digits: int) -> Cell:
    """In the metric that the margin is about; on val nothing is claimed."""
    measured = found.metric(row)
    if row.accuracy is None or measured is None or row.outcome == "baseline":
        return NOTHING
    return bounded(measured.difference, measured.upper if row.accuracy.part == "test" else None, digits)


def _speed(speed: SpeedResult | None, digits: int, *, bound: bool = True) -> Cell:
    if speed is None:
        return NOTHING
    least = wording.times_at_least(speed.lower, digits) if bound and speed.lower is not None else None
    return Cell(wording.times(speed.ratio, digits), least)
