from __future__ import annotations

import json
import socket
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from live import Live, form, serving, wait_for

KEY, ADMIN = "a-key-of-twenty-chars", "the-key-of-the-administrator"


def bomb(width: int, height: int) -> bytes:
    """A PNG file of a few bytes whose header announces an image of this size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


@pytest.fixture(scope="module")
def limited(digits: Path) -> Iterator[Live]:
    options = (
        "--max-body-mb", "0.1", "--max-bodies-mb", "0.25", "--max-images", "3", "--header-timeout", "0.5",
        "--body-timeout", "1", "--queue", "4", "--max-pixels", "1000000", "--cache", "none",
    )  # fmt: skip
    with serving(digits, *options) as live:
        yield live


def test_a_body_that_is_too_large_is_refused_by_its_length(limited: Live) -> None:
    reply = limited.ask("/v1/classify", b"x" * 100_001)
    assert (reply.status, reply.json["error"]["code"]) == (413, "too_large")


def test_a_body_without_a_length_is_counted(limited: Live) -> None:
    with socket.create_connection((limited.host, limited.port), timeout=20) as connection:
        connection.sendall(b"POST /v1/classify HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(3):
            connection.sendall(b"C350\r\n" + b"x" * 50_000 + b"\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 413 ")


def test_bodies_that_are_held_at_once_are_bounded(limited: Live) -> None:
    """Two connections send all but the last byte: there is no room for a third body until they are given up."""
    head = b"POST /v1/classify HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n"
    pair = [socket.create_connection((limited.host, limited.port), timeout=20) for _ in range(2)]
    for connection in pair:
        connection.sendall(head + b"x" * 99_999)
    time.sleep(0.2)
    reply = limited.ask("/v1/classify", b"x" * 90_000)
    assert (reply.status, reply.headers["retry-after"]) == (429, "1")
    for connection in pair:
        assert connection.recv(1000).startswith(b"HTTP/1.1 408 ")
        connection.close()
    assert limited.ask("/v1/classify", b"x" * 90_000).status == 422


def test_bodies_that_are_announced_take_no_room(limited: Live) -> None:
    head = b"POST /v1/classify HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\nx"
    silent = [socket.create_connection((limited.host, limited.port), timeout=20) for _ in range(4)]
    for connection in silent:
        connection.sendall(head)
    time.sleep(0.2)
    assert limited.ask("/v1/classify", b"x" * 90_000).status == 422
    for connection in silent:
        connection.close()


def test_too_many_images_are_refused(limited: Live, pictures: list[bytes]) -> None:
    body, kind = form([("image", "a.png", pictures[0])] * 4)
    assert limited.ask("/v1/classify", body, content_type=kind).status == 413
    body, kind = form([("image", "a.png", pictures[0])] * 3)
    assert limited.ask("/v1/classify", body, content_type=kind).status == 200


@pytest.mark.parametrize(("width", "height"), [(1001, 1000), (60_000, 60_000), (2**31 - 1, 2**31 - 1)])
def test_a_decompression_bomb_is_refused_by_its_header(limited: Live, width: int, height: int) -> None:
    reply = limited.ask("/v1/classify", bomb(width, height))
    assert reply.status == 422
    assert "million pixels" in reply.json["error"]["message"]


def test_headers_have_to_come_in_time(limited: Live) -> None:
    """A connection that says nothing is closed, one that says a little now and then as well."""
    silent = socket.create_connection((limited.host, limited.port), timeout=20)
    slow = socket.create_connection((limited.host, limited.port), timeout=20)
    slow.sendall(b"GET /healthz HTTP/1.1\r\nhost: a\r\n")
    began = time.monotonic()
    assert silent.recv(100) == b""
    with pytest.raises(OSError):  # closed, in whichever way it is noticed first
        for _ in range(200):
            slow.sendall(b"x-a: b\r\n")
            time.sleep(0.05)
    assert time.monotonic() - began < 8
    silent.close()
    slow.close()


def test_a_connection_that_was_answered_may_not_dawdle_either(limited: Live) -> None:
    whole = b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n"
    with socket.create_connection((limited.host, limited.port), timeout=20) as connection:
        answered(connection, whole)
        time.sleep(0.7)  # rest is allowed for longer than that
        answered(connection, whole)
        connection.sendall(b"GET /healthz HTTP/1.1\r\n")
        assert connection.recv(1000) == b""


def answered(connection: socket.socket, request: bytes) -> None:
    """Send a request for a small JSON object, and read it to its end."""
    connection.sendall(request)
    received = b""
    while not received.endswith(b"}"):
        received += connection.recv(1000)
    assert received.startswith(b"HTTP/1.1 200 ")


def test_headers_are_bounded(limited: Live) -> None:
    with socket.create_connection((limited.host, limited.port), timeout=20) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: a\r\n")
        received = b""
        try:
            for _ in range(100):
                connection.sendall(b"x-long: " + b"y" * 8000 + b"\r\n")
            received = connection.recv(1000)
        except OSError:
            return  # closed while we were still talking
        assert received.startswith((b"HTTP/1.1 431 ", b"HTTP/1.1 400 "))


def test_the_rest_of_a_refused_body_is_not_taken_for_headers(server: Live, pictures: list[bytes]) -> None:
    """It comes after the answer, in pieces larger than headers may be; the connection goes on with the next request."""
    body = bytes(1_000_000)
    with socket.create_connection((server.host, server.port), timeout=30) as connection:
        replies = connection.makefile("rb")

        def reply() -> int:
            status = int(replies.readline().split()[1])
            headers = dict(line.lower().split(b": ", 1) for line in iter(lambda: replies.readline().strip(), b""))
            replies.read(int(headers[b"content-length"]))
            return status

        for _ in range(3):
            connection.sendall(b"POST /nowhere HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % len(body))
            assert reply() == 404
            connection.sendall(body)
            head = b"POST /v1/classify HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % len(pictures[0])
            connection.sendall(head + pictures[0])
            assert reply() == 200


def test_a_body_has_to_come_in_time(limited: Live) -> None:
    with socket.create_connection((limited.host, limited.port), timeout=20) as connection:
        connection.sendall(b"POST /v1/classify HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\nabc")
        reply = connection.recv(1000)
    assert reply.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close" in reply.lower()


def test_a_request_has_a_deadline_of_its_own(server: Live, limited: Live, pictures: list[bytes]) -> None:
    reply = limited.ask("/v1/classify?timeout=0.000001", pictures[0])
    assert (reply.status, reply.json["error"]["code"]) == (504, "late")
    body = json.dumps({"image": "", "timeout": -1})
    assert server.ask("/v1/classify", body, content_type="application/json").status == 400


def test_a_full_queue_says_when_to_come_again(limited: Live, pictures: list[bytes]) -> None:
    """More images at once than the queue takes, from many connections: each is answered or told to wait."""
    import threading

    replies = []

    def client() -> None:
        for _ in range(10):
            body, kind = form([("image", "a.png", pictures[0])] * 3)
            replies.append(limited.ask("/v1/classify", body, content_type=kind))

    threads = [threading.Thread(target=client) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {reply.status for reply in replies} == {200, 429}
    for reply in replies:
        if reply.status == 429:
            assert int(reply.headers["retry-after"]) >= 1
            assert reply.json["error"]["code"] == "full"
    assert wait_for(lambda: limited.ask("/v1/classify", pictures[0]).status == 200, 5)


def test_keys_are_asked_for_and_never_shown(digits: Path, pictures: list[bytes], tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(KEY)
    with serving(digits, "--api-keys", file, env={"TORCHSTONE_ADMIN_KEYS": ADMIN}) as live:
        for path in ("/healthz", "/readyz", "/", "/openapi.json", "/v2/health/ready"):
            assert live.ask(path).status == 200, path
        for path, body in (("/v1/classify", pictures[0]), ("/v1/models", None), ("/metrics", None)):
            for headers in ({}, {"x_api_key": "wrong-key-of-20-chars"}, {"authorization": f"Bearer {KEY}x"}):
                reply = live.ask(path, body, **headers)
                assert (reply.status, reply.headers["www-authenticate"]) == (401, "Bearer")
            assert live.ask(path, body, x_api_key=KEY).status == 200
            assert live.ask(path, body, authorization=f"Bearer {ADMIN}").status == 200
        assert live.ask("/v1/reload", b"", x_api_key=KEY).status == 401
        assert live.ask("/v1/reload", b"", x_api_key=ADMIN).status == 200
        for process in (live.process.pid, *live.workers):
            assert KEY.encode() not in Path(f"/proc/{process}/cmdline").read_bytes()
        assert live.ask("/nowhere?api_key=" + KEY).status == 404
    said = "".join(live.lines)
    assert KEY not in said
    assert ADMIN not in said


def test_without_an_admin_key_nobody_administers(server: Live) -> None:
    assert server.ask("/v1/reload", b"").status == 404
