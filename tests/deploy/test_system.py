"""The parts of the compose file as processes on loopback, from the same configuration files: a request through nginx
reaches both servers, its answer is in Redis and in PostgreSQL, Prometheus counts it and tells when a server is gone."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import shutil
import signal
import subprocess
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from daemons import Daemon, Postgres, Redis, a_postgres, a_redis, eventually, free_port, listens
from live import Live, serving
from torchstone.core.contracts import ImageSet
from torchstone.core.values import Artifact, Candidate
from torchstone.export import bundle
from torchstone.stages.read import Data

DEPLOY = Path(__file__).parents[2] / "deploy"

pytestmark = pytest.mark.slow


@dataclass(frozen=True, kw_only=True)
class System:
    nginx: int
    prometheus: int
    servers: tuple[Live, Live]
    redis: Redis
    postgres: Postgres

    def classify(self, picture: bytes) -> dict[str, Any]:
        """Through nginx, as a user asks."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.nginx, timeout=30)) as connection:
            connection.request("POST", "/v1/classify", picture)
            reply = connection.getresponse()
            content = reply.read()
        assert reply.status == 200, content
        return json.loads(content)["predictions"][0]

    def status(self, path: str) -> int:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.nginx, timeout=30)) as connection:
            connection.request("GET", path)
            return connection.getresponse().status

    def asked(self, expression: str) -> float:
        """Prometheus' answer to a query of one number; 0 where it has none."""
        found = self._prometheus("query?" + urllib.parse.urlencode({"query": expression}))["result"]
        return float(found[0]["value"][1]) if found else 0.0

    def alerts(self) -> list[tuple[str, str, str]]:
        """Name, instance and state of those that are pending or firing."""
        found = self._prometheus("alerts")["alerts"]
        return [(one["labels"]["alertname"], one["labels"].get("instance", ""), one["state"]) for one in found]

    def _prometheus(self, path: str) -> Any:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.prometheus, timeout=30)) as connection:
            connection.request("GET", f"/api/v1/{path}")
            return json.loads(connection.getresponse().read())["data"]


@pytest.fixture(scope="module")
def pictures(data: Data, trained: Artifact) -> list[bytes]:
    seen: ImageSet = data.sets(trained, "test")["test"]
    return [seen.encoded(row) for row in range(60)]


