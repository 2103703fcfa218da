"""The Open Inference Protocol (KServe's version 2) over HTTP, for the clients that speak it already.

Two inputs are understood, one of which a request brings: ``image``, BYTES [n], encoded images (base64 in JSON, plain in
the binary extension); ``pixels``, UINT8 [n, crop, crop, 3], images that the client has prepared itself. The outputs are
``probabilities``, FP32 [n, C], and ``label``, BYTES [n].
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from torchstone.serve.deployment import Deployment
from torchstone.serve.exchange import Endpoint, Exchange, from_json, to_json
from torchstone.serve.images import bounded, from_base64
from torchstone.serve.refusals import Refusal
from torchstone.serve.routes.classify import seconds, text
from torchstone.serve.service import Service
from torchstone.serve.values import Answer, new_id

if TYPE_CHECKING:
    from numpy.typing import NDArray

LENGTH = b"inference-header-content-length"
OUTPUTS = ("probabilities", "label")
PATHS = ("/v2/models/{name}", "/v2/models/{name}/versions/{version}")
"""A model has one version, the id of its bundle."""


def endpoints(_: Deployment) -> list[Endpoint]:
    found = [
        Endpoint(path="/v2", method="GET", answer=server, operation=_operation("What this server is")),
        Endpoint(path="/v2/health/live", method="GET", answer=live, open=True, operation=_operation("Is it alive?")),
        Endpoint(path="/v2/health/ready", method="GET", answer=ready, open=True, operation=_operation("Is it ready?")),
    ]
    for path in PATHS:
        found += [
            Endpoint(
                path=path, method="GET", answer=metadata, operation=_operation("What a model takes and gives", path)
            ),
            Endpoint(path=f"{path}/ready", method="GET", answer=ready, operation=_operation("Is it ready?", path)),
            Endpoint(path=f"{path}/infer", method="POST", answer=infer, operation=_inference(path)),
        ]
    return found


async def server(exchange: Exchange) -> None:
    from importlib.metadata import version

    await exchange.reply_json(
        {"name": "torchstone", "version": version("torchstone"), "extensions": ["binary_tensor_data"]}
    )


async def live(exchange: Exchange) -> None:
    await exchange.reply_json({"live": True})


async def ready(exchange: Exchange) -> None:
    if "name" in exchange.parameters:
        _model(exchange)
    if not exchange.deployment.ready:
        raise Refusal("stopping", "not ready: starting or stopping")
    await exchange.reply_json({"ready": True})


async def metadata(exchange: Exchange) -> None:
    service = _model(exchange)
    served = service.served
    crop, classes = served.preprocess.crop, len(served.labels)
    await exchange.reply_json(
        {
            "name": service.name,
            "versions": [served.bundle],
            "platform": f"torchstone_{served.candidate.runtime}",
            "inputs": [
                {"name": "image", "datatype": "BYTES", "shape": [-1]},
                {"name": "pixels", "datatype": "UINT8", "shape": [-1, crop, crop, 3]},
            ],
            "outputs": [
                {"name": "probabilities", "datatype": "FP32", "shape": [-1, classes]},
                {"name": "label", "datatype": "BYTES", "shape": [-1]},
            ],
        }
    )


async def infer(exchange: Exchange) -> None:
    service = _model(exchange)
    service.check_room(1)
    content = await exchange.body()
    header, binary = _divided(content, exchange.header(LENGTH))
    request = from_json(header)
    if not isinstance(request, dict):
        raise Refusal("malformed", "the request is not a JSON object")
    named, parameters = request.get("id"), _object(request.get("parameters", {}), "parameters")
    if named is not None and not isinstance(named, str):
        raise Refusal("malformed", "'id' is not a string")
    wanted = _wanted(request)
    tensor = _tensor(request, binary)
    most = exchange.deployment.settings.max_images
    timeout = seconds(parameters.get("timeout"))
    if tensor["name"] == "image":
        images = _encoded(tensor, most)
        key = text(parameters.get("key"))
        answers = await service.classify(images, timeout=timeout, key=key)
        if not _alike(answers):  # the model was exchanged meanwhile for one of other classes
            answers = await service.classify(images, timeout=timeout, key=key)
    else:
        answers = await service.classify_pixels(_pixels(tensor, service, most), timeout=timeout)
    if not _alike(answers):
        raise Refusal("stopping", "the model is being exchanged", hint="try again", retry_after=1)
    await _reply(exchange, service, named or new_id(), answers, wanted)


def _alike(answers: Sequence[Answer]) -> bool:
    """Whether all are of the same classes, as the rows of one tensor have to be."""
    return all(answer.labels == answers[0].labels for answer in answers[1:])


def _model(exchange: Exchange) -> Service:
    service = exchange.deployment.service(exchange.parameters["name"])
    version = exchange.parameters.get("version")
    if version is not None and version not in ("1", service.served.bundle):
        raise Refusal(
            "unknown", f"'{service.name}' has no such version", hint=f"its version is {service.served.bundle}"
        )
    return service


def _divided(content: bytes, length: bytes) -> tuple[bytes, bytes]:
    """The JSON, and the tensors behind it where the binary extension is used."""
    if not length:
        return content, b""
    if not length.isdigit() or len(length) > 10 or int(length) > len(content):
        raise Refusal("malformed", "Inference-Header-Content-Length is not the length of the JSON in the body")
    return content[: int(length)], content[int(length) :]


def _wanted(request: dict[str, Any]) -> list[tuple[str, bool]]:
    """The outputs that are asked for, and whether each is to come as bytes."""
    all_binary = _object(request.get("parameters", {}), "parameters").get("binary_data_output") is True
    rows = request.get("outputs")
    if rows is None or rows == []:
        return [(name, all_binary) for name in OUTPUTS]
    if not isinstance(rows, list) or len(rows) > len(OUTPUTS):
        raise Refusal("malformed", f"'outputs' is not a list of at most {len(OUTPUTS)}")
    found = []
    for row in rows:
        name = _object(row, "outputs").get("name")
        if name not in OUTPUTS:
            raise Refusal("malformed", f"there is no such output; there are {' and '.join(OUTPUTS)}")
        found.append((name, _object(row.get("parameters", {}), "parameters").get("binary_data", all_binary) is True))
    return found


def _tensor(request: dict[str, Any], binary: bytes) -> dict[str, Any]:
    """The one input, checked as far as all tensors are alike; ``raw`` is its part of ``binary`` or None."""
    rows = request.get("inputs")
    if not isinstance(rows, list) or len(rows) != 1:
        raise Refusal("malformed", "'inputs' is not a list of one tensor, image or pixels")
    row = _object(rows[0], "inputs")
    datatypes = {"image": "BYTES", "pixels": "UINT8"}
    name, shape = row.get("name"), row.get("shape")
    if not isinstance(name, str) or name not in datatypes:
        raise Refusal("malformed", "the input is called neither image nor pixels")
    if row.get("datatype") != datatypes[name]:
        raise Refusal("malformed", f"the datatype of '{name}' is {datatypes[name]}")
    if not isinstance(shape, list) or not shape or not all(type(n) is int and 0 < n < 2**31 for n in shape):
        raise Refusal("malformed", "'shape' is not a list of whole numbers of at least 1")
    size = _object(row.get("parameters", {}), "parameters").get("binary_data_size")
    if size is None:
        return {"name": name, "shape": shape, "data": row.get("data"), "raw": None}
    if type(size) is not int or size != len(binary):
        raise Refusal("malformed", "'binary_data_size' is not the number of bytes behind the JSON")
    return {"name": name, "shape": shape, "data": None, "raw": binary}


def _encoded(tensor: dict[str, Any], most: int) -> list[bytes]:
    """The encoded images of a BYTES tensor [n] or [n, 1]."""
    shape = tensor["shape"]
    if len(shape) > 2 or (len(shape) == 2 and shape[1] != 1):
        raise Refusal("malformed", "the shape of 'image' is not [n]")
    bounded(shape[0], most)
    if tensor["raw"] is None:
        data = tensor["data"]
        if not isinstance(data, list):
            raise Refusal("malformed", "'data' is not a list")
        images = [from_base64(row[0] if isinstance(row, list) and len(row) == 1 else row) for row in data]
    else:
        images = _strings(tensor["raw"], most)
    if len(images) != shape[0] or not all(images):
        raise Refusal("malformed", f"there are not {shape[0]} images in 'image', or one is empty")
    return images


def _strings(raw: bytes, most: int) -> list[bytes]:
    """The elements of a binary BYTES tensor: each has its length before it, 4 bytes, the lowest first."""
    found: list[bytes] = []
    place = 0
    while place < len(raw):
        if len(found) == most or place + 4 > len(raw):
            raise Refusal("malformed", "the bytes behind the JSON are no elements of 'image'")
        (length,) = struct.unpack_from("<I", raw, place)
        place += 4 + length
        if place > len(raw):
            raise Refusal("malformed", "the bytes behind the JSON are no elements of 'image'")
        found.append(raw[place - length : place])
    return found


def _pixels(tensor: dict[str, Any], service: Service, most: int) -> NDArray[np.uint8]:
    """uint8[n, crop, crop, 3] of a UINT8 tensor, whose data may be nested or flat."""
    shape = tensor["shape"]
    crop = service.served.preprocess.crop
    if len(shape) != 4 or shape[1:] != [crop, crop, 3]:
        raise Refusal("malformed", f"the shape of 'pixels' is not [n, {crop}, {crop}, 3]")
    bounded(shape[0], most)
    if tensor["raw"] is not None:
        if len(tensor["raw"]) != math.prod(shape):
            raise Refusal(
                "malformed", f"'pixels' has {len(tensor['raw'])} bytes where {math.prod(shape)} were expected"
            )
        return np.frombuffer(tensor["raw"], np.uint8).reshape(shape)
    try:
        values = np.asarray(tensor["data"])
    except (ValueError, OverflowError):
        values = np.empty(0)
    if values.dtype.kind != "i" or values.size != math.prod(shape) or values.min() < 0 or values.max() > 255:
        raise Refusal("malformed", f"'data' is not {math.prod(shape)} whole numbers from 0 to 255")
    return values.astype(np.uint8).reshape(shape)


def _object(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Refusal("malformed", f"'{name}' is not made of objects")
    return value


async def _reply(
    exchange: Exchange, service: Service, id: str, answers: Sequence[Answer], wanted: list[tuple[str, bool]]
) -> None:
    """The response object, with the tensors in it or behind it."""
    probabilities = np.stack([answer.probabilities for answer in answers])
    labels = [answer.labels[answer.label] for answer in answers]
    rows: list[dict[str, Any]] = []
    behind: list[bytes] = []
    for name, binary in wanted:
        if name == "probabilities":
            row: dict[str, Any] = {"name": name, "datatype": "FP32", "shape": [*probabilities.shape]}
            raw = np.ascontiguousarray(probabilities, dtype="<f4").tobytes() if binary else b""
            data: list[Any] = [] if binary else probabilities.ravel().tolist()
        else:
            row = {"name": name, "datatype": "BYTES", "shape": [len(labels)]}
            encoded = [label.encode() for label in labels] if binary else []
            raw = b"".join(struct.pack("<I", len(label)) + label for label in encoded)
            data = labels
        if binary:
            row["parameters"] = {"binary_data_size": len(raw)}
            behind.append(raw)
        else:
            row["data"] = data
        rows.append(row)
    header = to_json(
        {
            "model_name": service.name,
            "model_version": answers[0].bundle,
            "id": id,
            "parameters": {"image_ids": ",".join(answer.id for answer in answers)},
            "outputs": rows,
        }
    )
    if not behind:
        await exchange.reply(header)
        return
    headers = [(LENGTH, b"%d" % len(header))]
    await exchange.reply(b"".join([header, *behind]), kind=b"application/octet-stream", headers=headers)


def _operation(summary: str, path: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {"summary": summary, "responses": {"200": {"description": "The answer"}}}
    if path:
        names = [name for name in ("name", "version") if f"{{{name}}}" in path]
        found["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
        ]
    return found


def _inference(path: str) -> dict[str, Any]:
    image = {
        "type": "object",
        "required": ["name", "datatype", "shape", "data"],
        "properties": {
            "name": {"const": "image"},
            "datatype": {"const": "BYTES"},
            "shape": {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 1, "maxItems": 1},
            "data": {"type": "array", "items": {"type": "string", "contentEncoding": "base64"}},
        },
    }
    schema = {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": "string"},
            "inputs": {"type": "array", "minItems": 1, "maxItems": 1, "items": image},
        },
    }
    body = {"required": True, "content": {"application/json": {"schema": schema}}}
    return {**_operation("Classify images (Open Inference Protocol)", path), "requestBody": body}
