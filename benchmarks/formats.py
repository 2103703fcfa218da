"""How close each exported format is to the model it was made from: probabilities and top-1 on real images of val.

    python benchmarks/formats.py RUN [--images 200] [--out FILE.json]

RUN holds a trained model. Formats whose packages or devices are missing are listed with the reason.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any, cast

import numpy as np

from conditions import conditions
from torchstone.compress import chain
from torchstone.core import console
from torchstone.core.errors import UserError
from torchstone.core.registry import steps
from torchstone.core.run import run_of
from torchstone.core.values import Artifact, RuntimeOptions
from torchstone.evaluate import metrics
from torchstone.runtimes import golden, open_artifact
from torchstone.stages.find import find_artifact
from torchstone.stages.read import opened

CHAINS = (
    "pt2", "onnx", "onnx:exporter=dynamo", "onnx@openvino", "fp16@onnxruntime", "openvino", "fp16@openvino", "tflite",
    "tensorrt",
)  # fmt: skip
BATCH = 32


def built(plan: chain.Plan, origin: Artifact, scratch: Path, contents: tuple[list[bytes], list[str]]) -> Artifact:
    """The plan's steps one after the other, each proven on the golden images of the one before."""
    made = origin
    for number, planned in enumerate(plan.steps):
        place = scratch / str(number)
        place.mkdir(parents=True)
        made = steps.ready(planned.name).apply(made, cast(Any, None), planned.config, planned.target, place)
        golden.write(place, *contents, made.preprocess, open_artifact(made), golden.TOLERANCE["f32"])
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    console.be_quiet()
    origin = find_artifact(given.run)
    images = opened(run_of(origin)).sets(origin, "val")["val"]
    pixels = images.images(np.arange(min(given.images, len(images))))
    contents = [images.encoded(row) for row in range(golden.IMAGES)]
    names = [images.items[row] for row in range(golden.IMAGES)]
    expected = metrics.softmax(open_artifact(origin, RuntimeOptions(batch=BATCH))(pixels)["logits"])
    rows = []
    print(f"{origin.architecture}, {origin.preprocess.crop}², {len(pixels)} images of val\n")
    print(f"{'chain':24} {'runtime':12} {'MB':>7} {'seconds':>8} {'|Δp| ≤':>9} {'top-1 agrees':>14}")
    for text in CHAINS:
        try:
            plan = chain.plan(text)
            with tempfile.TemporaryDirectory() as scratch:
                began = time.perf_counter()
                made = built(plan, origin, Path(scratch), (contents, names))
                seconds = time.perf_counter() - began
                runner = open_artifact(made, RuntimeOptions(batch=BATCH), runtime=plan.runtime)
                found = metrics.softmax(runner(pixels)["logits"])
                size = made.size_mb
        except UserError as error:
            print(f"{text:24} left out: {error.message}")
            rows.append({"chain": text, "left_out": error.message})
            continue
        difference = float(np.abs(found - expected).max())
        agree = int((found.argmax(1) == expected.argmax(1)).sum())
        print(f"{text:24} {plan.runtime:12} {size:7.2f} {seconds:8.1f} {difference:9.1e} {agree:8} of {len(pixels)}")
        rows.append(
            {"chain": text, "runtime": plan.runtime, "mb": size, "seconds": seconds, "probabilities": difference,
             "agree": agree, "images": len(pixels)}
        )  # fmt: skip
    if given.out:
        given.out.write_text(
            json.dumps({"conditions": conditions(), "model": origin.architecture, "rows": rows}, indent=1)
        )


if __name__ == "__main__":
    main()
