"""A bundle behind LitServe: images are decoded in its worker, stacked and answered in batches of at most ``batch`` that
wait for ``wait`` seconds. The body comes as it is, without a form around it, and processes talk over ZeroMQ
(``fast_queue``), which its documentation recommends where there are many requests.

LitServe hands the annotation of ``request`` on to FastAPI as it finds it, so it may not be a string here.
"""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import litserve  # pyright: ignore[reportMissingImports]
import numpy as np
from fastapi import Body
from handwritten import Classifier
from numpy.typing import NDArray


class Api(litserve.LitAPI):
    def __init__(self, bundle: Path, **options: Any) -> None:
        super().__init__(api_path="/classify", **options)
        self.bundle = bundle

    def setup(self, device: str) -> None:
        self.classifier = Classifier(self.bundle)

    def decode_request(self, request: Annotated[bytes, Body(media_type="image/jpeg")]) -> NDArray[np.uint8]:
        return self.classifier.pixels(request)

    def predict(self, x: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self.classifier.logits(x) if x.ndim == 4 else self.classifier.logits(x[None])[0]

    def encode_response(self, output: NDArray[np.float32]) -> dict[str, Any]:
        return self.classifier.said(output)


if __name__ == "__main__":
    task: dict[str, Any] = json.loads(sys.argv[1])
    setting = task["setting"]
    api = Api(Path(task["bundle"]), max_batch_size=setting["batch"], batch_timeout=setting["wait"])
    server = litserve.LitServer(api, accelerator="cpu", devices=1, workers_per_device=1, fast_queue=True)
    server.run(
        host="127.0.0.1", port=task["port"], num_api_servers=1, log_level="warning", generate_client_file=False,
        access_log=False,
    )  # fmt: skip
