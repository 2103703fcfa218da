"""Real processes: stopped, killed and reloaded while clients ask."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from command_line import torchstone
from live import Live, Load, serving, wait_for
from torchstone.core.values import Candidate
from torchstone.export import bundle
from torchstone.serve import workers

ADMIN = "the-key-of-the-administrator"


def answered(load: Load, more: int) -> bool:
    """Whether ``more`` requests are answered from now on."""
    before = len(load.statuses)
    return wait_for(lambda: len(load.statuses) >= before + more)


def exchange(place: Path, candidate: Candidate) -> None:
    """Put another bundle where the server found the one it serves, as ``torchstone run`` does."""
    bundle.write(candidate, None, place)


@pytest.fixture
def place(digits: Path, tmp_path: Path) -> Path:
    """A bundle that may be exchanged."""
    copy = tmp_path / "digits"
    shutil.copytree(digits, copy)
    return copy


def test_sigterm_answers_what_was_accepted(digits: Path, pictures: list[bytes]) -> None:
    with serving(digits, "--workers", "2", "--drain", "3") as live, Load(live, pictures, clients=8) as load:
        assert answered(load, 50)
        assert live.stop(signal.SIGTERM) == 0
    assert load.failures == []
    assert set(load.statuses) == {200}


def test_a_request_that_is_on_its_way_is_answered(digits: Path, pictures: list[bytes]) -> None:
    """Its headers are there when SIGTERM comes, its body a moment later."""
    picture = pictures[0]
    with serving(digits) as live, socket.create_connection((live.host, live.port), timeout=30) as connection:
        head = f"POST /v1/classify HTTP/1.1\r\nhost: a\r\ncontent-length: {len(picture)}\r\n\r\n".encode()
        connection.sendall(head + picture[:10])
        time.sleep(0.2)
        live.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        connection.sendall(picture[10:])
        reply = b""
        while part := connection.recv(4096):
            reply += part
        assert reply.startswith(b"HTTP/1.1 200 ")
        assert b"connection: close" in reply.lower()
        assert live.process.wait(30) == 0


def test_ctrl_c_ends_it_as_well(digits: Path) -> None:
    with serving(digits) as live:
        assert live.stop(signal.SIGINT) == 0


def test_a_killed_worker_is_replaced_and_the_others_go_on(digits: Path, pictures: list[bytes]) -> None:
    with serving(digits, "--workers", "2") as live, Load(live, pictures, clients=8) as load:
        assert answered(load, 50)
        victim = live.workers[0]
        os.kill(victim, signal.SIGKILL)
        assert answered(load, 50)
        assert wait_for(lambda: len(live.workers) == 2 and victim not in live.workers)
        assert wait_for(lambda: live.said("ended with SIGKILL"))
        assert live.ask("/readyz").status == 200
    assert len(load.failures) <= 8  # what the killed one held: at most one request of each client
    assert set(load.statuses) == {200}


def test_workers_end_with_their_supervisor(digits: Path) -> None:
    with serving(digits, "--workers", "2", "--drain", "0") as live:
        workers = live.workers
        live.process.kill()
        live.process.wait()
        assert wait_for(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))


@pytest.mark.parametrize("by", ["signal", "request"])
def test_a_reload_takes_the_new_bundle_and_loses_no_request(
    place: Path, exported: dict[str, Candidate], pictures: list[bytes], by: str
) -> None:
    env = {"TORCHSTONE_ADMIN_KEYS": ADMIN}
    with serving(place, "--workers", "2", env=env) as live, Load(live, pictures, clients=8) as load:
        assert answered(load, 50)
        (old,) = load.bundles
        exchange(place, exported["openvino"])
        if by == "signal":
            live.process.send_signal(signal.SIGHUP)
        else:
            reply = live.ask("/v1/reload", b"", x_api_key=ADMIN)
            assert reply.status == 200
            assert reply.json["models"][0]["bundle"] != old
        assert wait_for(lambda: len(load.bundles) == 2)
        (new,) = load.bundles - {old}

        def all_new() -> bool:
            return {live.classify(pictures[0])[0]["bundle"] for _ in range(8)} == {new}

        assert wait_for(all_new)
        assert wait_for(lambda: live.said(f"is {new} from here on"))
        assert answered(load, 50)
    assert load.failures == []
    assert set(load.statuses) == {200}


def test_a_reload_while_it_starts_waits_until_it_has(digits: Path, pictures: list[bytes]) -> None:
    def hang_up(live: Live) -> None:
        assert wait_for(lambda: live.workers or live.process.poll() is not None)
        live.process.send_signal(signal.SIGHUP)
        os.kill(live.workers[0], signal.SIGHUP)  # as a terminal does to all that was started there

    with serving(digits, meanwhile=hang_up) as live:
        assert live.classify(pictures[0])
        assert not live.said("another one is started")


def test_a_signal_that_is_held_back_comes_when_it_is_let_in() -> None:
    program = (
        "import signal, sys; sys.stdin.readline(); signal.signal(signal.SIGHUP, lambda *_: print('asked for'))\n"
        "signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGHUP])"
    )
    with workers._held_back(signal.SIGHUP):
        process = subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
    process.send_signal(signal.SIGHUP)
    assert process.communicate("now\n", timeout=30) == ("asked for\n", None)
    assert signal.SIGHUP not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_a_bundle_that_does_not_prove_itself_is_not_taken(place: Path, pictures: list[bytes]) -> None:
    with serving(place, env={"TORCHSTONE_ADMIN_KEYS": ADMIN}) as live:
        before = live.classify(pictures[0])[0]
        logits = place / "golden" / "logits.npy"
        content = np.load(logits)
        logits.unlink()
        np.save(logits, -content)
        reply = live.ask("/v1/reload", b"", x_api_key=ADMIN)
        assert (reply.status, reply.json["error"]["code"]) == (409, "not_taken")
        assert "logits differ" in reply.json["error"]["message"]
        live.process.send_signal(signal.SIGHUP)
        assert wait_for(lambda: live.said("the old model goes on"))
        after = live.classify(pictures[0])[0]
        assert after["top"] == before["top"]
        assert live.ask("/readyz").status == 200


def refusal(*arguments: str | Path) -> tuple[int, str]:
    """Exit code and stderr of a server that does not come up."""
    done = torchstone("serve", *arguments, "--port", "0")
    return done.returncode, done.stderr


def test_what_cannot_be_served_is_said_once_and_the_exit_code_is_2(place: Path, tmp_path: Path) -> None:
    (place / "model.onnx").unlink()
    code, said = refusal(place, "--workers", "2")
    assert code == 2
    assert said.count("error:") == 1
    assert "is missing" in said
    assert "Traceback" not in said
    code, said = refusal(tmp_path / "nowhere")
    assert (code, "hint:" in said) == (2, True)


def test_a_port_that_is_taken_is_a_mistake(digits: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = torchstone("serve", digits, "--port", str(taken.getsockname()[1]))
    assert done.returncode == 2
    assert "is not to be had" in done.stderr
    assert "--port" in done.stderr


def test_a_mistake_in_a_flag_is_named(digits: Path) -> None:
    code, said = refusal(digits, "--queue", "0")
    assert (code, "queue = 0 is refused" in said) == (2, True)
    code, said = refusal()
    assert (code, "no bundle was named" in said) == (2, True)
