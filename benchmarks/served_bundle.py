"""A bundle to be served in measurements: a network for photos with random weights, by default ResNet-18 in INT8 for
ONNX Runtime, calibrated on photos, with its FP32 model beside. Random weights are right for time and memory, and say
nothing about accuracy."""

from __future__ import annotations

import argparse
from pathlib import Path

import workbench
from torchstone.core.errors import UserError
from torchstone.core.run import Run
from torchstone.export import bundle
from torchstone.train.recipe import Recipe
from torchstone.train.stage import TrainRequest

CLASSES = 1000
PHOTOS = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, nargs="*", help="folders; by default pieces of scikit-learn's two photos")
    parser.add_argument("--model", default="torchvision:resnet18")
    parser.add_argument("--chain", default="int8@onnxruntime")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder in which what is made is kept")
    parser.add_argument("--out", type=Path, help="by default RUNS/serve-trials/bundle")
    given = parser.parse_args()
    run = Run(given.runs / "serve-trials")
    folders = given.photos or [workbench.cut_out(run.root / "photos", PHOTOS)]
    request = TrainRequest(model=given.model, recipe=Recipe(epochs=0))
    try:
        photos = workbench.pictures(folders, PHOTOS)
        bench = workbench.untrained(request, run, photos, classes=CLASSES, threads=1)
        made, plain = bench.built(given.chain), bench.built("onnx")
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
    if made is None:
        raise SystemExit(1)
    print(bundle.write(made, plain, given.out or run.root / "bundle"))


if __name__ == "__main__":
    main()
