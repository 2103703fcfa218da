"""NNCF's own flow, as its example of an OpenVINO classifier shows it: convert, quantise with the defaults, time both
models with ``benchmark_app``, validate both one image at a time. Says on stderr what it found, and prints one line of
JSON: the same, and its files.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nncf
import numpy as np
import openvino
import torch
from numpy.typing import NDArray

from torchstone.core.artifact import load_artifact
from torchstone.models import store


def accuracy(model: Any, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> float:
    compiled = openvino.compile_model(model)
    output = compiled.outputs[0]
    answers = [int(np.argmax(compiled(images[row : row + 1])[output])) for row in range(len(images))]
    return float(np.mean(np.array(answers) == labels))


def frames_a_second(path: Path, shape: tuple[int, ...], seconds: int) -> float:
    said = subprocess.run(
        [Path(sys.executable).with_name("benchmark_app"), "-m", path, "-d", "CPU", "-api", "async", "-t", str(seconds),
         "-shape", str(list(shape)).replace(" ", "")],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    found = re.search(r"Throughput:\s*([\d.]+) FPS", said)
    if found is None:
        raise SystemExit(f"benchmark_app named no throughput:\n{said[-2000:]}")
    return float(found[1])


def main(task: dict[str, Any]) -> None:
    calibration, images, labels = (np.load(task[name]) for name in ("calibration", "images", "labels"))
    out = Path(task["out"])
    network = store.load(load_artifact(Path(task["artifact"])))
    one = (1, *images.shape[1:])
    model = openvino.convert_model(network, example_input=torch.zeros(one, dtype=torch.uint8))
    model.inputs[0].get_tensor().set_names({"image"})
    model.outputs[0].get_tensor().set_names({"logits"})

    quantised = nncf.quantize(model, nncf.Dataset([calibration[row : row + 1] for row in range(len(calibration))]))

    openvino.save_model(model, out / "whole.xml")
    openvino.save_model(quantised, out / "model.xml")
    before, after = (frames_a_second(out / name, one, task["benchmark_seconds"]) for name in ("whole.xml", "model.xml"))
    whole, found = (accuracy(graph, images, labels) for graph in (model, quantised))
    says = f"accuracy {whole:.4f} and {found:.4f}, throughput {after / before:.2f} times"
    print(says, file=sys.stderr, flush=True)
    print(json.dumps({"says": says, "format": "openvino", "files": ["model.xml", "model.bin"]}))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
