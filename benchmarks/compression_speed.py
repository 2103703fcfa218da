"""How much faster the steps make a network for photos, against eager PyTorch in FP32: ResNet-18 at 224 pixels, batch 1,
one thread, unless told otherwise.

The weights are random, which is right for speed and says nothing about accuracy; 'finetune' is one pass over a few
photos, so that the chain is whole. All candidates take turns in one session of the judge's clock, and each ratio stands
with its bounds at one-sided 97.5 %. 'On top' compares with the same chain without the step in question: what dynamic
quantisation adds to ONNX, what pruning adds to INT8. The last lines say how fast this processor could be at best.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import workbench
from conditions import conditions
from torchstone.core.errors import UserError
from torchstone.core.run import Run
from torchstone.core.values import Candidate
from torchstone.evaluate import peaks
from torchstone.models import cost
from torchstone.stages.clock import IMAGES
from torchstone.train.recipe import Recipe
from torchstone.train.stage import TrainRequest
from workbench import Bench, Row, Session

CLASSES = 1000
PHOTOS = 64
"""That are calibrated on and make up an epoch: one step of the optimiser."""
CHAINS = (
    "onnx", "openvino", "bf16@torch", "bf16@openvino", "int8@onnxruntime", "int8@openvino",
    "prune=0.3+finetune=1+int8@onnxruntime", "prune=0.3+finetune=1+int8@openvino",
    "prune=0.3:round_to=1+finetune=1+int8@onnxruntime", "prune=0.3:round_to=1+finetune=1+int8@openvino",
    "dynamic", "sparsify=0.5+onnx", "sparsify=0.5+openvino",
)  # fmt: skip
BARS = {
    "int8@openvino": 8.0,
    "int8@onnxruntime": 4.5,
    "prune=0.3+finetune=1+int8@openvino": 13.0,
}
"""What the lower bound against eager FP32 should reach on a processor with AMX. AVX512-VNNI is not enough: on
an EPYC without AMX the fastest INT8 products allow 5.5 times, and none of the three was met (docs/compression.md)."""
WITHOUT = {
    "dynamic@onnxruntime": "onnx@onnxruntime",
    "sparsify=0.5+onnx@onnxruntime": "onnx@onnxruntime",
    "sparsify=0.5+openvino": "openvino",
    **{
        f"prune=0.3{rounding}+finetune=1+int8@{runtime}": f"int8@{runtime}"
        for rounding in ("", ":round_to=1")
        for runtime in ("onnxruntime", "openvino")
    },
}
"""The candidate: the same without the step that is in question."""


def measured(bench: Bench, chains: list[str], quartets: int) -> Session:
    candidates = [one for text in chains if (one := bench.built(text)) is not None]
    by_name = {one.name: one for one in candidates}
    rivals = [(one, by_name[rival]) for one in candidates if (rival := WITHOUT.get(one.name)) in by_name]
    pixels = workbench.Photos(bench.train[:IMAGES], bench.baseline.artifact.preprocess)
    return workbench.timed(bench.baseline, candidates, pixels.images(slice(None)), quartets, rivals)


def judged(row: Row, eager: str) -> str:
    """Whether a bar is met: by the lower bound."""
    bar, found = BARS.get(row.name), row.beside[eager]
    if bar is None:
        return ""
    if found.lower is None:
        return f"≥ {bar:g}×"
    return f"≥ {bar:g}× {'met' if found.lower >= bar else 'missed'}"


def ceiling(baseline: Candidate, eager_ms: float) -> dict[str, float]:
    """precision: how many times faster than eager FP32 the whole network would be if nothing but its multiplications
    took time, at the rate of this processor's fastest matrix products."""
    found = peaks.measure(baseline.options.threads)
    artifact = baseline.artifact
    macs = cost.cost(artifact.architecture, classes=len(artifact.classes), crop=artifact.preprocess.crop).macs
    return {name: eager_ms / (2 * macs / (1e6 * gflops)) for name, gflops in found.gflops.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, nargs="*", help="folders; by default pieces of scikit-learn's two photos")
    parser.add_argument("--model", default="torchvision:resnet18")
    parser.add_argument("--chain", action="append", help="instead of the usual ones; may be repeated")
    parser.add_argument("--quartets", type=int, default=16, help="of each comparison")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder in which what is built is kept")
    parser.add_argument("--json", type=Path, default=Path("compression_speed.json"))
    given = parser.parse_args()
    print(conditions())
    run = Run(given.runs / "compression-speed")
    try:
        folders = given.photos or [workbench.cut_out(run.root / "photos", PHOTOS)]
        request = TrainRequest(model=given.model, recipe=Recipe(epochs=0))
        bench = workbench.untrained(
            request, run, workbench.pictures(folders, PHOTOS), classes=CLASSES, threads=given.threads
        )
        found = measured(bench, given.chain or list(CHAINS), given.quartets)
        limits = ceiling(bench.baseline, found.baseline_ms)
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
    eager = bench.baseline
    crop = eager.artifact.preprocess.crop
    rows = [[f"{eager.name} (eager FP32)", f"{found.baseline_ms:.2f}", "", "", f"{eager.artifact.size_mb:.2f}", ""]]
    rows += [
        [row.name, f"{row.ms:.2f}", row.faster(eager.name), on_top(row), f"{row.size_mb:.2f}", judged(row, eager.name)]
        for row in found.rows
    ]
    title = f"{given.model}, random weights, {crop} × {crop}, batch 1, threads {given.threads}; {found.said}"
    workbench.printed(title, ("candidate", "ms", "against eager FP32", "on top", "MB", "bar (lower bound)"), rows)
    roofs = ", ".join(f"{name} {times:.1f}×" for name, times in limits.items())
    print(f"\nthe whole network at this processor's fastest matrix products, against eager FP32: {roofs}")
    workbench.written(
        given.json, model=given.model, crop=crop, level=workbench.LEVEL, session=found, ceiling=limits, bars=BARS
    )


def on_top(row: Row) -> str:
    """Against the same without the step in question."""
    rival = WITHOUT.get(row.name)
    return row.faster(rival) if rival in row.beside else ""


if __name__ == "__main__":
    main()
