"""Models exchanged while images are on their way: what is answered, and what is left as it was."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import json
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from torchstone.core.errors import ArtifactError
from torchstone.serve import service as services
from torchstone.serve.app import Application
from torchstone.serve.deployment import Deployment
from torchstone.serve.keys import Keys
from torchstone.serve.model import Served, open_served
from torchstone.serve.settings import ServeSettings


class Gated:
    """The runner, when the gate is open."""

    def __init__(self, served: Served) -> None:
        self.runner = served.runners[1][0]
        self.gate, self.asked = threading.Event(), threading.Event()

    def __call__(self, batch: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]]:
        self.asked.set()
        assert self.gate.wait(30)
        return self.runner(batch)


def with_classes(served: Served, change: Callable[[tuple[str, ...]], tuple[str, ...]]) -> Served:
    """The model with other names of its classes, under another id."""
    artifact = served.candidate.artifact
    other = artifact.model_copy(update={"classes": change(artifact.classes), "id": artifact.id[::-1]})
    return dataclasses.replace(served, candidate=served.candidate.model_copy(update={"artifact": other}))


@asynccontextmanager
async def deployed(settings: ServeSettings) -> AsyncIterator[Deployment]:
    deployment = Deployment(settings, Keys())
    await deployment.open()
    try:
        yield deployment
    finally:
        await deployment.close()


def one(digits: Path, state: Path, **more: Any) -> ServeSettings:
    return ServeSettings(bundles=(str(digits),), state=state, threads=1, no_log=True, **more)


async def asked(deployment: Deployment, path: str, body: bytes) -> tuple[int, Any]:
    """Status and JSON of a POST, as uvicorn would have it answered."""
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "root_path": "",
        "query_string": b"", "headers": [],
    }  # fmt: skip
    await Application(deployment)(scope, receive, send)
    return sent[0]["status"], json.loads(sent[1]["body"])


def images(pictures: list[bytes]) -> bytes:
    data = [base64.b64encode(picture).decode() for picture in pictures]
    return json.dumps({"inputs": [{"name": "image", "datatype": "BYTES", "shape": [len(data)], "data": data}]}).encode()


@pytest.mark.parametrize("classes", [lambda names: names[::-1], lambda names: names[:3]])
def test_an_answer_names_the_classes_of_the_model_that_gave_it(
    digits: Path, pictures: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, classes: Any
) -> None:
    """The old model has the images when another one, of other classes, takes its place."""
    settings = one(digits, tmp_path, cache="none")
    old = open_served(digits, settings, "digits")
    gated = Gated(old)
    opened = [dataclasses.replace(old, runners={1: (gated,)}), with_classes(old, classes)]
    monkeypatch.setattr(services, "open_served", lambda *_: opened.pop(0))

    async def main() -> list[tuple[int, Any]]:
        async with deployed(settings) as deployment:
            requests = [("/v1/classify", pictures[0]), ("/v2/models/digits/infer", images(pictures[:1]))]
            tasks = [asyncio.ensure_future(asked(deployment, *request)) for request in requests]
            await asyncio.to_thread(gated.asked.wait, 30)
            await deployment.reload()
            gated.gate.set()
            return await asyncio.gather(*tasks)

    (status, plain), (other_status, tensors) = asyncio.run(main())
    assert (status, other_status) == (200, 200)
    (prediction,) = plain["predictions"]
    assert prediction["bundle"] == tensors["model_version"] == old.bundle
    assert prediction["top"][0]["label"] == old.labels[prediction["top"][0]["index"]]
    assert tensors["outputs"][1]["data"] == [prediction["top"][0]["label"]]


class Suspending:
    """A cache that holds up the second question until it is let go, and knows nothing."""

    def __init__(self) -> None:
        self.hits = self.misses = self.errors = 0
        self.go = asyncio.Event()

    async def get(self, key: bytes) -> bytes | None:
        self.misses += 1
        if self.misses == 2:
            await self.go.wait()
        return None

    async def put(self, key: bytes, value: bytes) -> None: ...

    async def close(self) -> None: ...


def test_a_tensor_has_the_classes_of_one_model(
    digits: Path, pictures: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second image of a request waits for the cache when the model is exchanged for one of fewer classes."""
    settings = one(digits, tmp_path)
    old = open_served(digits, settings, "digits")
    few = with_classes(old, lambda names: names[:3])

    class Fewer:
        def __call__(self, batch: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]]:
            return {"logits": old.runners[1][0](batch)["logits"][:, :3]}

    opened = [old, dataclasses.replace(few, runners={1: (Fewer(),)})]
    monkeypatch.setattr(services, "open_served", lambda *_: opened.pop(0))

    async def main() -> tuple[int, Any]:
        cache = Suspending()
        monkeypatch.setattr("torchstone.serve.deployment.open_cache", lambda _: cache)
        async with deployed(settings) as deployment:
            task = asyncio.ensure_future(asked(deployment, "/v2/models/digits/infer", images(pictures[:2])))
            async with asyncio.timeout(30):
                while cache.misses < 2:
                    await asyncio.sleep(0.005)
            await deployment.reload()
            cache.go.set()
            return await task

    status, tensors = asyncio.run(main())
    assert status == 200, tensors
    assert tensors["model_version"] == few.bundle
    assert tensors["outputs"][0]["shape"] == [2, 3]
    assert set(tensors["outputs"][1]["data"]) <= set(few.labels)


def test_of_several_models_all_are_exchanged_or_none(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ServeSettings(
        bundles=(f"one={digits}", f"two={digits}"), state=tmp_path, threads=1, cache="none", no_log=True
    )
    served = open_served(digits, settings, "digits")
    changed = with_classes(served, lambda names: names[::-1])
    answers: dict[str, Served | ArtifactError] = {"one": served, "two": served}

    def opened(directory: Path, settings: ServeSettings, name: str) -> Served:
        found = answers[name]
        if isinstance(found, ArtifactError):
            raise found
        return found

    monkeypatch.setattr(services, "open_served", opened)

    async def main() -> None:
        async with deployed(settings) as deployment:
            answers.update(one=changed, two=ArtifactError("its golden images fail"))
            with pytest.raises(ArtifactError, match="golden images fail"):
                await deployment.reload()
            assert [one.served for one in deployment.services.values()] == [served, served]
            answers.update(two=changed)
            assert [one.bundle for one in await deployment.reload()] == [changed.bundle] * 2
            assert [one.served for one in deployment.services.values()] == [changed, changed]

    asyncio.run(main())
