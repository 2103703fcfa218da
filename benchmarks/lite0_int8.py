"""What INT8 does to a network that somebody else trained: EfficientNet-Lite0 with its ImageNet weights, calibrated on
photos of other things, asked about photos that it has not seen. Agreement needs no labels.

'Agrees' is the share of photos on which INT8 and FP32 name the same of the 1,000 classes, with its exact interval
(Clopper and Pearson, each side at 97.5 %); the speed is that of the judge's session, against FP32 in the same runtime,
with bounds at the same level. ``--chain`` tries other options of the step: ``--chain int8:calibration=entropy``.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import workbench
from conditions import conditions
from torchstone.core.errors import UserError
from torchstone.core.numbers import rounded_down, rounded_up
from torchstone.core.run import Run
from torchstone.core.values import Candidate
from torchstone.evaluate import metrics, predict
from torchstone.judge import select
from torchstone.models.weights import IMAGENET_CLASSES
from torchstone.stages.clock import IMAGES
from torchstone.train.recipe import Recipe
from torchstone.train.stage import TrainRequest

CHAINS = (
    "int8@onnxruntime",
    "int8:calibration=percentile,keep=2@onnxruntime",
    "int8@openvino",
    "int8:depthwise=float,keep=1,preset=mixed,calibration=histogram@openvino",
)
"""As it comes, and with what helps a network of depthwise layers."""
WHOLE = {"onnxruntime": "onnx", "openvino": "openvino"}
"""runtime: the chain of the same weights in FP32."""
AGREES, FASTER = 97.5, 1.7
"""What is aimed at: per cent of the photos, and times as fast as FP32 in the same runtime."""
CALIBRATION = 512
"""Photos that a chain may calibrate on; ``int8:images=N`` takes so many of them."""


def interval(hits: int, count: int) -> tuple[float, float]:
    """Exact bounds of a share, in per cent."""
    from scipy.stats import binomtest

    found = binomtest(hits, count).proportion_ci(2 * workbench.LEVEL - 1, "exact")
    return 100 * float(found.low), 100 * float(found.high)


def named(candidate: Candidate, photos: workbench.Photos) -> NDArray[np.int64]:
    """The class that the candidate gives each photo."""
    return metrics.predicted_classes(predict.answer(candidate, photos, "photos").scores)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calibrate", type=Path, action="append", required=True, help="a folder of photos; repeatable")
    parser.add_argument("--photos", type=Path, action="append", required=True, help="folders of other photos")
    parser.add_argument("--count", type=int, help="of the other photos; by default all")
    parser.add_argument("--weights", default="lite0", help="lite0, lite1 or lite2")
    parser.add_argument("--chain", action="append", help="instead of the usual ones; may be repeated")
    parser.add_argument("--quartets", type=int, default=16, help="of each comparison; 0: nothing is timed")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder in which what is built is kept")
    parser.add_argument("--json", type=Path, default=Path("lite0_int8.json"))
    given = parser.parse_args()
    print(conditions())
    try:
        compare(given)
    except UserError as error:
        raise SystemExit(f"error: {error}") from None


def compare(given: argparse.Namespace) -> None:
    request = TrainRequest(weights=given.weights, recipe=Recipe(epochs=0))
    calibration = workbench.pictures(given.calibrate, CALIBRATION)
    bench = workbench.untrained(
        request, Run(given.runs / "lite0-int8"), calibration, classes=IMAGENET_CLASSES, threads=given.threads
    )
    made = [one for text in given.chain or CHAINS if (one := bench.built(text)) is not None]
    whole = {runtime: bench.built(WHOLE[runtime]) for runtime in dict.fromkeys(one.runtime for one in made)}
    candidates = [*(one for one in whole.values() if one is not None), *made]
    photos = workbench.Photos(workbench.pictures(given.photos, given.count), bench.baseline.artifact.preprocess)
    answers = {one.id: named(one, photos) for one in candidates}
    speeds: dict[str, workbench.Row] = {}
    said, session = "not timed", None
    if given.quartets:
        pixels = photos.images(slice(IMAGES))
        session = workbench.timed(bench.baseline, candidates, pixels, given.quartets)
        speeds, said = {row.name: row for row in session.rows}, session.said
    rows, stored = [], []
    for one in made:
        rival = select.same_runtime_rival(candidates, one)
        assert rival is not None
        same = int((answers[one.id] == answers[rival.id]).sum())
        low, high = interval(same, len(photos))
        row = speeds.get(one.name)
        measured: dict[str, Any] = {
            "candidate": one.name, "against": rival.name, "photos": len(photos), "same": same,
            "agreement": 100 * same / len(photos), "interval": [low, high], "size_mb": one.artifact.size_mb,
            "speed": row.beside[rival.name] if row else None,
        }  # fmt: skip
        stored.append(measured)
        rows.append(
            [
                one.name, f"{measured['agreement']:.2f} % ({rounded_down(low, 2):.2f}–{rounded_up(high, 2):.2f})",
                row.faster(rival.name) if row else "—", row.faster(bench.baseline.name) if row else "—",
                f"{one.artifact.size_mb:.2f}", aims(measured),
            ]
        )  # fmt: skip
    title = (
        f"{bench.baseline.artifact.architecture}, at most {len(calibration)} photos to calibrate on, {len(photos):,} "
        f"others asked about, batch 1, threads {given.threads}; {said}\n"
        f"aims: {AGREES:g} % of the photos observed to have the same answer (its interval stands beside, and may reach "
        f"below), {FASTER:g}× the speed by its lower bound"
    )
    columns = ("candidate", "agrees with FP32", "faster than it", "than eager FP32", "MB", "aims")
    workbench.printed(title, columns, rows)
    workbench.written(given.json, level=workbench.LEVEL, rows=stored, session=session)


def aims(measured: dict[str, Any]) -> str:
    """Which of the two aims are met: the agreement as observed, the speed by its lower bound."""
    said = [f"agreement {'met' if measured['agreement'] >= AGREES else 'missed'}"]
    if measured["speed"] is not None and measured["speed"].lower is not None:
        said.append(f"speed {'met' if measured['speed'].lower >= FASTER else 'missed'}")
    return ", ".join(said)


if __name__ == "__main__":
    main()
