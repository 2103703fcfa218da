"""``POST /v1/classify``: images in, the most probable classes out."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from torchstone.serve import images
from torchstone.serve.deployment import Deployment
from torchstone.serve.exchange import Endpoint, Exchange, to_json
from torchstone.serve.refusals import Refusal
from torchstone.serve.values import Answer

ENCODED: dict[str, Any] = {"type": "string", "contentEncoding": "base64"}
OPTIONS: dict[str, Any] = {
    "top": {"type": "integer", "minimum": 1, "description": "classes in the answer"},
    "timeout": {"type": "number", "exclusiveMinimum": 0, "description": "seconds after which the answer is of no use"},
    "key": {"type": "string", "maxLength": 200, "description": "what a rollout's split knows the client by"},
}
ANSWER: dict[str, Any] = {
    "type": "object",
    "required": ["model", "predictions"],
    "properties": {
        "model": {"type": "string"},
        "predictions": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["id", "bundle", "cached", "top", "milliseconds"],
                "properties": {
                    "id": {"type": "string", "description": "of this image: feedback names it"},
                    "bundle": {"type": "string", "description": "which model answered"},
                    "cached": {"type": "boolean"},
                    "top": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "required": ["label", "index", "probability"],
                            "properties": {
                                "label": {"type": "string"},
                                "index": {"type": "integer"},
                                "probability": {"type": "number", "minimum": 0, "maximum": 1},
                            },
                        },
                    },
                    "milliseconds": {"type": "object", "additionalProperties": {"type": "number"}},
                },
            },
        },
    },
}


def endpoints(deployment: Deployment) -> list[Endpoint]:
    operation: dict[str, Any] = {
        "summary": "Classify images",
        "description": "One image as the body, or several as multipart/form-data or as base64 in JSON.",
        "parameters": [
            {"name": "model", "in": "query", "schema": {"type": "string"}, "description": "the first one by default"},
            *({"name": name, "in": "query", "schema": schema} for name, schema in OPTIONS.items()),
        ],
        "requestBody": {
            "required": True,
            "content": {
                "image/*": {"schema": {"type": "string", "format": "binary"}},
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "required": ["image"],
                        "properties": {
                            "image": {"type": "array", "items": {"type": "string", "format": "binary"}},
                            **OPTIONS,
                        },
                    }
                },
                "application/json": {
                    "schema": {
                        "type": "object",
                        "oneOf": [{"required": ["image"]}, {"required": ["images"]}],
                        "properties": {
                            "image": ENCODED,
                            "images": {
                                "type": "array", "minItems": 1, "maxItems": deployment.settings.max_images,
                                "items": ENCODED,
                            },
                            **OPTIONS,
                        },
                    }
                },
            },
        },
        "responses": {"200": {"description": "The answers", "content": {"application/json": {"schema": ANSWER}}}},
    }  # fmt: skip
    return [Endpoint(path="/v1/classify", method="POST", answer=classify, operation=operation)]


async def classify(exchange: Exchange) -> None:
    query = exchange.query
    service = exchange.deployment.service(query.get("model"))
    service.check_room(1)  # before the body is received
    settings = exchange.deployment.settings
    asked = images.read(await exchange.body(), exchange.header(b"content-type"), settings.max_images)
    options = {**asked.options, **query} if asked.options or query else {}
    top = integer(options["top"], "top") if "top" in options else settings.top
    answers = await service.classify(
        asked.images, timeout=seconds(options.get("timeout")), key=text(options.get("key"))
    )
    predictions = ",".join(_prediction(answer, top) for answer in answers)
    await exchange.reply(f'{{"model":{_quoted(service.name)},"predictions":[{predictions}]}}'.encode())


def integer(value: Any, name: str) -> int:
    """A whole number of at least 1; a Refusal for anything else."""
    try:
        found = int(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else 0
    except ValueError:
        found = 0
    if found < 1:
        raise Refusal("malformed", f"'{name}' is not a whole number of at least 1")
    return found


def seconds(value: Any) -> float | None:
    """A number above 0 or None; a Refusal for anything else."""
    if value is None:
        return None
    try:
        found = float(value) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else 0.0
    except (ValueError, OverflowError):
        found = 0.0
    if not 0 < found < float("inf"):
        raise Refusal("malformed", "'timeout' is not a number of seconds above 0")
    return found


def text(value: Any) -> str | None:
    """A short text or None; a Refusal for anything else."""
    if value is None or (isinstance(value, str) and len(value) <= 200):
        return value
    raise Refusal("malformed", "'key' is not a text of at most 200 characters")


def _prediction(answer: Answer, top: int) -> str:
    """One answer as JSON. By hand, since this is what every request waits for: a fifth of json.dumps' time."""
    probabilities, labels = answer.probabilities, answer.labels
    order = np.argsort(-probabilities, kind="stable")[:top].tolist()
    values = probabilities.tolist()
    rows = ",".join(
        f'{{"label":{_quoted(labels[index])},"index":{index},"probability":{values[index]:.8g}}}' for index in order
    )
    times = ",".join(f'"{name}":{value:.3f}' for name, value in answer.milliseconds.items())
    cached = "true" if answer.cached else "false"
    return (
        f'{{"id":"{answer.id}","bundle":"{answer.bundle}","cached":{cached},"top":[{rows}],"milliseconds":{{{times}}}}}'
    )


@cache
def _quoted(label: str) -> str:
    return to_json(label).decode()
