"""One worker process: ``python -m torchstone.serve.worker FD CONTROL BOARD SLOT``, started by ``workers.py``.

It inherits the listening socket as file descriptor FD, the memory in which all workers count as BOARD, of which it has
the SLOT of this number, and a socket to its supervisor as CONTROL, over which it is told its settings (one line of
JSON) and says ``ready``, ``failed`` or ``reload``. When the supervisor is gone, it stops. It is started with SIGHUP
held back: the system keeps one for it until its bundles are open.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import sys
from collections.abc import Callable

from torchstone.core import console
from torchstone.core.errors import TorchstoneError
from torchstone.serve.app import Application
from torchstone.serve.board import Board
from torchstone.serve.deployment import Deployment, store_of
from torchstone.serve.keys import Keys
from torchstone.serve.protocol import Server
from torchstone.serve.rollout.attached import current
from torchstone.serve.settings import ServeSettings, named_places

SWITCH = 0.001
"""Seconds after which a thread that computes in Python gives way to another. Python's own 5 ms would add as much to
answers that are waiting for the event loop while an image is decoded."""


def main(listening: int, control: int, board: int, slot: int) -> int:
    """Serve until SIGTERM; the exit code."""
    sys.setswitchinterval(SWITCH)
    port = socket.socket(fileno=listening)
    supervisor = socket.socket(fileno=control)
    with supervisor.makefile("r", encoding="utf-8") as lines:
        if not (line := lines.readline()):  # the supervisor could not begin
            return 0
        settings = ServeSettings(**json.loads(line))
    try:
        # In a dead worker's place, a rollout may have promoted another bundle since the server was started.
        places = current(store_of(settings), named_places(settings.bundles))
        settings = settings.model_copy(update={"bundles": tuple(f"{name}={at}" for name, at in places.items())})
        shared = Board(board, settings.workers + 1)
        application = Application(Deployment(settings, Keys.of(settings), shared, slot))
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(_serve(application, port, supervisor))
    except TorchstoneError as error:
        return _failed(supervisor, error)


async def _serve(application: Application, port: socket.socket, supervisor: socket.socket) -> int:
    loop = asyncio.get_running_loop()
    deployment = application.deployment

    def tell(what: bytes) -> None:
        supervisor.send(what + b"\n")

    def ready() -> None:
        tell(b"ready")
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGHUP])  # a reload that was asked for meanwhile comes now

    server = Server(application, ready)
    deployment.tell_others = lambda: tell(b"reload")
    reloading: set[asyncio.Task[None]] = set()

    def reload() -> None:
        task = loop.create_task(_reload(deployment))
        reloading.add(task)
        task.add_done_callback(reloading.discard)

    def told() -> None:
        if not supervisor.recv(4096):  # the supervisor is gone
            loop.remove_reader(supervisor)
            server.stop()

    supervisor.setblocking(False)
    loop.add_reader(supervisor, told)
    loop.add_signal_handler(signal.SIGTERM, server.stop)
    loop.add_signal_handler(signal.SIGHUP, reload)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the supervisor tells us to stop
    with contextlib.suppress(SystemExit):  # uvicorn's way to say that the application could not start
        await server.serve(sockets=[port])
    if application.failure is not None:
        return _failed(supervisor, application.failure)
    return 0 if server.started else 70


async def _reload(deployment: Deployment) -> None:
    try:
        await deployment.reload()
    except TorchstoneError as error:
        console.say(f"reload: {error}; the old model goes on")


def _failed(supervisor: socket.socket, error: TorchstoneError) -> int:
    """Let the supervisor say it, once for all workers."""
    supervisor.setblocking(True)
    supervisor.send(f"failed {json.dumps([error.message, error.hint, error.exit_code])}\n".encode())
    return error.exit_code


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop where it is installed, else asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


if __name__ == "__main__":
    raise SystemExit(main(*map(int, sys.argv[1:])))
