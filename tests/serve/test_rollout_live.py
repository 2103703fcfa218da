"""A rollout on a real server: started by the verb, decided by what clients send, seen by all workers."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from live import Live, ask, serving, wait_for
from torchstone.config import Settings
from torchstone.core.contracts import ImageSet
from torchstone.core.values import Candidate
from torchstone.export import bundle
from torchstone.stages import compress, find, train
from torchstone.stages.read import Data

pytestmark = pytest.mark.slow

LONG = 180.0
"""Seconds within which a decision must come: the log is read three seconds behind."""
MOST = 4_000
"""Requests until a decision, at most."""


@pytest.fixture(scope="module")
def worse(settings: Settings, data: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same network, trained for one epoch."""
    little = train.trained(settings.model_copy(update={"epochs": 1}), data)
    (candidate,) = compress.build_all(compress.plan_all(("onnx",)), find.baseline_of(little), data, seed=0)
    return bundle.write(candidate, None, tmp_path_factory.mktemp("served") / "worse")


@pytest.fixture(scope="module")
def equal(exported: dict[str, Candidate], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stable network in INT8."""
    return bundle.write(exported["int8@onnxruntime"], exported["onnx"], tmp_path_factory.mktemp("served") / "equal")


def torchstone(*arguments: str | Path, code: int = 0) -> str:
    command = [sys.executable, "-m", "torchstone", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def status(state: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "torchstone", "rollout", "status", "--state", str(state), "--json"]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=False, timeout=120).stdout)


def use(live: Live, seen: ImageSet, state: Path) -> tuple[dict[str, Any], list[int]]:
    """Send images and their true labels until the rollout ends; its status and those of all replies."""
    statuses: list[int] = []
    labels = seen.labels.tolist()
    with contextlib.closing(http.client.HTTPConnection(live.host, live.port, timeout=60)) as connection:
        for number in range(MOST):
            row = number % len(labels)
            reply = ask(connection, "/v1/classify", seen.encoded(row))
            statuses.append(reply.status)
            (answer,) = reply.json["predictions"]
            told = ask(connection, "/v1/feedback", json.dumps({"id": answer["id"], "label": labels[row]}))
            statuses.append(told.status)
            if number % 300 == 299 and status(state)["status"] != "running":
                break
    wait_for(lambda: status(state)["status"] != "running", LONG)
    return status(state), statuses


def test_a_worse_candidate_is_rolled_back(digits: Path, worse: Path, seen: ImageSet, tmp_path: Path) -> None:
    with serving(digits, "--state", tmp_path, "--workers", "2") as live:
        torchstone("rollout", "start", "--candidate", worse, "--latency-margin", "90", "--state", tmp_path)
        assert wait_for(lambda: shadowed(live, seen, tmp_path), LONG)
        found, statuses = use(live, seen, tmp_path)
        assert set(statuses) == {200, 202}
        assert found["status"] == "rolled_back", found["decisions"][-1]
        assert "accuracy" in found["decisions"][-1]["reason"]
        before = live.classify(seen.encoded(0))[0]["bundle"]
        assert before == json.loads((digits / "artifact.json").read_text())["id"][:12]
        torchstone("rollout", "status", "--state", tmp_path, code=1)


def shadowed(live: Live, seen: ImageSet, state: Path) -> bool:
    """Whether answers of the candidate arrive in the log."""
    live.classify(seen.encoded(0))
    time.sleep(0.2)
    return status(state)["numbers"]["answers"] > 0


def test_an_equal_candidate_is_promoted_and_stays_after_a_restart(
    digits: Path, equal: Path, seen: ImageSet, tmp_path: Path
) -> None:
    new = json.loads((equal / "artifact.json").read_text())["id"][:12]
    with serving(digits, "--state", tmp_path, "--workers", "2") as live:
        margins = ("--margin", "5", "--latency-margin", "90", "--errors-margin", "5")
        said = torchstone("rollout", "start", "--candidate", equal, *margins, "--labels", "all", "--state", tmp_path)
        assert "selection" in said
        assert wait_for(lambda: shadowed(live, seen, tmp_path), LONG)
        found, statuses = use(live, seen, tmp_path)
        assert set(statuses) == {200, 202}
        assert found["status"] == "promoted", found["decisions"][-1]
        assert wait_for(lambda: {live.classify(seen.encoded(0))[0]["bundle"] for _ in range(6)} == {new})
    with serving(digits, "--state", tmp_path) as live:
        assert live.classify(seen.encoded(0))[0]["bundle"] == new


def test_by_hand_and_by_http(digits: Path, equal: Path, seen: ImageSet, tmp_path: Path) -> None:
    key = "a-key-of-an-administrator"
    env = {"TORCHSTONE_ADMIN_KEYS": key}
    with serving(digits, "--state", tmp_path, env=env) as live:
        assert live.ask("/v1/rollout", x_api_key=key).status == 404
        canary = ("--candidate", equal, "--mode", "canary", "--weight", "50%", "--state", tmp_path)
        torchstone("rollout", "start", *canary[:-4], "--weight", "100%", *canary[-2:], code=2)
        torchstone("rollout", "start", *canary)
        torchstone("rollout", "start", *canary, code=2)
        torchstone("rollout", "start", "--candidate", digits, "--state", tmp_path, code=2)
        assert live.ask("/v1/rollout").status == 401
        assert live.ask("/v1/rollout", x_api_key=key).json["status"] == "running"
        new = json.loads((equal / "artifact.json").read_text())["id"][:12]
        assert wait_for(lambda: live.classify(seen.encoded(0))[0]["bundle"] == new)
        torchstone("rollout", "status", "--state", tmp_path, code=3)
        torchstone("rollout", "abort", "--state", tmp_path)
        assert live.ask("/v1/rollout", x_api_key=key).json["status"] == "aborted"
        assert wait_for(lambda: new not in {live.classify(seen.encoded(0))[0]["bundle"] for _ in range(20)})
        torchstone("rollout", "start", *canary)
        assert live.ask("/v1/rollout/promote", b"", x_api_key=key).json["status"] == "promoted"
        assert wait_for(lambda: {live.classify(seen.encoded(0))[0]["bundle"] for _ in range(6)} == {new})
        torchstone("rollout", "promote", "--state", tmp_path, code=2)
        (before,) = live.workers
        os.kill(before, signal.SIGKILL)
        assert wait_for(lambda: live.workers not in ([], [before]))
        assert live.classify(seen.encoded(0))[0]["bundle"] == new  # at once: it never opens the old one


def test_feedback_that_is_none_is_refused(digits: Path, tmp_path: Path) -> None:
    good = {"id": "0" * 32, "label": 3}
    with serving(digits, "--state", tmp_path) as live:
        for content in ({}, [], {"id": "../etc", "label": 1}, {"id": "0" * 32, "label": True}, {"feedback": []}, "x"):
            assert live.ask("/v1/feedback", json.dumps(content)).status == 400 + 22 * (
                content == {"id": "0" * 32, "label": True}
            )
        for label in (10, -1, "eleven", 2**70, None, 1.5):
            assert live.ask("/v1/feedback", json.dumps({"id": "0" * 32, "label": label})).status == 422
        assert live.ask("/v1/feedback", json.dumps(good)).json == {"accepted": 1}
        assert live.ask("/v1/feedback", json.dumps({"feedback": [good, good | {"label": "4"}]})).json == {"accepted": 2}
