"""``/healthz``: the process answers. ``/readyz``: its models do. ``/v1/models``: which they are."""

from __future__ import annotations

from typing import Any

from torchstone.serve.deployment import Deployment
from torchstone.serve.exchange import Endpoint, Exchange
from torchstone.serve.refusals import Refusal


def endpoints(_: Deployment) -> list[Endpoint]:
    def operation(summary: str) -> dict[str, Any]:
        return {"summary": summary, "responses": {"200": {"description": summary}}}

    return [
        Endpoint(path="/healthz", method="GET", answer=live, open=True, operation=operation("The process is alive")),
        Endpoint(path="/readyz", method="GET", answer=ready, open=True, operation=operation("All models answer")),
        Endpoint(path="/v1/models", method="GET", answer=models, operation=operation("What is served")),
    ]


async def live(exchange: Exchange) -> None:
    await exchange.reply_json({"status": "ok"})


async def ready(exchange: Exchange) -> None:
    if not exchange.deployment.ready:
        raise Refusal("stopping", "not ready: starting or stopping")
    await exchange.reply_json({"status": "ok"})


async def models(exchange: Exchange) -> None:
    found = []
    for service in exchange.deployment.services.values():
        served = service.served
        artifact = served.candidate.artifact
        found.append(
            {
                "name": service.name,
                "bundle": served.bundle,
                "candidate": served.candidate.name,
                "architecture": artifact.architecture,
                "runtime": served.candidate.runtime,
                "labels": list(served.labels),
                "image_size": artifact.preprocess.crop,
                "largest_batch": served.largest,
            }
        )
    await exchange.reply_json({"models": found})
