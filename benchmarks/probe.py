"""How good a recipe is, and how long it takes: ``torchstone train`` in a process of its own for each seed, with nothing
kept from before, so that imports, reading, measuring, splitting, decoding and saving count.

A seed is of the split, too: each is another val part. The figure is top-1 on val of the finished artifact, as the torch
runtime answers in float32, not as the training said. Beside the wall clock stands the processor's time, which a loaded
machine changes less.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from conditions import conditions
from torchstone.core.artifact import load_artifact
from torchstone.core.run import Run
from torchstone.core.values import Candidate
from torchstone.data.cache import open_images
from torchstone.evaluate import metrics
from torchstone.evaluate.predict import answer


def trained(arguments: list[str], seed: int, runs: Path) -> tuple[float, float, float, int]:
    """Seconds of the command, seconds of processors, top-1 on val (per cent) and the images of val."""
    command = [sys.executable, "-m", "torchstone", "train", *arguments]
    command += ["--seed", str(seed), "--runs", str(runs), "--name", "probe", "--json"]
    begin, busy = time.perf_counter(), processors()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds, busy = time.perf_counter() - begin, processors() - busy
    if done.returncode:
        raise SystemExit(f"{done.stderr}\n{command} ended with {done.returncode}")
    artifact = load_artifact(Path(json.loads(done.stdout)["directory"]))
    run = Run(runs / "probe")
    val = open_images(run.catalog(), run.split(), "val", artifact.preprocess, run.cache)
    found = answer(Candidate(name="torch", artifact=artifact, runtime="torch"), val, "val")
    return seconds, busy, 100 * metrics.top1(found.labels, metrics.predicted_classes(found.scores)), len(val)


def processors() -> float:
    """Seconds that the processors have worked for children of this process."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", help="a folder of images")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--recipe", default="probe")
    parser.add_argument("--weights", default="lite0")
    options, further = parser.parse_known_args()
    arguments = [options.data, "--recipe", options.recipe, "--weights", options.weights, *further]
    print(conditions())
    print(f"torchstone train {' '.join(arguments)}")
    rows = []
    for seed in range(options.seeds):
        with tempfile.TemporaryDirectory() as scratch:
            rows.append(trained(arguments, seed, Path(scratch)))
        seconds, busy, top1, images = rows[-1]
        print(f"seed {seed}: {top1:.2f} % of {images} images, {seconds:.1f} s, {busy:.1f} of processors", flush=True)
    if len(rows) > 1:
        clock, scores = [row[0] for row in rows], [row[2] for row in rows]
        print(f"top-1 {statistics.mean(scores):.2f} ± {statistics.stdev(scores):.2f} %, at most {max(clock):.1f} s")


if __name__ == "__main__":
    main()
