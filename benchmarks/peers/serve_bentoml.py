"""A bundle behind BentoML: with ``batch``, its adaptive batching, to which each request brings a list of one image in a
form; without, one image a request as it is. Started by ``bentoml serve``, so the task comes by the environment.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import bentoml
from bentoml.validators import ContentType
from handwritten import Classifier
from PIL.Image import Image

TASK: dict[str, Any] = json.loads(os.environ["SERVE_TASK"])
BATCH: int = TASK["setting"]["batch"]
OPTIONS: dict[str, Any] = {"workers": 1, "traffic": {"timeout": 60}, "logging": {"access": {"enabled": False}}}

if BATCH > 1:

    @bentoml.service(**OPTIONS)
    class Service:
        def __init__(self) -> None:
            self.classifier = Classifier(Path(TASK["bundle"]))

        @bentoml.api(batchable=True, max_batch_size=BATCH, max_latency_ms=10_000)
        def classify(self, images: list[Image]) -> list[dict[str, Any]]:
            return self.classifier.answers([self.classifier.fitted(image) for image in images])

else:

    @bentoml.service(**OPTIONS)
    class Service:
        def __init__(self) -> None:
            self.classifier = Classifier(Path(TASK["bundle"]))

        @bentoml.api
        def classify(self, image: Annotated[bytes, ContentType("image/jpeg")], /) -> dict[str, Any]:
            return self.classifier.answers([self.classifier.pixels(image)])[0]
