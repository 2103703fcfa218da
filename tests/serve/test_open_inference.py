"""The Open Inference Protocol as its clients speak it: JSON tensors, and the binary extension."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import numpy as np
import pytest

from live import Live, Reply
from torchstone.core.contracts import ImageSet


def infer(live: Live, request: dict[str, Any], behind: bytes = b"", path: str = "/v2/models/digits/infer") -> Reply:
    header = json.dumps(request).encode()
    headers = {"inference_header_content_length": str(len(header))} if behind else {}
    return live.ask(path, header + behind, **headers)


def images(pictures: list[bytes]) -> dict[str, Any]:
    data = [base64.b64encode(picture).decode() for picture in pictures]
    return {"name": "image", "datatype": "BYTES", "shape": [len(data)], "data": data}


def outputs(reply: Reply) -> dict[str, Any]:
    assert reply.status == 200, reply.content
    return {row["name"]: row for row in reply.json["outputs"]}


def test_the_server_and_its_model_say_what_they_are(server: Live) -> None:
    assert server.ask("/v2").json["name"] == "torchstone"
    assert server.ask("/v2/health/live").json == {"live": True}
    assert server.ask("/v2/health/ready").json == {"ready": True}
    assert server.ask("/v2/models/digits/ready").json == {"ready": True}
    model = server.ask("/v2/models/digits").json
    assert [(row["name"], row["datatype"], row["shape"]) for row in model["inputs"]] == [
        ("image", "BYTES", [-1]), ("pixels", "UINT8", [-1, 32, 32, 3]),
    ]  # fmt: skip
    assert server.ask(f"/v2/models/digits/versions/{model['versions'][0]}").json == model
    assert server.ask("/v2/models/digits/versions/7").status == 404
    assert server.ask("/v2/models/cats/ready").status == 404


def test_encoded_images_in_json(server: Live, pictures: list[bytes]) -> None:
    reply = infer(server, {"id": "mine", "inputs": [images(pictures[:3])]})
    found = outputs(reply)
    assert (reply.json["id"], reply.json["model_name"]) == ("mine", "digits")
    assert found["probabilities"]["shape"] == [3, 10]
    values = np.reshape(found["probabilities"]["data"], (3, 10))
    for row, picture in enumerate(pictures[:3]):
        top = server.classify(picture)[0]["top"][0]
        assert found["label"]["data"][row] == top["label"]
        assert values[row].max() == pytest.approx(top["probability"], abs=1e-5)
    assert len(reply.json["parameters"]["image_ids"].split(",")) == 3


def test_encoded_images_behind_the_json(server: Live, pictures: list[bytes]) -> None:
    behind = b"".join(struct.pack("<I", len(picture)) + picture for picture in pictures[:2])
    tensor = {
        "name": "image", "datatype": "BYTES", "shape": [2, 1], "parameters": {"binary_data_size": len(behind)},
    }  # fmt: skip
    request = {"inputs": [tensor], "outputs": [{"name": "probabilities", "parameters": {"binary_data": True}}]}
    reply = infer(server, request, behind)
    assert reply.status == 200, reply.content
    length = int(reply.headers["inference-header-content-length"])
    (row,) = json.loads(reply.content[:length])["outputs"]
    assert row["parameters"]["binary_data_size"] == len(reply.content) - length == 2 * 10 * 4
    values = np.frombuffer(reply.content[length:], "<f4").reshape(2, 10)
    plain = outputs(infer(server, {"inputs": [images(pictures[:2])]}))["probabilities"]["data"]
    assert np.allclose(values.ravel(), plain, atol=1e-5)


def test_pixels_that_the_client_has_prepared(server: Live, pictures: list[bytes], seen: ImageSet) -> None:
    pixels = seen.images(slice(0, 2))
    expected = outputs(infer(server, {"inputs": [images(pictures[:2])]}))["probabilities"]["data"]
    tensor: dict[str, Any] = {"name": "pixels", "datatype": "UINT8", "shape": [2, 32, 32, 3]}
    for data in (pixels.ravel().tolist(), pixels.tolist()):
        found = outputs(infer(server, {"inputs": [{**tensor, "data": data}]}))
        assert np.allclose(found["probabilities"]["data"], expected, atol=1e-5)
    raw = pixels.tobytes()
    request = {
        "inputs": [{**tensor, "parameters": {"binary_data_size": len(raw)}}],
        "outputs": [{"name": "label"}],
    }
    assert list(outputs(infer(server, request, raw))) == ["label"]


def test_labels_as_bytes(server: Live, pictures: list[bytes]) -> None:
    request = {"inputs": [images(pictures[:1])], "parameters": {"binary_data_output": True}}
    reply = infer(server, request)
    length = int(reply.headers["inference-header-content-length"])
    sizes = [row["parameters"]["binary_data_size"] for row in json.loads(reply.content[:length])["outputs"]]
    label = reply.content[length + sizes[0] :]
    assert label == struct.pack("<I", 1) + server.classify(pictures[0])[0]["top"][0]["label"].encode()


GOOD = {"name": "image", "datatype": "BYTES", "shape": [1], "data": ["aGVsbG8="]}


@pytest.mark.parametrize(
    "request_",
    [
        [],
        {},
        {"inputs": []},
        {"inputs": [GOOD, GOOD]},
        {"inputs": [{**GOOD, "name": "picture"}]},
        {"inputs": [{**GOOD, "name": ["image"]}]},
        {"inputs": [{**GOOD, "datatype": "FP32"}]},
        {"inputs": [{**GOOD, "shape": [2]}]},
        {"inputs": [{**GOOD, "shape": [True]}]},
        {"inputs": [{**GOOD, "shape": [1, 2, 3]}]},
        {"inputs": [{**GOOD, "data": "aGVsbG8="}]},
        {"inputs": [{**GOOD, "data": [""]}]},
        {"inputs": [{**GOOD, "data": ["?"]}]},
        {"inputs": [{**GOOD, "parameters": {"binary_data_size": 5}}]},
        {"inputs": [{**GOOD, "parameters": []}]},
        {"inputs": [GOOD], "outputs": [{"name": "logits"}]},
        {"inputs": [GOOD], "outputs": {}},
        {"inputs": [GOOD], "id": 7},
        {"inputs": [GOOD], "parameters": {"timeout": "soon"}},
        {"inputs": [{"name": "pixels", "datatype": "UINT8", "shape": [1, 8, 8, 3], "data": [0] * 192}]},
        {"inputs": [{"name": "pixels", "datatype": "UINT8", "shape": [1, 32, 32, 3], "data": [256] * 3072}]},
        {"inputs": [{"name": "pixels", "datatype": "UINT8", "shape": [1, 32, 32, 3], "data": [[1], 2]}]},
        {"inputs": [{"name": "pixels", "datatype": "UINT8", "shape": [1, 32, 32, 3], "data": None}]},
        {"inputs": [{"name": "pixels", "datatype": "UINT8", "shape": [1, 32, 32, 3], "data": [2**80] * 3072}]},
    ],
)
def test_what_is_malformed_is_a_400(server: Live, request_: Any) -> None:
    reply = infer(server, request_)
    assert (reply.status, reply.json["error"]["code"]) == (400, "malformed"), reply.content


def test_more_than_is_taken_is_a_413(server: Live) -> None:
    assert infer(server, {"inputs": [{**GOOD, "shape": [33], "data": ["aGVsbG8="] * 33}]}).status == 413


@pytest.mark.parametrize("behind", [b"\1", b"\5\0\0\0abc", b"\0\0\0\0" * 40])
def test_bytes_that_are_no_elements_are_malformed(server: Live, behind: bytes) -> None:
    tensor = {**GOOD, "data": None, "parameters": {"binary_data_size": len(behind)}}
    assert infer(server, {"inputs": [tensor]}, behind).status == 400
