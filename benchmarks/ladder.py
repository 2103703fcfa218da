"""Does the ladder find what an expert would have written? ``torchstone run DATA --for 10m`` beside ten chains that were
written by hand, on the same network and images.

The ladder's winner is what its verdict says, by val, its screening and its looks. Of the ten the best is chosen with
more knowledge than anybody has in practice: all are built, whatever time that takes, all meet the test images, and the
fastest counts of those whose loss there is bounded by the margin. That favours the ten. Then both are compared anew: in
a session held after the choice, in turns, with twice the usual quartets, and image by image on the test part. Bounds
are one-sided at 97.5 %.

One command, which may be stopped and typed again: what was built, answered and decided stays. Nothing is shipped by
what is seen here, so that these looks at the test images are not entered in the ledger; the run's own are.

Flags that are none of this script's go to ``torchstone run``: ``--model``, ``--recipe``, ``--min-speedup``…
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import workbench
from conditions import conditions
from torchstone.core import console, files
from torchstone.core.errors import ChainError, MissingPackageError, UserError
from torchstone.core.numbers import rounded_down, rounded_up
from torchstone.core.run import Run
from torchstone.core.values import Candidate
from torchstone.core.verdict import AccuracyResult, Verdict
from torchstone.judge import accuracy
from torchstone.judge.evidence import Evidence
from torchstone.stages import clock
from torchstone.stages.compress import build_all, plan_all
from torchstone.stages.find import seed_of
from torchstone.stages.read import Data, opened

EXPERT = (
    "bf16@openvino",
    "int8@onnxruntime",
    "int8@openvino",
    "int8:preset=mixed,bias=accurate@openvino",
    "finetune=3+int8@openvino",
    "qat=2+int8@openvino",
    "resolution={three_quarters}:epochs=2+int8@openvino",
    "prune=0.3+finetune=3+int8@openvino",
    "prune=0.5:importance=taylor,scope=global+distill=4+int8@openvino",
    "iterate=3:macs=0.5+finetune=2+int8@openvino",
)
"""Ten chains of somebody who knows the network, the processor and the steps."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A chain of the ten: what its making took, or why it could not be had."""

    chain: str
    candidate: Candidate | None
    seconds: float
    why_not: str | None = None


def laddered(typed: list[str], run: Run) -> float | None:
    """Let the product do all it does; the seconds of the whole command, None where it had been finished before."""
    finished = run.report.exists()
    begin = time.monotonic()
    done = subprocess.run([sys.executable, "-m", "torchstone", "run", *typed], check=False)
    if done.returncode not in (0, 1, 3):
        raise SystemExit(f"error: torchstone run {' '.join(typed)} ended with {done.returncode}")
    return None if finished else time.monotonic() - begin


def chosen(run: Run) -> tuple[list[Candidate], Candidate]:
    """The ladder's candidates, the baseline first, and its winner; where it has none, that is the baseline."""
    verdict, candidates = Verdict.load(run.verdict), run.load_candidates()
    return candidates, next((one for one in candidates if one.id == verdict.winner), candidates[0])


def by_hand(text: str, base: Candidate, data: Data) -> Row:
    """Build one of the ten; what that took is noted, so that a second start knows it."""
    noted = data.run.root / "by_hand.json"
    past: dict[str, float] = files.read_json(noted) if noted.exists() else {}
    begin = time.monotonic()
    try:
        made = build_all(plan_all([text]), base, data, seed=seed_of(base.artifact))[0]
    except (ChainError, MissingPackageError) as error:
        return Row(chain=text, candidate=None, seconds=time.monotonic() - begin, why_not=error.message)
    if text not in past:
        past[text] = time.monotonic() - begin
        files.write_json(noted, past)
    return Row(chain=text, candidate=made, seconds=past[text])


def compared(one: Candidate, than: Candidate, data: Data) -> AccuracyResult:
    before, after = workbench.answered(than, data), workbench.answered(one, data)
    groups = Evidence(data.run).groups(before.items)
    return accuracy.compare("test", before, after, one.artifact.classes, workbench.LEVEL, groups)


def best_of(
    ten: list[Candidate], speeds: dict[str, float], drops: dict[str, AccuracyResult], margin: float
) -> Candidate:
    """The fastest that is shown to keep the margin; where none is, the fastest of those that are not refuted."""
    kept = [one for one in ten if drops[one.name].drop_upper <= margin]
    kept = kept or [one for one in ten if drops[one.name].drop_lower <= margin]
    if not kept:
        raise SystemExit(f"each of the ten loses more than {margin:g} points: there is nothing to compare with")
    return max(kept, key=lambda one: speeds[one.name])


