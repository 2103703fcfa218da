"""Requests that nobody should send: each gets an answer of the 4xx kind, and the worker lives on."""

from __future__ import annotations

import base64
import http.client
import json
import random
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from live import Live, ask, form, serving, wait_for

PATHS = (
    "/v1/classify", "/v2/models/digits/infer", "/v2/models/%00/infer", "/v1/reload", "/v2/models/..%2f..%2fetc/infer",
    "/v1/classify?model=../../etc/passwd", "/v1/classify?top=0", "/v1/classify?top=9e9", "/v1/classify?timeout=nan",
    "/v1/classify?key=" + "k" * 300, "/nowhere", "/v1/classify?" + "&".join(["a=b"] * 80), "//", "/v1/classify/",
)  # fmt: skip
KINDS = (
    "image/jpeg", "application/json", "multipart/form-data", "multipart/form-data; boundary=", "text/plain",
    "multipart/form-data; boundary=b", "application/json; charset=latin-1", "", ";", "multipart/mixed; boundary=b",
)  # fmt: skip


def spoilt(picture: bytes, random_: random.Random) -> bytes:
    """The picture with a few bytes changed, cut off, or repeated."""
    content = bytearray(picture)
    for _ in range(random_.randint(1, 8)):
        place = random_.randrange(len(content))
        kind = random_.randrange(3)
        if kind == 0:
            content[place] = random_.randrange(256)
        elif kind == 1:
            del content[place : place + random_.randint(1, 200)]
        else:
            content[place:place] = content[place : place + random_.randint(1, 200)]
        if not content:
            return b"\0"
    return bytes(content)


def bodies(pictures: list[bytes], random_: random.Random) -> Iterator[tuple[bytes, str | None]]:
    """Bodies and, where it matters, their Content-Type."""
    makers: list[Callable[[], tuple[bytes, str | None]]] = [
        lambda: (spoilt(random_.choice(pictures), random_), "image/png"),
        lambda: (random_.randbytes(random_.randrange(300)), None),
        lambda: (json.dumps({"image": random_.choice(["", 7, None, "a", [], {}])}).encode(), "application/json"),
        lambda: (b"[" * random_.randint(1, 5000), "application/json"),
        lambda: (b"a text", random_.choice(["text/plain", "multipart/mixed; boundary=a"])),
        lambda: (b'{"images":' + b"9" * random_.randint(1, 5000) + b"}", "application/json"),
        lambda: (json.dumps({"images": ["x"] * random_.randint(0, 50)}).encode(), "application/json"),
        lambda: (
            json.dumps({"image": base64.b64encode(spoilt(pictures[0], random_)).decode(), "top": "many"}).encode(),
            "application/json",
        ),
        lambda: form([("image", "a" * random_.randrange(300), spoilt(pictures[0], random_))] * random_.randint(0, 40)),
        lambda: (form([("image", "a.png", pictures[0])])[0][: random_.randrange(400)], form([])[1]),
        lambda: form([(f"field{row}", None, b"x" * 2000) for row in range(random_.randint(1, 60))]),
    ]
    while True:
        yield random_.choice(makers)()


def lines(random_: random.Random) -> bytes:
    """Something that is no HTTP, or hardly."""
    good = b"POST /v1/classify HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc"
    return random_.choice(
        [
            random_.randbytes(random_.randint(1, 200)),
            bytes(spoilt(good, random_)),
            b"GET /\xff\xfe HTTP/1.1\r\nhost: a\r\n\r\n",
            b"GET " + b"/" * 70_000 + b" HTTP/1.1\r\n\r\n",
            b"POST /v1/classify HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
            b"POST /v1/classify HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
            b"POST /v1/classify HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
            b"POST /v1/classify HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 99999999999999999999\r\n\r\n",
            b"GET /healthz HTTP/9.9\r\n\r\n",
            b"GET / HTTP/1.1\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
        ]
    )


def send(live: Live, content: bytes) -> int | None:
    """The status of what comes back, if anything does."""
    with socket.create_connection((live.host, live.port), timeout=5) as connection:
        try:
            connection.sendall(content)
            connection.shutdown(socket.SHUT_WR)
            received = connection.recv(4096)
        except OSError:
            return None
    return int(received.split(b" ", 2)[1]) if received.startswith(b"HTTP/") else None


def rss_mb(process: int) -> float:
    text = Path(f"/proc/{process}/status").read_text()
    return int(next(line.split()[1] for line in text.splitlines() if line.startswith("VmRSS"))) / 1e3


@pytest.mark.parametrize("requests", [400, pytest.param(10_000, marks=pytest.mark.slow)])
def test_malformed_requests_get_only_4xx(digits: Path, pictures: list[bytes], requests: int) -> None:
    random_ = random.Random(requests)
    source = bodies(pictures, random_)
    statuses: dict[int, int] = {}
    with serving(digits, "--header-timeout", "2", "--body-timeout", "2", "--max-body-mb", "1") as live:
        workers = live.workers
        assert live.classify(pictures[0])
        before = rss_mb(workers[0])
        connection = http.client.HTTPConnection(live.host, live.port, timeout=30)
        for number in range(requests):
            if number % 5 == 0:
                status = send(live, lines(random_))
            else:
                content, kind = next(source)
                path = random_.choice(PATHS) if random_.random() < 0.3 else "/v1/classify"
                headers = {"content_type": kind or random_.choice(KINDS)}
                method = random_.choice([*["POST"] * 20, "PUT", "DELETE", "GET", "PATCH", "OPTIONS"])
                try:
                    reply = ask(connection, path, content, method=method, **headers)
                except (http.client.HTTPException, OSError):  # the server closed after it had answered the one before
                    connection.close()
                    continue
                status = reply.status
                if status >= 400:
                    assert set(reply.json) == {"error"}
            if status is not None:
                statuses[status] = statuses.get(status, 0) + 1
        connection.close()
        assert live.workers == workers
        assert live.classify(pictures[0])
        assert wait_for(lambda: rss_mb(workers[0]) < before + 60, 5), (before, rss_mb(workers[0]))
    assert not [status for status in statuses if status >= 500], statuses
    assert {400, 404, 405, 413, 415, 422} <= set(statuses), statuses
    assert "Traceback" not in "".join(live.lines)
