"""``GET /v1/rollout``: how the rollout stands. ``POST /v1/rollout/promote`` and ``/abort``: end it by hand.

A rollout is started on the server's own machine alone, since it names a directory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from torchstone.core.errors import UserError
from torchstone.serve.deployment import Deployment
from torchstone.serve.exchange import Endpoint, Exchange
from torchstone.serve.refusals import Refusal
from torchstone.serve.rollout import status
from torchstone.serve.rollout.record import Status
from torchstone.serve.store import tables

ResultT = TypeVar("ResultT")


def endpoints(_: Deployment) -> list[Endpoint]:
    def operation(summary: str) -> dict[str, Any]:
        return {"summary": summary, "responses": {"200": {"description": summary}}}

    return [
        Endpoint(path="/v1/rollout", method="GET", answer=show, admin=True, operation=operation("How it stands")),
        Endpoint(
            path="/v1/rollout/promote", method="POST", answer=promote, admin=True,
            operation=operation("Serve the candidate from now on"),
        ),
        Endpoint(
            path="/v1/rollout/abort", method="POST", answer=abort, admin=True,
            operation=operation("End the rollout; the stable model goes on"),
        ),
    ]  # fmt: skip


async def show(exchange: Exchange) -> None:
    try:
        found = await _in_store(exchange, status.status)
    except UserError as error:
        raise Refusal("failed", error.message, hint=error.hint) from None
    if found is None:
        raise Refusal("unknown", "there has been no rollout")
    await exchange.reply_json(found)


async def promote(exchange: Exchange) -> None:
    await _end(exchange, "promoted")


async def abort(exchange: Exchange) -> None:
    await _end(exchange, "aborted")


async def _end(exchange: Exchange, kind: Status) -> None:
    try:
        ended = await _in_store(exchange, lambda store: status.by_hand(store, kind, "by an admin", time.time()))
    except UserError as error:
        refused = {"code": "not_taken", "message": error.message, "hint": error.hint or ""}
        await exchange.reply_json({"error": refused}, status=409)
        return
    if ended is None:
        raise Refusal("unknown", "no rollout is running")
    await exchange.reply_json({"rollout": ended.rollout, "status": kind})


async def _in_store(exchange: Exchange, ask: Callable[[sa.Connection], ResultT]) -> ResultT:
    """What the store says, in a thread: it may be slow, or away."""
    url = exchange.deployment.store

    def asked() -> ResultT:
        engine = tables.engine(url)
        try:
            with engine.begin() as connection:
                return ask(connection)
        finally:
            engine.dispose()

    try:
        return await asyncio.to_thread(asked)
    except SQLAlchemyError:
        raise Refusal("stopping", "the store cannot be reached now", hint="try again later", retry_after=5) from None
