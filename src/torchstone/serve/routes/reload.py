"""``POST /v1/reload``: open the bundles again, for whoever has an admin key; no request is lost."""

from __future__ import annotations

from typing import Any

from torchstone.core.errors import TorchstoneError
from torchstone.serve.deployment import Deployment
from torchstone.serve.exchange import Endpoint, Exchange


def endpoints(_: Deployment) -> list[Endpoint]:
    operation: dict[str, Any] = {
        "summary": "Open the bundles again",
        "description": "They are read from where they were read at the start. A bundle that does not prove itself on "
        "its golden images is not taken, nor is any other then: the old models go on (409). The other workers follow.",
        "responses": {
            "200": {"description": "The new models answer"},
            "409": {"description": "A bundle was not taken; the old models go on"},
        },
    }
    return [Endpoint(path="/v1/reload", method="POST", answer=reload, admin=True, operation=operation)]


async def reload(exchange: Exchange) -> None:
    deployment = exchange.deployment
    try:
        served = await deployment.reload()
    except TorchstoneError as error:
        refused = {"code": "not_taken", "message": error.message, "hint": error.hint or ""}
        await exchange.reply_json({"error": refused}, status=409)
        return
    if deployment.tell_others is not None:
        deployment.tell_others()
    await exchange.reply_json({"models": [{"name": one.name, "bundle": one.bundle} for one in served]})
