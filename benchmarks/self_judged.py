"""Does a model judged against itself ever pass as faster? It must not: session after session, the drop is 0 and
``--min-speedup 1.05`` is never met."""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from pathlib import Path

from conditions import conditions
from torchstone.config import Settings
from torchstone.core import console
from torchstone.core.values import Budget
from torchstone.pipeline import run as run_all
from torchstone.stages.judge import judge


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
        place = str(settings.run.root)
        for number in range(1, options.sessions + 1):
            _, verdict = judge(place, [place], Budget(max_drop=3.0, min_speedup=1.05))
            row, control = verdict.rows[1], verdict.control
            assert row.accuracy is not None
            assert control is not None
            outcomes[row.outcome] += 1
            low, high = control.interval95
            print(
                f"session {number:2}: {row.outcome:9} drop {row.accuracy.drop:.1f} ({row.accuracy.lost} lost, "
                f"{row.accuracy.gained} gained), ratio {control.ratio:.3f} ({low:.3f}-{high:.3f}), {control.outcome}",
                flush=True,
            )
    print(f"{options.sessions} sessions: {dict(outcomes)}; passes: {outcomes['pass']}")


if __name__ == "__main__":
    main()
