"""A bundle behind BentoML: ``Batched`` with its adaptive batching, to which each request brings a list of one image in
a form; ``Single`` without, one image a request as it is. Started by ``bentoml serve``, so the task comes by the
environment.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import bentoml  # pyright: ignore[reportMissingImports]
from bentoml.validators import ContentType  # pyright: ignore[reportMissingImports]
from handwritten import Classifier
from PIL.Image import Image

TASK: dict[str, Any] = json.loads(os.environ["SERVE_TASK"])
OPTIONS: dict[str, Any] = {"workers": 1, "traffic": {"timeout": 60}, "logging": {"access": {"enabled": False}}}


@bentoml.service(**OPTIONS)
class Batched:
    def __init__(self) -> None:
        self.classifier = Classifier(Path(TASK["bundle"]))

    @bentoml.api(batchable=True, max_batch_size=max(2, TASK["setting"]["batch"]), max_latency_ms=10_000)
    def classify(self, images: list[Image]) -> list[dict[str, Any]]:
        return self.classifier.answers([self.classifier.fitted(image) for image in images])


@bentoml.service(**OPTIONS)
class Single:
    def __init__(self) -> None:
        self.classifier = Classifier(Path(TASK["bundle"]))

    @bentoml.api
    def classify(self, image: Annotated[bytes, ContentType("image/jpeg")], /) -> dict[str, Any]:
        return self.classifier.answers([self.classifier.pixels(image)])[0]
