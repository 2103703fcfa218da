"""How often the judge's clock claims a difference where there is none: a network against itself, session after session.

Each session is one of the judge's own: the network, the same files once more as its candidate, and the A/A control, all
interleaved; the bounds and the control's verdict are the judge's. It is held on the machine as it is, beside a
neighbour that takes a growing share of the timed core, so that the machine gets slower from the first quartet to the
last, and beside one that works in bursts. The bound is one-sided at the level of the first look: of two of them, 2.1 in
100 claim a difference by chance with 16 quartets, if the two processes are equally fast.

A session lasts eight seconds or so, most of it slots of 50 ms. What was measured is written down after each session,
and the same command goes on from there.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import neighbour
from conditions import conditions
from torchstone.core import console, files
from torchstone.core.values import Budget, Candidate
from torchstone.evaluate import timing
from torchstone.evaluate.pool import cores_for
from torchstone.evaluate.timing import Comparison
from torchstone.judge import decide, ledger, speed
from torchstone.judge.winner import MATERIAL
from torchstone.models import zoo
from torchstone.stages.clock import IMAGES
from torchstone.stages.fresh import exported, fresh
from torchstone.stages.judge import MEASURING

SCENES = {
    "as it is": "the machine as it is",
    "drift": "a neighbour on the timed core whose share grows by 5 % a second, up to 60 %",
    "bursts": "a neighbour on the timed core that works 20 ms and rests 60 ms, on average, at random",
}


@contextlib.contextmanager
def beside(scene: str) -> Iterator[None]:
    """The scene's neighbour, if it has one, for as long as the block lasts."""
    if scene == "as it is":
        yield
        return
    command = [sys.executable, neighbour.__file__, scene, str(cores_for(1)[-1])]
    with subprocess.Popen(command) as process:
        try:
            yield
        finally:
            process.kill()


def twice(model: str, place: Path) -> tuple[Candidate, Candidate]:
    """The network in ONNX Runtime, and its files under another id: the session takes them for two candidates."""
    made = exported(fresh(zoo.resolve(model), place / "torch", classes=10), "onnx", place)
    again = made.model_copy(update={"id": files.digest([made.id, "again"])})
    return (
        Candidate(name=model, artifact=made, runtime="onnxruntime"),
        Candidate(name=f"{model} again", artifact=again, runtime="onnxruntime"),
    )


def held(scene: str, baseline: Candidate, candidate: Candidate, level: float) -> dict[str, Any]:
    """One session, and what the judge reads in it."""
    side = baseline.artifact.preprocess.crop
    pixels = np.random.default_rng(0).integers(0, 256, (IMAGES, side, side, 3), dtype=np.uint8)
    begin = time.monotonic()
    with beside(scene):
        session = timing.session(
            [Comparison(candidate, baseline)],
            control=baseline, quartets=MEASURING.quartets, phase="judged", pixels=pixels,
        )  # fmt: skip
    control = speed.control(speed.quartets(session.tables[baseline.id], "judged", baseline.id))
    measured = speed.quartets(session.tables[candidate.id], "judged", baseline.id)
    result = speed.compare(measured, baseline.name, baseline.id, level)
    assert control is not None
    assert result is not None
    assert result.lower is not None
    assert result.upper is not None
    half = len(measured) // 2
    early, late = (float(np.median(part)) for part in (measured.rival[:half], measured.rival[half:]))
    return {
        "scene": scene,
        "control": control.outcome,
        "control_ratio": control.ratio,
        "ratio": result.ratio,
        "lower": result.lower,
        "upper": result.upper,
        "claims": result.lower > 1 or result.upper < 1,
        "passes": decide.speedup(result, MATERIAL, control).outcome == "pass",
        "ms": early,
        "slower": late / early,
        "seconds": time.monotonic() - begin,
        "load": session.header["load_after"][0],
    }


def summary(scene: str, rows: list[dict[str, Any]]) -> str:
    """What the judge said, and how far its bounds lay from 1."""
    controls = Counter(row["control"] for row in rows)
    clean = [row for row in rows if row["control"] == "clean"]
    claims = sum(row["claims"] for row in clean)
    lines = [
        f"{scene}: {SCENES[scene]}",
        f"  {len(rows)} sessions of {np.median([row['seconds'] for row in rows]):.1f} s, a call of "
        f"{np.median([row['ms'] for row in rows]):.3f} ms; second half against first: {spread(rows, 'slower')} times",
        f"  control: {controls['clean']} clean, {controls['undecided']} undecided, {controls['void']} void",
        f"  claim a difference: {claims} of {len(rows)}; "
        f"without the control {sum(row['claims'] for row in rows)} would have",
        f"  pass as {MATERIAL:g} times faster: {sum(row['passes'] for row in rows)}",
    ]
    if clean:
        lines += [f"  {name:5} of the clean ones: {spread(clean, name)}" for name in ("lower", "ratio", "upper")]
    return "\n".join(lines)


def spread(rows: list[dict[str, Any]], name: str) -> str:
    """Median, and in brackets smallest, 5 %, 95 % and largest."""
    low, five, middle, rest, high = np.quantile([row[name] for row in rows], (0, 0.05, 0.5, 0.95, 1))
    return f"{middle:.3f} ({low:.3f}, {five:.3f} … {rest:.3f}, {high:.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=100, help="of each scene")
    parser.add_argument("--scene", choices=SCENES, action="append", help="all of them by default")
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--out", type=Path, default=Path("clock_levels.json"), help="where the sessions are kept")
    options = parser.parse_args()
    scenes, here = options.scene or list(SCENES), conditions()
    print(here)
    console.be_quiet()
    level = ledger.level(Budget().confidence, 1)
    asked = {"model": options.model, "quartets": MEASURING.quartets, "level": level}
    kept = files.read_json(options.out) if options.out.exists() else {**asked, "conditions": [], "sessions": []}
    if {name: kept[name] for name in asked} != asked:
        raise SystemExit(f"error: '{options.out}' holds sessions of something else\nhint: name another file with --out")
    kept["conditions"].append(here)
    with tempfile.TemporaryDirectory() as scratch:
        candidates = twice(options.model, Path(scratch))
        for number in range(options.sessions):  # in turns: a bad hour must not be one scene's alone
            for scene in scenes:
                if sum(row["scene"] == scene for row in kept["sessions"]) > number:
                    continue
                kept["sessions"].append(row := held(scene, *candidates, level))
                files.write_json(options.out, kept)
                print(
                    f"{number + 1:4} {scene:9} {row['control']:9} {row['ratio']:.3f} ({row['lower']:.3f}-"
                    f"{row['upper']:.3f}){' claims a difference' if row['claims'] else ''}",
                    flush=True,
                )
    for scene in scenes:
        print(summary(scene, [row for row in kept["sessions"] if row["scene"] == scene]))


if __name__ == "__main__":
    main()
