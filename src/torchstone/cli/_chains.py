"""What a search over chains prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torchstone.cli._answers import SEARCH_ROWS, print_json, stdout

if TYPE_CHECKING:
    from torchstone.stages.search_chains import FoundChains


def found(answer: FoundChains, json: bool) -> int:
    """The chains that no other one beats, and the command that judges the best of them; 1 when no trial came to its
    end."""
    summary = answer.summary
    code = 0 if summary.best else 1
    if json:
        more = {"directory": str(answer.directory), "page": str(answer.page), "machines": list(answer.machines),
                "shortlist": list(answer.shortlist), "command": answer.command}  # fmt: skip
        print_json({**summary.model_dump(mode="json"), **more, "exit_code": code})
        return code
    out = stdout()
    states = [trial.state for trial in summary.trials]
    counts = ", ".join(f"{states.count(name)} {name}" for name in dict.fromkeys(states))
    out.print(f"\n{summary.name} · {len(states)} trials: {counts}\n", highlight=False, soft_wrap=True)
    out.print(_table(answer))
    if len(answer.machines) > 1:
        out.print(
            f"timed on {len(answer.machines)} machines ({', '.join(answer.machines)}): each speed is against the "
            "baseline on the trial's own, and another machine may order them otherwise",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
    if noisy := sum(bool(trial.facts.get("noise")) for trial in summary.trials):
        out.print(f"{noisy} timed while the machine was too noisy for a speed to be trusted", highlight=False)
    out.print(f"page     {answer.page}", highlight=False, soft_wrap=True)
    if answer.command:
        out.print("these are values of val and of short sessions: what the chains are worth, the test images say")
        out.print(f"next     {answer.command}", highlight=False, soft_wrap=True, markup=False)
    return code


def _table(answer: FoundChains) -> Any:
    from rich.table import Table

    from torchstone.search.study import figure

    summary = answer.summary
    done = [(trial, trial.values) for trial in summary.trials if trial.values]
    first = answer.objectives[0].sign
    done.sort(key=lambda pair: (pair[0].number not in summary.best, -first * pair[1][0], pair[0].number))
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("trial", justify="right")
    table.add_column("chain", overflow="fold")
    for objective in answer.objectives:
        table.add_column(objective.name, justify="right", no_wrap=True)
    table.add_column("")
    for trial, values in done[: max(SEARCH_ROWS, len(summary.best))]:
        shown = [figure(value, objective) for value, objective in zip(values, answer.objectives, strict=True)]
        best = "[green]← best[/green]" if trial.number in summary.best else ""
        table.add_row(str(trial.number), trial.name or "", *shown, best)
    return table
