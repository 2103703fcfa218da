"""What whoever serves a bundle's ONNX file without torchstone writes once: open it, make pixels of a JPEG file by the
bundle's own rules with Pillow, answer a batch. The servers beside ours share it, so that they differ in nothing else.

It knows short-side and squashing resizes, EXIF's rotation and Pillow's two smooth filters, and uses Pillow's quick way
to large JPEG files (``draft``), which torchstone's exact decoder does not.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image, ImageOps

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
TOP = 5
"""Classes in an answer, as many as ``torchstone serve`` gives."""


class Classifier:
    """One ONNX Runtime session of one thread."""

    def __init__(self, bundle: Path) -> None:
        self.labels: list[str] = json.loads((bundle / "labels.json").read_text())
        self.rules: dict[str, Any] = json.loads((bundle / "preprocess.json").read_text())
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        (model,) = bundle.glob("*.onnx")
        self.session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        self.input = self.session.get_inputs()[0].name

    def pixels(self, content: bytes) -> NDArray[np.uint8]:
        """uint8[crop, crop, 3] of a JPEG file."""
        return self.fitted(Image.open(io.BytesIO(content)))

    def fitted(self, image: Image.Image) -> NDArray[np.uint8]:
        """uint8[crop, crop, 3] of an image that Pillow has opened and not yet decoded."""
        side, crop = self.rules["resize"], self.rules["crop"]
        image.draft("RGB", (side, side))
        if self.rules["exif_rotation"] == "apply":
            image = ImageOps.exif_transpose(image)
        image = image.convert("RGB")
        target = (side, side)
        if self.rules["resize_mode"] == "short":
            short = min(image.size)
            target = (side * image.width // short, side * image.height // short)
        if image.size != target:
            image = image.resize(target, FILTERS[self.rules["interpolation"]])
        left, top = (round((length - crop) / 2) for length in target)
        return np.asarray(image.crop((left, top, left + crop, top + crop)))

    def logits(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8[n, crop, crop, 3] → float32[n, C]."""
        return self.session.run(None, {self.input: batch})[0]  # pyright: ignore[reportReturnType]

    def said(self, logits: NDArray[np.float32]) -> dict[str, Any]:
        """One image's answer: the most probable classes. float32[C]."""
        powers = np.exp(logits - logits.max())
        probabilities = powers / powers.sum()
        order = np.argsort(-probabilities)[:TOP].tolist()
        return {
            "top": [
                {"label": self.labels[row], "index": row, "probability": float(probabilities[row])} for row in order
            ]
        }

    def answers(self, images: Sequence[NDArray[np.uint8]]) -> list[dict[str, Any]]:
        """Of several images in one batch."""
        return [self.said(row) for row in self.logits(np.stack(images))]
