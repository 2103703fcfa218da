"""``GET /metrics``: what all workers have counted, for Prometheus. ``GET /v1/drift``: whether the images that come are
like those the model was chosen on."""

from __future__ import annotations

from typing import Any

from torchstone.serve.deployment import Deployment
from torchstone.serve.exchange import Endpoint, Exchange
from torchstone.serve.refusals import Refusal


def endpoints(_: Deployment) -> list[Endpoint]:
    metrics_operation: dict[str, Any] = {
        "summary": "What all workers have counted",
        "responses": {"200": {"description": "Prometheus' text, or OpenMetrics where Accept asks for it"}},
    }
    drift_operation: dict[str, Any] = {
        "summary": "How much the images that come differ from validation's",
        "description": "By model: the last full window, quantity by quantity, and the images that lie furthest out.",
        "responses": {"200": {"description": "What is known by now"}},
    }
    return [
        Endpoint(path="/metrics", method="GET", answer=metrics, operation=metrics_operation),
        Endpoint(path="/v1/drift", method="GET", answer=drift, operation=drift_operation),
    ]


async def metrics(exchange: Exchange) -> None:
    from torchstone.serve.metrics import page

    observing = exchange.deployment.observing
    if observing is None:
        raise Refusal("stopping", "nothing is counted yet", hint="try again", retry_after=1)
    observing.pulse()
    content, kind = page(observing.board, exchange.header(b"accept").decode("latin-1"))
    await exchange.reply(content, kind=kind.encode())


async def drift(exchange: Exchange) -> None:
    from torchstone.serve.watching import told

    deployment = exchange.deployment
    if deployment.observing is None:
        raise Refusal("stopping", "nothing is seen yet", hint="try again", retry_after=1)
    found = told(deployment.observing.board)
    await exchange.reply_json({"models": {name: found.get(name) for name in deployment.services}})
