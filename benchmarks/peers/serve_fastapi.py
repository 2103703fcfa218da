"""A bundle behind FastAPI with a handler written by hand: one image a request, no batches. ``threaded`` runs the work
in FastAPI's pool of threads, as its documentation advises for what blocks; without, in the event loop, which is quicker
where there is one core. ``prepare`` makes the pixels by torchstone's own function, so that HTTP is what differs.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from handwritten import Classifier


def application(bundle: Path, *, threaded: bool, prepare: bool) -> FastAPI:
    classifier = Classifier(bundle)
    pixels = classifier.pixels
    if prepare:
        from torchstone.core.values import Preprocess
        from torchstone.data import preprocess

        rules = Preprocess.model_validate_json((bundle / "preprocess.json").read_text())
        pixels = lambda content: preprocess.prepare(content, rules)  # noqa: E731
    app = FastAPI()

    def answer(content: bytes) -> dict[str, Any]:
        return classifier.answers([pixels(content)])[0]

    @app.post("/classify")
    async def classify(request: Request) -> JSONResponse:
        content = await request.body()
        return JSONResponse(await run_in_threadpool(answer, content) if threaded else answer(content))

    return app


if __name__ == "__main__":
    task: dict[str, Any] = json.loads(sys.argv[1])
    uvicorn.run(
        application(Path(task["bundle"]), **task["setting"]),
        host="127.0.0.1", port=task["port"], log_level="warning", access_log=False,
    )  # fmt: skip
