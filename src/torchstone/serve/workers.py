"""Several workers behind one port: the supervisor starts them, replaces the ones that die, passes signals on.

It binds the port and opens no model itself. Workers share the listening socket instead of having one each: what a
killed worker had not yet accepted, the others accept. A worker is a new Python process, not a fork, so that the
supervisor may have threads of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from torchstone.core import console
from torchstone.core.errors import ConfigError, TorchstoneError
from torchstone.serve.board import Board
from torchstone.serve.metrics import cell
from torchstone.serve.settings import ServeSettings, named_places

BACKLOG = 2048
MAX_PAUSE = 8.0
"""Seconds before a worker that keeps dying is started again, at most; the first time there is no pause."""
STEADY = 10.0
"""Seconds after which a worker's death is not held against the ones before it."""


@dataclass(eq=False)
class Worker:
    """One worker process and the socket to it."""

    process: subprocess.Popen[bytes]
    control: socket.socket
    started: float
    slot: int
    """Of the board: nobody else's while it lives, then that of the worker in its place."""
    text: bytes = b""
    ready: bool = False


@dataclass
class Supervisor:
    """Keeps ``settings.workers`` workers running on one port."""

    settings: ServeSettings
    serving: Callable[[str], None]
    """Called once with the URL, when all workers answer."""
    workers: list[Worker] = field(default_factory=list)
    stopping: bool = False
    announced: bool = False
    failures: int = 0
    start_at: list[tuple[float, int]] = field(default_factory=list)
    """When workers that died are to be started again, and in which slot."""
    board: Board = field(init=False)

    def __post_init__(self) -> None:
        self.board = Board.of(self.settings.workers + 1)
        self._own = self.board.slot(self.settings.workers)

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT. Raises what kept the first workers from serving."""
        with (
            contextlib.ExitStack() as watching,  # until the workers have ended, whom a slow store must not keep waiting
            _bound(self.settings) as port,
            selectors.DefaultSelector() as selector,
            _signals(selector) as received,
        ):
            try:
                for slot in range(self.settings.workers):  # they import what they need while the store is asked
                    self._start(slot, port, selector)
                watching.enter_context(self._watching())
                for worker in self.workers:
                    self._configure(worker)
                while not self.stopping:
                    for key, _ in selector.select(self._pause()):
                        if key.data is None:
                            self._signalled(received())
                        else:
                            self._told(key.data, port, selector)
                    self._restart(port, selector)
            finally:
                port.close()  # so that it is gone with the last worker, and nobody waits in vain to be accepted
                self._end()

    @contextlib.contextmanager
    def _watching(self) -> Iterator[None]:
        """Serve what rollouts have promoted; let a thread decide on those that are running, and one look for drift."""
        from torchstone.serve.deployment import store_of
        from torchstone.serve.rollout.attached import register
        from torchstone.serve.rollout.controller import Controller
        from torchstone.serve.rollout.shown import RolloutNumbers
        from torchstone.serve.watching import Watcher

        url, state = store_of(self.settings), self.settings.state_directory
        places = register(url, named_places(self.settings.bundles))
        bundles = tuple(f"{name}={place}" for name, place in places.items())
        self.settings = self.settings.model_copy(update={"bundles": bundles, "store": url, "state": state})
        stop = threading.Event()
        shown = RolloutNumbers(self._own)
        controller = Controller(url, ended=shown.ended, seen=shown.seen, failed=shown.failed)
        watcher = Watcher(self.board, self._own, self.settings.drift_window)
        threads = [
            threading.Thread(target=controller.run, args=(stop,), name="rollout-controller", daemon=True),
            threading.Thread(target=watcher.run, args=(stop,), name="drift-watcher", daemon=True),
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join(5)

    def _start(self, slot: int, port: socket.socket, selector: selectors.BaseSelector) -> Worker:
        ours, theirs = socket.socketpair()
        fds = (port.fileno(), theirs.fileno(), self.board.file)
        command = [sys.executable, "-m", "torchstone.serve.worker", *map(str, fds), str(slot)]
        with _held_back(signal.SIGHUP):
            process = subprocess.Popen(command, pass_fds=fds, stdin=subprocess.DEVNULL)
        theirs.close()
        worker = Worker(process=process, control=ours, started=time.monotonic(), slot=slot)
        self.workers.append(worker)
        selector.register(ours, selectors.EVENT_READ, worker)
        return worker

    def _configure(self, worker: Worker) -> None:
        """Send the settings, for which the worker waits."""
        # Not as an argument: a URL among the settings may hold a password, and `ps` shows arguments to everybody.
        with contextlib.suppress(OSError):  # one that has ended says so itself
            worker.control.sendall(f"{json.dumps(self.settings.model_dump(mode='json'))}\n".encode())

    def _told(self, worker: Worker, port: socket.socket, selector: selectors.BaseSelector) -> None:
        """Read what a worker says; where it says nothing any more, it has ended."""
        try:
            received = worker.control.recv(65536)
        except OSError:
            received = b""
        *lines, worker.text = (worker.text + received).split(b"\n")
        for line in lines:
            verb, _, rest = line.partition(b" ")
            if verb == b"ready":
                worker.ready = True
                self._announce(port)
            elif verb == b"reload":
                self._pass_on(signal.SIGHUP, but=worker)
            elif verb == b"failed":
                self._failed(worker, *json.loads(rest))
        if not received:
            selector.unregister(worker.control)
            self._died(worker)

    def _announce(self, port: socket.socket) -> None:
        if not self.announced and all(worker.ready for worker in self.workers):
            self.announced = True
            host, number = port.getsockname()[:2]
            self.serving(f"http://{f'[{host}]' if ':' in host else host}:{number}")

    def _failed(self, worker: Worker, message: str, hint: str | None, code: int) -> None:
        """A worker cannot serve: at the start that is the end; later, the others go on."""
        error = TorchstoneError(message, hint=hint)
        error.exit_code = code
        if not self.announced:
            raise error
        console.say(f"a worker cannot start: {error}")

    def _died(self, worker: Worker) -> None:
        worker.control.close()
        code = worker.process.wait()
        self.workers.remove(worker)
        self.board.slot(worker.slot).clear_gauges()
        if self.stopping:
            return
        if not self.announced:
            raise TorchstoneError(f"a worker ended before it was ready, with exit code {code}")
        steady = time.monotonic() - worker.started > STEADY
        self.failures = 0 if steady else self.failures + 1
        pause = 0.0 if self.failures < 2 else min(MAX_PAUSE, 0.5 * 2**self.failures)
        console.say(f"worker {worker.process.pid} ended with {_ended(code)}; another one is started")
        cell(self._own, "torchstone_worker_deaths")[0] += 1.0
        self.start_at.append((time.monotonic() + pause, worker.slot))

    def _restart(self, port: socket.socket, selector: selectors.BaseSelector) -> None:
        now = time.monotonic()
        for _, slot in [one for one in self.start_at if one[0] <= now]:
            self._configure(self._start(slot, port, selector))
        self.start_at = [one for one in self.start_at if one[0] > now]

    def _pause(self) -> float | None:
        return max(0.0, min(self.start_at)[0] - time.monotonic()) if self.start_at else None

    def _signalled(self, signals: bytes) -> None:
        for number in signals:
            if number == signal.SIGHUP:
                self._pass_on(signal.SIGHUP)
            elif number in (signal.SIGTERM, signal.SIGINT):
                self.stopping = True

    def _pass_on(self, number: signal.Signals, but: Worker | None = None) -> None:
        for worker in self.workers:
            if worker is not but:
                worker.process.send_signal(number)

    def _end(self) -> None:
        """Let the workers answer what they have accepted; what is left after that is killed."""
        self.stopping = True
        self._pass_on(signal.SIGTERM)
        patience = self.settings.drain + self.settings.timeout + self.settings.body_timeout + 10
        deadline = time.monotonic() + patience
        for worker in self.workers:
            try:
                worker.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
            worker.control.close()
        self.workers.clear()


@contextlib.contextmanager
def _bound(settings: ServeSettings) -> Iterator[socket.socket]:
    """The listening socket; a ConfigError where the address is not to be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        port = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(f"--host '{settings.host}' is no address of this machine: {error.strerror}") from None
    with port:
        port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            port.bind(address)
        except OSError as error:
            raise ConfigError(
                f"port {settings.port} of {settings.host} is not to be had: {(error.strerror or str(error)).lower()}",
                hint="choose another one with --port; 0 takes any that is free",
            ) from None
        port.listen(BACKLOG)
        port.setblocking(False)
        yield port


@contextlib.contextmanager
def _held_back(number: signal.Signals) -> Iterator[None]:
    """A process that is started meanwhile gets this signal when it says that it can take it, and not before: until then
    it would be killed by it. What comes to ourselves waits for the end of the block."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [number])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _signals(selector: selectors.BaseSelector) -> Iterator[Callable[[], bytes]]:
    """Signals as bytes that the selector sees, so that none comes between two steps of ours."""
    read, write = os.pipe()
    os.set_blocking(read, False)
    os.set_blocking(write, False)
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.signal(number, lambda *_: None) for number in numbers}
    wakeup = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    selector.register(read, selectors.EVENT_READ, None)
    try:
        yield lambda: os.read(read, 4096)
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(read)
        os.close(write)


def _ended(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name
