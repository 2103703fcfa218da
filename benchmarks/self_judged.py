"""Does a model judged against itself ever pass as faster? It must not: session after session, the drop is 0 and
``--min-speedup 1.05`` is never met."""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections import Counter
from pathlib import Path

from conditions import conditions
from torchstone.config import Settings
from torchstone.core import console, files
from torchstone.core.values import Artifact, Budget
from torchstone.pipeline import run as run_all
from torchstone.stages.judge import judge


def twin(artifact: Artifact) -> Artifact:
    """The same network under an id of its own, in a directory beside: a session would merge a comparison of one id with
    itself and the A/A control, and the judge would judge nothing."""
    place = artifact.directory.with_name(f"{artifact.directory.name}-again")
    shutil.copytree(artifact.directory, place)
    key, again = f"{artifact.key}-again", files.digest([artifact.id, "again"])
    made = artifact.model_copy(update={"id": again, "key": key, "directory": place, "chain": "again"})
    made.save(place / "artifact.json")
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--model", default="lenet5")
    options = parser.parse_args()
    print(conditions())
    console.be_quiet()
    outcomes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as scratch:
        settings = Settings(
            data="digits", name="self", runs=Path(scratch), model=options.model, epochs=6, test_fraction=0.36,
            chain=("onnx",), max_drop=3.0,
        )  # fmt: skip
        run_all(settings)
        baseline = settings.run.load_candidates()[0].artifact
        again = twin(baseline)
        for number in range(1, options.sessions + 1):
            _, verdict = judge(str(baseline.directory), [str(again.directory)], Budget(max_drop=3.0, min_speedup=1.05))
            row, control = verdict.rows[1], verdict.control
            assert row.candidate_id != verdict.rows[0].candidate_id
            assert row.accuracy is not None
            assert row.speed is not None
            assert control is not None
            outcomes[row.outcome] += 1
            low, high = control.interval95
            bounds = "no bounds" if row.speed.lower is None else f"{row.speed.lower:.3f}-{row.speed.upper:.3f}"
            print(
                f"session {number:2}: {row.outcome:9} drop {row.accuracy.drop:.1f} ({row.accuracy.lost} lost, "
                f"{row.accuracy.gained} gained), ratio {row.speed.ratio:.3f} ({bounds}), "
                f"A/A {control.ratio:.3f} ({low:.3f}-{high:.3f}), {control.outcome}",
                flush=True,
            )
    print(f"{options.sessions} sessions: {dict(outcomes)}; passes: {outcomes['pass']}")


if __name__ == "__main__":
    main()
