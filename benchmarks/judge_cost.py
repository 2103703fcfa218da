"""How much longer ``judge`` takes than the models it runs, imports and compilation apart.

The run is judged again on its own test set: all predictions are made anew, all timings taken anew, and no portraits,
which only describe. Wall time, less what
it took to start and compile, is divided by the seconds that the runners spent computing.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from conditions import conditions
from torchstone.config import Settings
from torchstone.core.errors import UserError
from torchstone.core.run import Run
from torchstone.core.values import Budget, Candidate
from torchstone.evaluate import predict, timing
from torchstone.pipeline import run as run_all
from torchstone.runtimes import open_candidate
from torchstone.stages.judge import Measuring, judge


def opening_seconds(candidates: list[Candidate]) -> float:
    """Seconds to open each candidate once, in this process, after its runtime was imported."""
    for candidate in candidates:
        open_candidate(candidate)
    begin = time.perf_counter()
    for candidate in candidates:
        open_candidate(candidate)
    return time.perf_counter() - begin


@contextlib.contextmanager
def noted_sessions() -> Iterator[list[dict[str, Any]]]:
    """The headers of all timing sessions held meanwhile: one whose control is not clean is repeated and replaced."""
    headers: list[dict[str, Any]] = []
    hold = timing.session

    def session(*arguments: Any, **options: Any) -> timing.Session:
        held = hold(*arguments, **options)
        headers.append(held.header)
        return held

    timing.session = session
    try:
        yield headers
    finally:
        timing.session = hold


def measure(run: Run, names: list[str], margin: float) -> None:
    candidates = run.load_candidates()
    chosen = [candidates[0], *(one for one in candidates[1:] if one.name in names)]
    for candidate in chosen:
        run.predictions(candidate, "test").unlink(missing_ok=True)
    opening = opening_seconds(chosen)
    baseline = str(candidates[0].artifact.directory)
    with noted_sessions() as sessions:
        begin = time.perf_counter()
        asked = [one.name for one in chosen[1:]]
        _, verdict = judge(baseline, asked, Budget(max_drop=margin), how=Measuring(portraits=False))
        wall = time.perf_counter() - begin
    predicted = [path for one in chosen if (path := run.predictions(one, "test")).exists()]
    answering = sum(predict.load(path).header["seconds"] for path in predicted)
    timed = sum(session["computing_seconds"] for session in sessions)
    opening += sum(session["opening_seconds"] for session in sessions)
    computing = answering + timed
    working = wall - opening
    print(f"{verdict.test_images} test images, {len(predicted)} models: {', '.join(one.name for one in chosen)}")
    print(
        f"wall {wall:.1f} s with bundle and report, of which opening {opening:.1f} s; {len(sessions)} timing sessions"
    )
    print(f"computing {computing:.1f} s (predictions {answering:.1f}, timings {timed:.1f})")
    print(f"judge / computing = {working / computing:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "run", type=Path, nargs="?", help="a finished run; by default a small one on the digits is made"
    )
    parser.add_argument("--chain", action="append", help="candidates to judge, by name")
    parser.add_argument("--max-drop", type=float, default=5.0)
    options = parser.parse_args()
    print(conditions())
    names = options.chain or ["onnx@onnxruntime", "int8@openvino"]
    try:
        if options.run:
            measure(Run(options.run), names, options.max_drop)
            return
        with tempfile.TemporaryDirectory() as scratch:
            settings = Settings(data="digits", name="cost", runs=Path(scratch), epochs=8, test_fraction=0.36)
            run_all(settings)
            measure(settings.run, names, options.max_drop)
    except UserError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
