"""``POST /v1/feedback``: the true class of an image that was answered."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import Any

from torchstone.serve.deployment import Deployment
from torchstone.serve.exchange import Endpoint, Exchange, from_json
from torchstone.serve.refusals import Refusal
from torchstone.serve.rollout.plan import FEEDBACK_BIAS

ID = re.compile(r"[0-9a-f]{32}")
MOST = 1_000
"""Labels in one request."""
ONE: dict[str, Any] = {
    "type": "object",
    "required": ["id", "label"],
    "properties": {
        "id": {"type": "string", "pattern": "^[0-9a-f]{32}$", "description": "of the image, as its answer gave it"},
        "label": {"oneOf": [{"type": "string"}, {"type": "integer", "minimum": 0}], "description": "name or index"},
    },
}


def endpoints(_: Deployment) -> list[Endpoint]:
    several = {
        "type": "object",
        "required": ["feedback"],
        "properties": {"feedback": {"type": "array", "minItems": 1, "maxItems": MOST, "items": ONE}},
    }
    operation: dict[str, Any] = {
        "summary": "Say what an image really showed",
        "description": f"The first label of an image counts. Of what is learned from them: {FEEDBACK_BIAS}",
        "parameters": [{"name": "model", "in": "query", "schema": {"type": "string"}}],
        "requestBody": {"required": True, "content": {"application/json": {"schema": {"oneOf": [ONE, several]}}}},
        "responses": {"202": {"description": "Noted; it is written in the background"}},
    }
    return [Endpoint(path="/v1/feedback", method="POST", answer=feedback, operation=operation)]


async def feedback(exchange: Exchange) -> None:
    service = exchange.deployment.service(exchange.query.get("model"))
    log = exchange.deployment.log
    if log is None:
        raise Refusal("unknown", "this server keeps no log", hint="start it without --no-log")
    found = read(from_json(await exchange.body()), service.served.labels)
    now = time.time()
    for id, label in found:
        log.feedback(id=id, label=label, time=now)
    await exchange.reply_json({"accepted": len(found)}, status=202)


def read(content: Any, labels: Sequence[str]) -> list[tuple[str, int]]:
    """Ids and class indices of a request, or the Refusal of the first that is none. All count, or none does."""
    rows = content.get("feedback", [content]) if isinstance(content, dict) else None
    if not isinstance(rows, list) or not 1 <= len(rows) <= MOST:
        raise Refusal("malformed", f"feedback is one object, or 1 to {MOST:,} in 'feedback'")
    indices = {name: index for index, name in enumerate(labels)}
    return [_row(row, indices) for row in rows]


def _row(row: Any, indices: dict[str, int]) -> tuple[str, int]:
    id = row.get("id") if isinstance(row, dict) else None
    if not isinstance(id, str) or ID.fullmatch(id) is None:
        raise Refusal("malformed", "'id' is not what an answer gave as its id")
    label = row.get("label")
    index = indices.get(label) if isinstance(label, str) else label
    if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(indices):
        raise Refusal("unusable", f"'label' is no class of this model and no number from 0 to {len(indices) - 1}")
    return id, index
