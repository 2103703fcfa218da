"""The OpenAPI document: made from the endpoints themselves, so that it cannot say what they do not do."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from torchstone.serve.deployment import Deployment
from torchstone.serve.exchange import Endpoint
from torchstone.serve.refusals import CODES

ERROR: dict[str, Any] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {
                "code": {"type": "string"},
                "message": {"type": "string"},
                "hint": {"type": "string"},
            },
        }
    },
}
REASONS = {
    400: "The request cannot be read",
    401: "A key is missing or wrong",
    404: "There is no such thing",
    405: "The path has other methods",
    408: "The body came too slowly",
    413: "More bytes or images than are taken",
    415: "Not a way in which images come",
    422: "An image cannot be used",
    429: "Too much is being answered: try again after Retry-After seconds",
    500: "The server failed",
    503: "Starting or stopping",
    504: "Not answered in time",
}


def document(deployment: Deployment, endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    """OpenAPI 3.1."""
    paths: dict[str, dict[str, Any]] = {}
    for one in endpoints:
        if one.operation:
            paths.setdefault(one.path, {})[one.method.lower()] = _operation(one, deployment)
    schemes = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "torchstone", "version": version("torchstone"), "description": "Classification of images"},
        "paths": paths,
        "components": {"schemas": {"Error": ERROR}, "securitySchemes": schemes},
    }


def _operation(endpoint: Endpoint, deployment: Deployment) -> dict[str, Any]:
    """What the endpoint says of itself, with the errors that all have in common."""
    named = "".join(part.strip("{}").capitalize() for part in endpoint.path.split("/"))
    refused = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    responses = {
        str(status): {"description": REASONS[status], "content": refused} for status in sorted(set(CODES.values()))
    }
    found = {"operationId": f"{endpoint.method.lower()}{named or 'Root'}", **endpoint.operation}
    found["responses"] = {**endpoint.operation.get("responses", {}), **responses}
    if endpoint.admin or (deployment.keys.required and not endpoint.open):
        found["security"] = [{"bearer": []}, {"header": []}]
    return found