def contest(run: Run, margin: float, quartets: int, whole: float | None) -> dict[str, Any]:
    data = opened(run)
    candidates, winner = chosen(run)
    base = candidates[0]
    crop = base.artifact.preprocess.crop
    texts = [text.format(three_quarters=round(0.75 * crop / 32) * 32) for text in EXPERT]
    with files.locked(run.root):
        rows = [by_hand(text, base, data) for text in texts]
    ten = [row.candidate for row in rows if row.candidate is not None]
    everybody = list({one.id: one for one in [*ten, *([] if winner.id == base.id else [winner])]}.values())
    drops = {one.name: compared(one, base, data) for one in everybody}
    session = workbench.timed(base, everybody, clock.pixels(data, [base, *everybody]), quartets)
    speeds = {row.name: row for row in session.rows}
    best = best_of(ten, {name: row.beside[base.name].ratio for name, row in speeds.items()}, drops, margin)
    spent = sum(row["seconds"] for row in files.read_json(run.ladder)["rungs"].values())

    images = len(workbench.answered(base, data))
    print(
        f"\nthe ladder took {spent:.0f} s" + (f", the whole command {whole:.0f} s" if whole else "")
        + f"; the ten took {sum(row.seconds for row in rows):.0f} s more, what they share with it apart"
    )  # fmt: skip
    title = f"{base.artifact.architecture}, {images:,} test images, margin {margin:g} points; {session.said}"
    seconds = {row.candidate.id: f"{row.seconds:.0f}" for row in rows if row.candidate is not None}
    workbench.printed(
        title,
        ("", "top-1", "points lost (at most)", "against the baseline", "MB", "seconds more", ""),
        [
            [
                one.name, f"{drops[one.name].top1:.2f}", workbench.lost(drops[one.name]),
                speeds[one.name].faster(base.name), f"{speeds[one.name].size_mb:.2f}", seconds.get(one.id, ""),
                " ".join(["the ladder's"] * (one.id == winner.id) + ["best of ten"] * (one.id == best.id)),
            ]
            for one in everybody
        ],
    )  # fmt: skip
    for row in rows:
        if row.why_not:
            print(f"not to be had: {row.chain}: {row.why_not}")
    found: dict[str, Any] = {"session": session, "accuracy": drops, "ladder_seconds": spent, "command_seconds": whole}
    found |= {"winner": winner.name, "best_of_ten": best.name, "same": winner.id == best.id}
    found |= {"by_hand": {row.chain: row.why_not or row.seconds for row in rows}}
    if winner.id == best.id:
        print(f"\nthe ladder's winner is the best of the ten: '{best.name}'")
        return found
    console.say(f"'{winner.name}' against '{best.name}'")
    last = workbench.timed(best, [winner], clock.pixels(data, [best, winner]), 2 * quartets)
    between = compared(winner, best, data)
    print(
        f"\nthe ladder's '{winner.name}' against the best of ten, '{best.name}': "
        f"{last.rows[0].faster(best.name)} as fast; {between.drop:+.2f} points lost "
        f"({rounded_down(between.drop_lower, 2):+z.2f} to {rounded_up(between.drop_upper, 2):+z.2f}); {last.said}"
    )
    return {**found, "last_session": last, "last_accuracy": between}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="a folder of photos, such as flowers5")
    parser.add_argument("--for", dest="time", default="10m", help="time of the ladder")
    parser.add_argument("--max-drop", type=float, default=2.0, help="points of top-1, for both")
    parser.add_argument("--quartets", type=int, default=16, help="of each comparison")
    parser.add_argument("--place", type=Path, default=Path("runs") / "ladder", help="where the run is kept")
    parser.add_argument("--json", type=Path, default=Path("ladder.json"))
    given, further = parser.parse_known_args()
    if not {"--model", "--weights"} & {flag.partition("=")[0] for flag in further}:
        further += ["--weights", "lite0"]
    print(conditions())
    run = Run(given.place / "run")
    typed = [given.data, "--runs", str(given.place), "--name", run.name, "--for", given.time]
    typed += ["--max-drop", str(given.max_drop), *further]
    print(f"torchstone run {' '.join(typed)}", flush=True)
    try:
        found = contest(run, given.max_drop, given.quartets, laddered(typed, run))
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
    workbench.written(given.json, typed=typed, margin=given.max_drop, level=workbench.LEVEL, **found)


if __name__ == "__main__":
    main()