@pytest.fixture(scope="module")
def system(exported: dict[str, Candidate], tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    for program in ("nginx", "prometheus"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed: apt-get install nginx-light prometheus")
    place = tmp_path_factory.mktemp("system")
    served = bundle.write(exported["onnx"], None, place / "digits")
    with contextlib.ExitStack() as stack:
        secrets = place / "secrets"
        subprocess.run([DEPLOY / "compose/secrets.sh", secrets], check=True, capture_output=True)
        password = (secrets / "redis_password").read_text()
        redis = stack.enter_context(a_redis(place, DEPLOY / "compose/redis.conf", password=password))
        postgres = stack.enter_context(a_postgres())
        config = place / "serve.toml"
        content = (secrets / "serve.toml").read_text()
        content = re.sub(
            "//torchstone:.*@postgres/torchstone", f"//torchstone@127.0.0.1:{postgres.port}/postgres", content
        )
        config.write_text(content.replace("@redis:6379", f"@127.0.0.1:{redis.port}"))
        first, second = (
            stack.enter_context(serving(served, "--config", config, "--state", place / f"state-{name}"))
            for name in "ab"
        )
        names = {"server-a:8080": f"127.0.0.1:{first.port}", "server-b:8080": f"127.0.0.1:{second.port}"}

        ports = free_port(), free_port()
        text = renamed((DEPLOY / "compose/nginx.conf").read_text(), names)
        text = text.replace("listen 8080;", f"listen 127.0.0.1:{ports[0]};").replace("/tmp/", f"{place}/")
        (place / "nginx.conf").write_text(text.replace("worker_processes auto;", "worker_processes 1;\ndaemon off;"))
        nginx = Daemon(["nginx", "-e", "stderr", "-c", place / "nginx.conf"], place)
        stack.callback(nginx.stop)
        nginx.start(lambda: listens(ports[0]))

        shutil.copytree(DEPLOY / "monitoring", place / "monitoring")
        watched = place / "monitoring/prometheus.yml"
        watched.write_text(renamed(watched.read_text(), names))
        prometheus = Daemon(
            ["prometheus", f"--config.file={watched}", f"--storage.tsdb.path={place / 'series'}",
             f"--web.listen-address=127.0.0.1:{ports[1]}"], place,
        )  # fmt: skip
        stack.callback(prometheus.stop)
        prometheus.start(lambda: listens(ports[1]))
        yield System(nginx=ports[0], prometheus=ports[1], servers=(first, second), redis=redis, postgres=postgres)


def renamed(text: str, names: dict[str, str]) -> str:
    """The configuration with the services' names as this machine reaches them."""
    for name, address in names.items():
        assert name in text
        text = text.replace(name, address)
    return text


def told(live: Live, name: str) -> float:
    """The sum of one family of a server's own ``/metrics``."""
    lines = live.ask("/metrics").content.decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


def test_a_request_goes_through_every_part(system: System, pictures: list[bytes]) -> None:
    answers = [system.classify(picture) for picture in pictures]
    reached = [told(live, 'torchstone_requests_total{path="/v1/classify"') for live in system.servers]
    assert min(reached) > 0, "nginx sends to both"
    assert sum(reached) == len(pictures)

    again = [system.classify(picture) for picture in pictures]
    assert [one["top"] for one in again] == [one["top"] for one in answers]
    assert sum(one["cached"] for one in again) > len(pictures) // 2, "one server finds in Redis what the other computed"
    assert sum(told(live, "torchstone_cache_hits_total") for live in system.servers) > 0

    import psycopg

    ids = {one["id"] for one in (*answers, *again)}

    def stored() -> set[str]:
        with psycopg.connect(system.postgres.url) as connection:
            return {row[0] for row in connection.execute("select id from predictions").fetchall()}

    assert eventually(lambda: ids <= stored()), "every answer is a row"
    expression = 'sum(torchstone_request_seconds_count{path="/v1/classify"})'
    assert eventually(lambda: system.asked(expression) == 2 * len(pictures)), "Prometheus has scraped the histogram"


def test_what_is_for_the_inside_is_not_reached_through_nginx(system: System) -> None:
    assert system.status("/readyz") == 200
    assert system.status("/metrics") == 404
    assert system.status("/v1/reload") == 404


def test_the_dashboards_queries_have_answers(system: System, pictures: list[bytes]) -> None:
    """Those of what has happened here: what nobody refused, lost or rolled out has no series yet."""
    for picture in pictures:
        system.classify(picture)
    dashboard = json.loads((DEPLOY / "monitoring/grafana/torchstone.json").read_text())
    quiet = ("5..", "refused", "drift", "rollout", "cache_errors", "log_rows_lost")
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            expression = target["expr"].replace("$instance", ".*")
            if not any(word in expression for word in quiet):
                query = f"count({expression})"
                assert eventually(lambda query=query: system.asked(query) > 0), f"{panel['title']}: {expression}"


def test_a_server_that_is_killed_is_missed_by_prometheus_alone(system: System, pictures: list[bytes]) -> None:
    """Comes last: the first server stays dead."""
    dead, alive = system.servers
    instance = f"127.0.0.1:{dead.port}"
    workers = dead.workers
    dead.process.send_signal(signal.SIGKILL)
    for worker in workers:
        subprocess.run(["kill", "-KILL", str(worker)], check=False, capture_output=True)
    for picture in pictures:
        assert system.classify(picture)["top"]
    assert told(alive, "torchstone_workers") == 1
    fires = ("TorchstoneDown", instance, "firing")
    assert eventually(lambda: fires in system.alerts(), 120), system.alerts()
    assert not [one for one in system.alerts() if one[1] == f"127.0.0.1:{alive.port}"], (
        "of the other one nothing is said"
    )
