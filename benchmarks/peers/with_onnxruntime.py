"""ONNX Runtime's own flow, as its example of image classification shows it: export, pre-process, quantise with the
defaults of that example (QDQ, signed weights, per tensor), time ten calls of both models. The example ends there; that
both are asked for the labelled images is added, one image at a time, as whoever follows it has to. Says on
stderr what it found, and prints one line of JSON: the same, and its file.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from torchstone.core.artifact import load_artifact
from torchstone.models import store

CALLS = 10


class Images(CalibrationDataReader):
    def __init__(self, images: NDArray[np.uint8]) -> None:
        self.rows = iter([{"image": images[row : row + 1]} for row in range(len(images))])

    def get_next(self) -> Any:  # None when there are no more
        return next(self.rows, None)


def opened(path: Path) -> Any:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def milliseconds(path: Path, image: NDArray[np.uint8]) -> float:
    session = opened(path)
    session.run([], {"image": image})
    begin = time.perf_counter()
    for _ in range(CALLS):
        session.run([], {"image": image})
    return 1e3 * (time.perf_counter() - begin) / CALLS


def accuracy(path: Path, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> float:
    session = opened(path)
    answers = [int(np.argmax(session.run([], {"image": images[row : row + 1]})[0])) for row in range(len(images))]
    return float(np.mean(np.array(answers) == labels))


def main(task: dict[str, Any]) -> None:
    calibration, images, labels = (np.load(task[name]) for name in ("calibration", "images", "labels"))
    out = Path(task["out"])
    whole, prepared, found = (out / name for name in ("whole.onnx", "prepared.onnx", "model.onnx"))
    network = store.load(load_artifact(Path(task["artifact"])))
    torch.onnx.export(
        network,
        (torch.zeros(1, *images.shape[1:], dtype=torch.uint8),),
        whole,
        dynamo=False,  # the quicker exporter, whose graphs the quantiser knows
        opset_version=17,
        input_names=["image"],
        output_names=["logits"],
        dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
    )
    quant_pre_process(whole, prepared)
    quantize_static(
        prepared,
        found,
        Images(calibration),
        quant_format=QuantFormat.QDQ,
        per_channel=False,
        weight_type=QuantType.QInt8,
    )
    times = [milliseconds(path, images[:1]) for path in (prepared, found)]
    shares = [accuracy(path, images, labels) for path in (prepared, found)]
    says = f"accuracy {shares[0]:.4f} and {shares[1]:.4f}, {times[0]:.2f} and {times[1]:.2f} ms"
    print(says, file=sys.stderr, flush=True)
    print(json.dumps({"says": says, "format": "onnx", "files": ["model.onnx"]}))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
