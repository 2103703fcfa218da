"""What ``import`` prints."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from torchstone.cli import _answers

if TYPE_CHECKING:
    from torchstone.stages.adopt import Adopted
    from torchstone.stages.suspect import Trial


def printed(found: Adopted, *, json: bool) -> int:
    """What was made, and how the samples were answered with each preprocessing that was tried."""
    artifact, run, trial = found.artifact, found.run, found.trial
    if json:
        rows = None if trial is None else {**dataclasses.asdict(trial), "warning": trial.warning}
        made = {"run": str(run.root), "bundle": str(run.bundle), "artifact": artifact.model_dump(mode="json")}
        _answers.print_json({**made, "trial": rows})
        return 0
    out = _answers.stdout()
    if trial is not None:
        _table(trial, out, split=found.quantisable)
    out.print(f"model    {artifact.directory}", highlight=False, soft_wrap=True)
    out.print(f"bundle   {run.bundle}", highlight=False, soft_wrap=True)
    if found.quantisable and artifact.format == "onnx":
        out.print(f"next     torchstone judge {run.root} int8 --max-drop 1", highlight=False, soft_wrap=True)
    else:
        out.print(f"next     torchstone serve {run.bundle}", highlight=False, soft_wrap=True)
    return 0


def _table(trial: Trial, out: Any, *, split: bool) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("preprocessing")
    for name in ("right", "gained", "lost", "gain, points (interval)"):
        table.add_column(name, justify="right", no_wrap=True)
    share = 100 / trial.images
    table.add_row("[bold]as declared[/bold]", f"{share * trial.right:.1f} %", "", "", "")
    for one in trial.others:
        gain = f"{share * (one.right - trial.right):+.1f} ({100 * one.lower:+.1f} to {100 * one.upper:+.1f})"
        name = f"[yellow]{escape(one.change)}[/yellow]" if one.better else escape(one.change)
        table.add_row(name, f"{share * one.right:.1f} %", str(one.gained), str(one.lost), gain)
    which = "samples that are not for test" if split else "samples"
    out.print(f"\n{trial.images:,} {which}; intervals at {100 * trial.level:g} % over all that was tried\n",
              highlight=False)  # fmt: skip
    out.print(table)
    if trial.warning:
        out.print(f"\n[yellow]warning:[/yellow] {escape(trial.warning)}\n", highlight=False, soft_wrap=True)
    else:
        out.print("\nnothing that was tried is better by more than chance\n", highlight=False)
