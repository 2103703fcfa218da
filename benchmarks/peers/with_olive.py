"""Olive's own workflow, as its example of post-training quantisation on a CPU shows it: conversion, quantisation of
activations and weights to unsigned bytes, and its evaluator, which measures accuracy and latency of what goes in and
of what comes out. Two passes of that example change nothing in the model and are left out: the tuning of sessions and
the metadata. Says on stderr what it found, and prints one line of JSON: the same, and its file.

Olive imports this file as its 'user script', too. It runs offline, with its telemetry off.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

os.environ |= {"OLIVE_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "1"}

import numpy as np
import torch
from torch.utils.data import Dataset

from torchstone.core.artifact import load_artifact
from torchstone.models import store

Registry: Any = importlib.import_module("olive.data.registry").Registry


class Images(Dataset[Any]):
    """(what the model takes, label), one image at a time."""

    def __init__(self, images: str, labels: str | None) -> None:
        self.images = np.load(images)
        self.labels = np.load(labels) if labels else np.zeros(len(self.images), np.int64)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> tuple[dict[str, torch.Tensor], int]:
        return {"image": torch.from_numpy(self.images[row])}, int(self.labels[row])


@Registry.register_dataset()
def images_on_disk(images: str, labels: str | None = None, **_: Any) -> Images:
    return Images(images, labels)


@Registry.register_post_process()
def most_probable(output: Any, **_: Any) -> Any:
    return (output["logits"] if isinstance(output, dict) else output).argmax(axis=1)


def network(model_path: str) -> torch.nn.Module:
    return store.load(load_artifact(Path(model_path)))


def workflow(task: dict[str, Any]) -> dict[str, Any]:
    """The configuration of the example, with this network and these images."""
    artifact = load_artifact(Path(task["artifact"]))
    crop = artifact.preprocess.crop
    data = {
        name: {
            "name": name,
            "type": "DataContainer",
            "user_script": __file__,
            "load_dataset_config": {"type": "images_on_disk", "params": files},
            "pre_process_data_config": {"type": "skip_pre_process"},
            "dataloader_config": {"type": "default_dataloader", "params": {"batch_size": 1}},
            "post_process_data_config": {"type": "most_probable"},
        }
        for name, files in (
            ("calibration", {"images": task["calibration"]}),
            ("test", {"images": task["images"], "labels": task["labels"]}),
        )
    }
    accuracy = {
        "name": "accuracy",
        "type": "accuracy",
        "data_config": "test",
        "sub_types": [
            {
                "name": "accuracy_score",
                "priority": 1,
                "metric_config": {"task": "multiclass", "num_classes": len(artifact.classes)},
            }
        ],
    }
    latency = {"name": "latency", "type": "latency", "data_config": "test", "sub_types": [{"name": "avg"}]}
    return {
        "input_model": {
            "type": "PyTorchModel",
            "model_path": task["artifact"],
            "model_loader": "network",
            "model_script": __file__,
            "io_config": {
                "input_names": ["image"],
                "input_shapes": [[1, crop, crop, 3]],
                "input_types": ["uint8"],
                "output_names": ["logits"],
                "dynamic_axes": {"image": {"0": "batch"}, "logits": {"0": "batch"}},
            },
        },
        "data_configs": list(data.values()),
        "evaluators": {"usual": {"metrics": [accuracy, latency]}},
        "passes": {
            "conversion": {"type": "OnnxConversion", "target_opset": 17, "use_dynamo_exporter": False},
            "quantisation": {
                "type": "OnnxQuantization",
                "data_config": "calibration",
                "precision": "uint8",
                "activation_type": "uint8",
                "calibrate_method": "MinMax",
                "quant_preprocess": True,
            },
        },
        "evaluator": "usual",
        "cache_dir": str(Path(task["out"]) / "cache"),
        "output_dir": str(Path(task["out"]) / "olive"),
    }


def main(task: dict[str, Any]) -> None:
    run = importlib.import_module("olive.workflows").run
    with contextlib.redirect_stdout(sys.stderr):  # the answer alone goes to stdout
        output = run(workflow(task))
    best = output.get_best_candidate()
    if best is None:
        raise SystemExit("Olive's workflow has made no model")
    model = Path(best.model_path)
    shutil.copy(next(model.glob("*.onnx")) if model.is_dir() else model, Path(task["out"]) / "model.onnx")
    before, after = output.get_input_model_metrics(), best.metrics_value
    says = f"{told(before)} before, {told(after)} after"
    print(says, file=sys.stderr, flush=True)
    print(json.dumps({"says": says, "format": "onnx", "files": ["model.onnx"]}))


def told(metrics: dict[str, Any]) -> str:
    """Of its metrics, those that were asked for."""
    return ", ".join(f"{name} {_value(content):.4f}" for name, content in metrics.items())


def _value(content: Any) -> float:
    return float(content["value"] if isinstance(content, dict) else content)


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
