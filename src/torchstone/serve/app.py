"""The ASGI application: routes, one file a protocol, behind one door that lets nothing but JSON errors out."""

from __future__ import annotations

import importlib
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.routing import Route, Router

from torchstone.core import console
from torchstone.core.errors import TorchstoneError
from torchstone.serve.deployment import Deployment
from torchstone.serve.exchange import ClientGoneError, Endpoint, Exchange
from torchstone.serve.refusals import Refusal

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

ROUTES = Path(__file__).parent / "routes"


def endpoints(deployment: Deployment) -> list[Endpoint]:
    """What the files of ``routes/`` answer, in the order of their names."""
    found = []
    for file in sorted(ROUTES.glob("*.py")):
        if not file.stem.startswith("_"):
            module = importlib.import_module(f"torchstone.serve.routes.{file.stem}")
            found += module.endpoints(deployment)
    return found


class Application:
    """What uvicorn runs. It opens the bundles before the first connection, and closes after the last."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self.endpoints = endpoints(deployment)
        self.failure: TorchstoneError | None = None
        """Why the bundles could not be opened."""
        routes = [Route(one.path, endpoint=one, methods=[one.method]) for one in self.endpoints]
        self._router = Router(routes, redirect_slashes=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        scope["app"] = self  # so that the router raises what it cannot route
        exchange = Exchange(scope, receive, send, self.deployment)
        scope["torchstone.exchange"] = exchange
        try:
            await self._router(scope, receive, send)
        except Refusal as refusal:
            await self._refuse(exchange, refusal)
        except HTTPException as error:
            code = "method" if error.status_code == 405 else "unknown"
            await self._refuse(exchange, Refusal(code, f"{scope['method'][:20]} has nothing at this path"))
        except ClientGoneError:
            pass
        except Exception as error:
            traceback.print_exception(error)
            await self._refuse(exchange, Refusal("failed", "the server failed on this request"))
        finally:
            exchange.end()
            del scope["torchstone.exchange"]  # else the two would wait, with the body, for a collection of garbage

    async def _refuse(self, exchange: Exchange, refusal: Refusal) -> None:
        if not exchange.status:
            await exchange.refuse(refusal)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self.deployment.open()
        except TorchstoneError as error:
            self.failure = error
            await send({"type": "lifespan.startup.failed", "message": ""})
            return
        except Exception:
            console.say("the bundles could not be opened")
            await send({"type": "lifespan.startup.failed", "message": traceback.format_exc()})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.deployment.close()
        await send({"type": "lifespan.shutdown.complete"})
