"""``/``: a page on which one drops a picture and sees the answer. ``/openapi.json``: the document."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from pathlib import Path

from torchstone.serve.deployment import Deployment
from torchstone.serve.exchange import Endpoint, Exchange

PAGE = Path(__file__).with_name("page.html")


def endpoints(_: Deployment) -> list[Endpoint]:
    return [
        Endpoint(path="/", method="GET", answer=page, open=True),
        Endpoint(path="/openapi.json", method="GET", answer=openapi, open=True),
    ]


async def page(exchange: Exchange) -> None:
    content, policy = _page()
    headers = [
        (b"content-security-policy", policy),
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
    ]
    await exchange.reply(content, kind=b"text/html; charset=utf-8", headers=headers)


async def openapi(exchange: Exchange) -> None:
    from torchstone.serve.openapi import document

    await exchange.reply_json(document(exchange.deployment, exchange.scope["app"].endpoints))


@cache
def _page() -> tuple[bytes, bytes]:
    """The page, and a policy under which only its own style and script run, and it talks to this server alone."""
    content = PAGE.read_bytes()

    def hashes(tag: str) -> str:
        found = re.findall(rf"<{tag}>(.*?)</{tag}>".encode(), content, re.DOTALL)
        return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(one).digest()).decode()}'" for one in found)

    policy = (
        f"default-src 'none'; style-src {hashes('style')}; script-src {hashes('script')}; "
        "img-src blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return content, policy.encode()
