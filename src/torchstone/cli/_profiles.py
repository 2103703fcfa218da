"""What ``profile`` and ``models`` print: tables for people on stdout, or JSON for machines."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from torchstone.cli._answers import print_json, stdout
from torchstone.report import wording

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torchstone.evaluate.profile import Profile, Share
    from torchstone.evaluate.relative import Row
    from torchstone.stages.profile import Answer

KINDS, LAYERS = 8, 10
"""Rows that people see; ``--json`` and the page have all of them."""


def profile(found: Answer, json: bool) -> int:
    """By operator, by layer, and what to try next."""
    it = found.profile
    if json:
        advice = [one.model_dump(mode="json") for one in found.findings]
        print_json({**it.summary(), "findings": advice, "page": str(found.page)})
        return 0
    _say(
        f"\n{it.model}, {it.architecture}, {it.crop} pixels, batch {it.batch}, {wording.plural(it.threads, 'thread')}, "
        f"{it.precision}\n{wording.milliseconds(it.call_ms)} ms a call, {it.macs / 1e9:.3g} GMACs; "
        f"its operators take {wording.milliseconds(it.ms)} ms, {100 * it.convolutions:.0f} % of it in convolutions\n"
    )
    _shares("operator", it.kinds[:KINDS], len(it.kinds))
    _shares("layer", it.layers[:LAYERS], len(it.layers))
    _say(peaks(it) + "\n")
    for one in found.findings:
        _say(f"→ {one.message}\n    hint: {one.hint}")
    if not found.findings:
        _say("nothing stands out")
    _say(f"\npage     {found.page}")
    return 0


def models(rows: Sequence[Row], out: Path | None, json: bool) -> int:
    """A row a network, the families one after the other."""
    if json:
        print_json([{**asdict(row.member), "speed": asdict(row.speed) if row.speed else None} for row in rows])
        return 0
    from rich.table import Table

    timed = any(row.speed for row in rows)
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("--model", no_wrap=True)
    table.add_column("family")
    for name in ("parameters", "MACs", "input", "top-1*", *(("one image", "resnet18 = 1") if timed else ())):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        one = row.member
        cells = [
            f"{one.parameters / 1e6:.2f} M",
            f"{one.macs / 1e6:,.4g} M" if one.macs < 1e9 else f"{one.macs / 1e9:.2f} G",
            f"{one.crop}²",
            wording.NONE if one.top1 is None else f"{one.top1:.1f}",
        ]
        if row.speed:
            cells += [f"{wording.milliseconds(row.speed.ms)} ms", f"{row.speed.ratio:.3g}×"]
        table.add_row(one.name, one.family, *cells)
    stdout().print(table, highlight=False)
    if any(row.member.top1 for row in rows):
        _say("\n* published, on ImageNet, by several recipes: what a design can learn, not what yours will")
    if out is not None:
        _say(f"page     {out}")
    return 0


def peaks(found: Profile) -> str:
    """What the machine can do, in a line."""
    best = found.peaks
    arithmetic = ", ".join(f"{value:.0f} GFLOP/s in {name}" for name, value in best.gflops.items())
    return (
        f"this machine with {wording.plural(best.threads, 'thread')}: {arithmetic}; "
        f"{best.memory:.0f} GB/s from memory, {best.cache:.0f} from the caches"
    )


def _shares(title: str, rows: Sequence[Share], known: int) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column(title if known == len(rows) else f"{title} ({len(rows)} of {known})", overflow="fold")
    for name in ("number", "ms", "share", "MMACs", "GFLOP/s", "of roof"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.name,
            str(row.count),
            wording.milliseconds(row.ms),
            f"{100 * row.share:.0f} %",
            f"{row.macs / 1e6:,.1f}" if row.macs else wording.NONE,
            f"{row.gflops:.1f}" if row.macs else wording.NONE,
            f"{100 * row.reached:.0f} %" if row.macs else wording.NONE,
        )
    out = stdout()
    out.print(table, highlight=False)
    out.print()


def _say(line: str) -> None:
    stdout().print(line, markup=False, highlight=False, soft_wrap=True)
