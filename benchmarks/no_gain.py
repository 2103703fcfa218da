"""What the steps are worth that tutorials begin with: dynamic quantisation, zeroed weights, and pruning to any width.

Takes a network that `torchstone train` left. Each chain meets the test images by the judge's own procedure (all of
them, in no order, levels split by Holm: one look, which the ledger counts), and takes turns in one timing session with
the same chain *without* the step in question. A step gains where the lower bound of that ratio is above 1.05, as for
any compression; it has 'no gain' where even the upper bound is below. Pruning to whole vectors stands beside, for
contrast. The run's verdict, bundle and report are those of this judgement afterwards.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import workbench
from conditions import conditions
from torchstone.core.errors import UserError
from torchstone.core.numbers import rounded_up
from torchstone.core.run import run_of
from torchstone.core.values import Budget, Candidate
from torchstone.core.verdict import SpeedResult, Verdict
from torchstone.judge.winner import MATERIAL
from torchstone.stages import clock
from torchstone.stages.find import find_artifact
from torchstone.stages.judge import Measuring, judge
from torchstone.stages.read import opened


@dataclass(frozen=True)
class Case:
    """A chain whose worth is in question, and the same without its step."""

    chain: str
    without: str


def cases(epochs: int) -> tuple[Case, ...]:
    whole = "int8@openvino"
    return (
        Case("dynamic@onnxruntime", "onnx@onnxruntime"),
        Case("sparsify=0.3+onnx@onnxruntime", "onnx@onnxruntime"),
        Case("sparsify=0.3+openvino", "openvino"),
        Case(f"prune=0.3:round_to=1+finetune={epochs}+int8@openvino", whole),
        Case(f"prune=0.3+finetune={epochs}+int8@openvino", whole),
    )


def worth(found: SpeedResult, size: float, size_without: float) -> str:
    """What is proven of the step: in time, by the bounds; in size, as the files are."""
    said = "cannot tell"
    if found.lower is not None and found.upper is not None:
        said = "gain" if found.lower > MATERIAL else "no gain" if found.upper < MATERIAL else "cannot tell"
    smaller = size_without / size
    return f"{said} in time, {'gain' if smaller > MATERIAL else 'no gain'} in size"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run with a trained network")
    parser.add_argument("--max-drop", type=float, default=1.0, help="points of top-1 that may be lost")
    parser.add_argument("--finetune", type=int, default=2, help="epochs after pruning")
    parser.add_argument("--quartets", type=int, default=16, help="of each comparison")
    parser.add_argument("--json", type=Path, default=Path("no_gain.json"))
    given = parser.parse_args()
    print(conditions())
    try:
        asked = cases(given.finetune)
        names = list(dict.fromkeys(name for case in asked for name in (case.without, case.chain)))
        how = Measuring(quartets=max(16, given.quartets), portraits=False)
        run, verdict = judge(str(given.run), names, Budget(max_drop=given.max_drop), how=how, unordered=True)
        candidates = run.load_candidates()
        found = measured(candidates, asked, given.quartets)
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
    shown(verdict, found, asked, given)


def measured(candidates: Sequence[Candidate], asked: Sequence[Case], quartets: int) -> workbench.Session:
    """All of them in one session, each against the same without its step."""
    baseline, by_name = candidates[0], {one.name: one for one in candidates}
    pixels = clock.pixels(opened(run_of(baseline.artifact)), [baseline])
    pairs = [(by_name[case.chain], by_name[case.without]) for case in asked]
    return workbench.timed(baseline, candidates[1:], pixels, quartets, pairs)


def shown(verdict: Verdict, found: workbench.Session, asked: Sequence[Case], given: argparse.Namespace) -> None:
    rows, stored = [], []
    by_name = {row.name: row for row in found.rows}
    judged = {row.name: row for row in verdict.rows}
    for case in asked:
        row, without, decided = by_name[case.chain], by_name[case.without], judged[case.chain]
        step = row.beside[case.without]
        result = decided.accuracy
        assert result is not None
        said = worth(step, row.size_mb, without.size_mb)
        lost = f"{result.drop:z.2f} (at most {rounded_up(result.drop_upper, 2):z.2f})"
        rows.append(
            [
                case.chain,
                lost,
                decided.outcome,
                row.faster(case.without),
                f"{without.size_mb:.2f} → {row.size_mb:.2f}",
                said,
            ]
        )
        stored.append({"chain": case.chain, "without": case.without, "row": row, "verdict": decided, "worth": said})
    title = (
        f"{find_artifact(str(given.run)).architecture}, {verdict.test_images:,} test images, margin {given.max_drop:g} "
        f"points, look {verdict.look}; {found.said}"
    )
    columns = ("chain", "points lost", "accuracy", "faster than without the step", "MB", "worth")
    workbench.printed(title, columns, rows)
    for row in found.rows:
        for note in row.notes:
            print(f"{row.name}: {note}")
    print(verdict.sentence)
    workbench.written(given.json, cases=stored, verdict=verdict, session=found)


if __name__ == "__main__":
    main()
