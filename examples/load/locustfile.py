"""Users who send a picture now and then, for Locust (https://locust.io):

    pip install locust
    TORCHSTONE_IMAGES=photos locust -f locustfile.py --host http://127.0.0.1:8080 --headless -u 200 -r 20 -t 60s

A user waits for its answer before it asks again, so a server that stands still is asked less: Locust's p99 knows
nothing of those who would have come meanwhile ('torchstone load' does). What it is good for are users who do several
things, many machines that ask at once, and its page.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

from locust import FastHttpUser, between, task

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
CLASSIFY = "/v1/classify"
READY = "/readyz"
FOLDER = Path(os.environ.get("TORCHSTONE_IMAGES", "images"))
MOST = 1_000
"""Pictures that are kept in memory."""

paths = sorted(path for path in FOLDER.rglob("*") if path.suffix.lower() in SUFFIXES)
if not paths:
    raise SystemExit(f"error: no pictures below '{FOLDER}'\nhint: TORCHSTONE_IMAGES=FOLDER")
PICTURES = [path.read_bytes() for path in random.Random(0).sample(paths, min(MOST, len(paths)))]


class Visitor(FastHttpUser):
    """Sends a picture every second or two, and looks seldom whether the server is ready."""

    wait_time = between(1, 2)

    def on_start(self) -> None:
        key = os.environ.get("TORCHSTONE_API_KEYS", "").partition(",")[0].strip()
        self.headers = {"authorization": f"Bearer {key}"} if key else {}

    @task(20)
    def classify(self) -> None:
        headers = {**self.headers, "content-type": "application/octet-stream"}
        with self.client.post(
            CLASSIFY, data=random.choice(PICTURES), headers=headers, catch_response=True
        ) as response:  # fmt: skip
            if response.status_code == 429:
                response.failure("refused: the queue is full")
            elif response.status_code != 200 or not response.json()["predictions"][0]["top"]:
                response.failure(f"answered with {response.status_code}")

    @task(1)
    def ready(self) -> None:
        self.client.get(READY)
