"""The server's image, built here as its README says, and run as tightly as it promises: read-only, as nobody, without
capabilities, in 512 MB. Minutes, and root: marked slow."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from daemons import eventually, listens
from live import Live, Load, Reply, ask
from torchstone.core.contracts import ImageSet
from torchstone.core.values import Artifact, Candidate
from torchstone.evaluate import predict
from torchstone.export import bundle
from torchstone.stages.read import Data

ROOT = Path(__file__).parents[2]
IMAGE, BASE, NAME = "localhost/torchstone-serve", "localhost/torchstone-base", "torchstone-test"
PORT = 8080
"""The image's own: its health check asks there."""
RUN = (
    "--network", "host", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "all", "--security-opt", "no-new-privileges",
    "--memory", "512m", "--ulimit", "nofile=20000:20000", "--ulimit", "nproc=4096:4096",
)  # fmt: skip

pytestmark = pytest.mark.slow


def podman(*words: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    runtime = shutil.which("runc") or "runc"
    done = subprocess.run(
        ["podman", "--runtime", runtime, *map(str, words)], capture_output=True, text=True, check=False, timeout=300
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def image() -> str:
    if os.geteuid() != 0:
        pytest.skip("images are built as root here")
    for tool in ("buildah", "podman", "runc", "mmdebstrap"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed: deploy/build says what to install")
    done = subprocess.run([ROOT / "deploy/build", "serve"], capture_output=True, text=True, check=False, timeout=1800)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return IMAGE


@pytest.fixture(scope="module")
def served(exported: dict[str, Candidate], tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = bundle.write(exported["onnx"], None, tmp_path_factory.mktemp("image") / "digits")
    for path in (place, *place.parents):
        if path == Path("/tmp"):
            break
        path.chmod(path.stat().st_mode | 0o055)
    return place


@pytest.fixture(scope="module")
def container(image: str, served: Path) -> Iterator[str]:
    """A running server's name."""
    if listens(PORT):
        pytest.skip(f"port {PORT} is taken")
    podman("rm", "--force", "--ignore", NAME)
    podman(
        "run", "--detach", "--name", NAME, *RUN, "--volume", f"{served}:/bundle:ro", image,
        "serve", "/bundle", "--host", "127.0.0.1", "--state", "/state",
    )  # fmt: skip
    try:
        assert eventually(lambda: podman("healthcheck", "run", NAME, check=False).returncode == 0), podman("logs", NAME)
        yield NAME
    finally:
        podman("rm", "--force", "--volumes", "--ignore", NAME)


@pytest.fixture(scope="module")
def seen(data: Data, trained: Artifact) -> ImageSet:
    return data.sets(trained, "test")["test"]


def inspected(what: str) -> Any:
    return json.loads(podman("inspect", what).stdout)[0]


def version() -> str:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def asked(path: str, body: bytes | None = None) -> Reply:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", PORT, timeout=60)) as connection:
        return ask(connection, path, body)


def test_it_is_small(image: str) -> None:
    added = inspected(image)["Size"] - inspected(BASE)["Size"]
    assert added <= 250e6, f"{added / 1e6:.0f} MB over its base"


def test_it_says_what_it_is(image: str) -> None:
    labels = inspected(image)["Config"]["Labels"]
    assert labels["org.opencontainers.image.version"] == version()
    assert len(labels["org.opencontainers.image.revision"]) == 40


def test_nothing_of_the_build_is_left_in_it(image: str) -> None:
    place = Path(podman("image", "mount", image).stdout.strip())
    try:
        for name in ("src", "build", "wheels", "locks", "code"):
            assert not (place / name).exists(), name
        for name in (
            "etc/pip.conf",
            "etc/xdg/pip",
            "root",
        ):  # what was mounted left its name
            inside = [path for path in (place / name, *(place / name).rglob("pip*")) if path.is_file()]
            assert not any(path.stat().st_size for path in inside), name
        packages = next((place / "opt/torchstone/lib").glob("python3.*")) / "site-packages"
        assert not {"pip", "setuptools", "torch"} & {path.name for path in packages.iterdir()}
        assert (
            subprocess.run(["find", place, "-name", "gcc*", "-path", "*/bin/*"], capture_output=True, check=True).stdout
            == b""
        )
    finally:
        podman("image", "unmount", image)


def script(name: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "deploy" / name, *words], capture_output=True, text=True, check=False, timeout=300
    )


def test_it_holds_no_secret(image: str) -> None:
    done = script("leaks.py", image)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_secret_in_it_is_found(image: str, tmp_path: Path) -> None:
    """In a file and in a variable; a key of the form that AWS gives, which is no key."""
    key = "AKIA" + "IOSFODNN7EXAMPL2"
    (tmp_path / "settings.ini").write_text(f"key = {key}\n")
    (tmp_path / "Containerfile").write_text(
        f"FROM {image}\nCOPY settings.ini /home/torchstone/\nENV DATABASE=postgresql://me:hunter2hunter2@db/log\n"
    )
    leaky = f"{IMAGE}-leaky"
    subprocess.run(
        ["buildah", "build", "--isolation", "chroot", "--format", "docker", "--tag", leaky, tmp_path],
        capture_output=True, check=True, timeout=300,
    )  # fmt: skip
    try:
        done = script("leaks.py", leaky)
    finally:
        podman("image", "rm", leaky)
    assert done.returncode == 1
    assert "/home/torchstone/settings.ini: AWS Access Key, line 1" in done.stdout
    assert "steps and variables: Basic Auth Credentials" in done.stdout


def test_its_bill_of_materials_names_all_that_is_in_it(image: str, tmp_path: Path) -> None:
    done = script("sbom.py", image, tmp_path / "serve.cdx.json")
    assert done.returncode == 0, done.stdout + done.stderr
    bill = json.loads((tmp_path / "serve.cdx.json").read_text())
    named = {part["purl"].partition("?")[0] for part in bill["components"]}
    lock = (ROOT / "deploy/locks/serve-py3.11.txt").read_text()
    locked = re.findall(r"^([a-z0-9-]+)\S*==([^\s;]+)", lock, re.MULTILINE)
    wanted = {f"pkg:pypi/{name}@{number}" for name, number in locked}
    assert {one for one in named if one.startswith("pkg:pypi/")} - wanted == {f"pkg:pypi/torchstone@{version()}"}
    assert any(one.startswith("pkg:deb/debian/python3.11-minimal@") for one in named)
    assert any(one.startswith("pkg:deb/debian/tini@") for one in named)
    unlicensed = [part["name"] for part in bill["components"] if "pypi" in part["purl"] and not part.get("licenses")]
    assert unlicensed == []


def test_it_is_nobody_and_cannot_write(container: str) -> None:
    assert podman("exec", container, "id", "-u").stdout.strip() == "10001"
    assert podman("exec", container, "touch", "/opt/torchstone/x", check=False).returncode != 0
    assert podman("exec", container, "touch", "/bundle/x", check=False).returncode != 0
    status = podman("exec", container, "cat", "/proc/1/status").stdout
    assert re.search(r"^CapEff:\s*0+$", status, re.MULTILINE)
    assert re.search(r"^CapBnd:\s*0+$", status, re.MULTILINE)
    assert re.search(r"^NoNewPrivs:\s*1$", status, re.MULTILINE)


def test_it_answers_what_the_evaluation_answered(
    container: str, seen: ImageSet, data: Data, exported: dict[str, Candidate], tmp_path: Path
) -> None:
    answered = predict.predict(exported["onnx"], data.split, "test", seen, tmp_path / "predictions.parquet")
    for row in range(50):
        reply = asked("/v1/classify", seen.encoded(row))
        assert reply.status == 200, reply.content
        top = reply.json["predictions"][0]["top"][0]
        assert data.catalog.classes.index(top["label"]) == int(answered.scores[row].argmax())


def test_it_bears_32_clients_and_then_stops_gracefully(container: str, seen: ImageSet) -> None:
    """Comes last: the server is gone afterwards."""
    pictures = [seen.encoded(row) for row in range(50)]
    process = subprocess.Popen(["sleep", "600"], text=True)
    live = Live(process, host="127.0.0.1", port=PORT)
    try:
        with Load(live, pictures, clients=32) as load:
            time.sleep(10)
        assert load.failures == []
        assert set(load.statuses) <= {200, 429}
        assert load.statuses.count(200) > 500
    finally:
        process.kill()
        process.wait()
    assert inspected(container)["State"]["OOMKilled"] is False
    podman("stop", "--time", "30", container)
    state = inspected(container)["State"]
    assert (state["ExitCode"], state["OOMKilled"]) == (0, False)
