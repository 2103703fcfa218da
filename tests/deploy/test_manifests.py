"""What is copied to run a system says what the server, the command line and the tools around them understand."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from command_line import parsed
from torchstone.serve.metrics import FAMILIES
from torchstone.serve.settings import settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = [DEPLOY / "kubernetes" / name for name in ("serve.yaml", "train.yaml", "search.yaml")]
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
OTHERS = {"instance", "job", "le", "namespace", "pod"}
"""Labels that Prometheus puts on by itself, or Kubernetes."""
AGGREGATED = re.compile(r"\b(?:by|without)\s*\(([^)]*)\)")
SELECTED = re.compile(r"\b(torchstone_\w+)\s*(?:\{([^}]*)\})?")


def tool(name: str) -> str:
    """A program beside this Python or on the path; the test is skipped where it is neither."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def passed(*command: str | Path) -> None:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def compose() -> dict[str, Any]:
    return yaml.safe_load((DEPLOY / "compose/compose.yaml").read_text())


def queries() -> Iterator[tuple[str, str]]:
    """Everything that is asked of Prometheus: where, and the expression."""
    for group in yaml.safe_load((DEPLOY / "monitoring/alerts.yml").read_text())["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]
    for panel in json.loads((DEPLOY / "monitoring/grafana/torchstone.json").read_text())["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for rule in yaml.safe_load((DEPLOY / "kubernetes/prometheus-adapter.yaml").read_text())["rules"]["custom"]:
        yield "prometheus-adapter", rule["seriesQuery"]


def labels_of(metric: str) -> set[str]:
    """Of a name at ``/metrics``; a KeyError where no server tells it."""
    for name, family in FAMILIES.items():
        if any(metric == name + suffix for suffix in SUFFIXES[family.kind]):
            return {*family.labels, *OTHERS}
    raise KeyError(metric)


@pytest.mark.parametrize(("where", "expression"), [*queries()])
def test_what_is_asked_of_prometheus_is_what_servers_tell(where: str, expression: str) -> None:
    selected = SELECTED.findall(expression)
    assert selected or "up{" in expression, where
    known: set[str] = set(OTHERS)
    for metric, selector in selected:
        known |= labels_of(metric)
        for label in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector):
            assert label in labels_of(metric), f"{where}: {metric} has no label '{label}'"
    for listed in AGGREGATED.findall(expression):
        assert {label.strip() for label in listed.split(",")} <= known, where


def test_a_name_that_no_server_tells_is_found() -> None:
    with pytest.raises(KeyError):
        labels_of("torchstone_requests")
    assert "status" in labels_of("torchstone_requests_total")
    assert "status" not in labels_of("torchstone_queue_images")


def test_the_autoscaler_asks_for_what_the_adapter_makes() -> None:
    scaler = next(one for one in yaml.safe_load_all(KUBERNETES[0].read_text()) if one["kind"].startswith("Horizontal"))
    asked = scaler["spec"]["metrics"][0]["pods"]["metric"]["name"]
    (rule,) = yaml.safe_load((DEPLOY / "kubernetes/prometheus-adapter.yaml").read_text())["rules"]["custom"]
    assert rule["name"]["as"] == asked
    assert labels_of(asked)


def test_prometheus_takes_its_configuration_and_rules(tmp_path: Path) -> None:
    promtool = tool("promtool")
    passed(promtool, "check", "rules", DEPLOY / "monitoring/alerts.yml")
    shutil.copytree(DEPLOY / "monitoring", tmp_path / "monitoring")
    passed(promtool, "check", "config", tmp_path / "monitoring/prometheus.yml")


def test_the_compose_file_fits_its_specification() -> None:
    passed(tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", DEPLOY / "compose/compose.yaml")


WORKFLOWS = [*(ROOT / ".github/workflows").glob("*.yml"), ROOT / "examples/ci/github-service.yml"]


@pytest.mark.parametrize("path", [*WORKFLOWS, ROOT / "examples/ci/gitlab-ci.yml"], ids=lambda path: path.stem)
def test_the_workflows_fit_their_services(path: Path) -> None:
    schema = "vendor.gitlab-ci" if "gitlab" in path.name else "vendor.github-workflows"
    passed(tool("check-jsonschema"), "--builtin-schema", schema, path)


@pytest.mark.parametrize("path", KUBERNETES, ids=lambda path: path.stem)
def test_the_manifests_fit_kubernetes(path: Path) -> None:
    passed(tool("kubernetes-validate"), "--strict", path)


def containers() -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Of the manifests: the file's name, the pod's description and each container's."""
    for path in KUBERNETES:
        for one in yaml.safe_load_all(path.read_text()):
            if pod := one.get("spec", {}).get("template", {}).get("spec"):
                for container in pod["containers"]:
                    yield path.stem, pod, container


@pytest.mark.parametrize(("name", "pod", "container"), [*containers()])
def test_pods_are_restricted(name: str, pod: dict[str, Any], container: dict[str, Any]) -> None:
    """What Kubernetes' 'restricted' pod security standard asks for, and a root file system that cannot be written."""
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    inside = container["securityContext"]
    assert inside["capabilities"] == {"drop": ["ALL"]}
    assert inside["readOnlyRootFilesystem"]
    assert inside["allowPrivilegeEscalation"] is False
    assert container["resources"]["limits"]["memory"]


def told() -> Iterator[tuple[str, list[str]]]:
    """What torchstone is told in each place, without the program's name."""
    for name, service in compose()["services"].items():
        if service.get("image") == "torchstone-serve":
            yield f"compose {name}", [re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", word) for word in service["command"]]
    for name, _, container in containers():
        words = container.get("command", ["torchstone"]) + container.get("args", [])
        yield f"kubernetes {name}", words[words.index("torchstone") + 1 :]
    for path in (ROOT / "examples/ci").glob("g*.yml"):
        for number, words in enumerate(re.findall(r"torchstone ((?:doctor|serve|load) [^&\n]+)", path.read_text())):
            yield f"{path.stem} {number}", words.split()
    unit = (DEPLOY / "systemd/torchstone.service").read_text()
    yield "systemd", re.search(r"^ExecStart=\S+/torchstone (.+)$", unit, re.MULTILINE)[1].split()  # type: ignore[index]
    for number, words in enumerate(re.findall(r"^CMD (\[.+\])$", (DEPLOY / "Containerfile").read_text(), re.MULTILINE)):
        if json.loads(words) != ["lab"]:
            yield f"image {number}", json.loads(words)


@pytest.mark.parametrize(("where", "words"), [*told()])
def test_every_place_tells_torchstone_what_it_knows(where: str, words: list[str]) -> None:
    verb, _ = parsed(" ".join(["torchstone", *words]))
    assert verb in ("serve", "load", "train", "search", "demo", "doctor"), where


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    subprocess.run([DEPLOY / "compose/secrets.sh", tmp_path / "secrets"], check=True, capture_output=True)
    return tmp_path / "secrets"


def test_the_servers_configuration_of_the_compose_file(secrets: Path) -> None:
    chosen = settings({"bundles": ("/bundle",)}, secrets / "serve.toml")
    postgres, redis = ((secrets / f"{name}_password").read_text() for name in ("postgres", "redis"))
    assert re.fullmatch("[A-Za-z0-9]{40}", postgres)
    assert postgres != redis
    assert chosen.store == f"postgresql://torchstone:{postgres}@postgres/torchstone"
    assert chosen.cache == f"redis://:{redis}@redis:6379/0"


def test_the_secrets_of_the_compose_file_are_drawn_once_and_are_files(secrets: Path) -> None:
    """Compose gives a container with a read-only root no secret from a variable, and no configuration in line."""
    assert "configs" not in compose()
    assert {one["file"] for one in compose()["secrets"].values()} == {
        f"secrets/{path.name}" for path in secrets.iterdir()
    }
    before = {path.name: path.read_text() for path in secrets.iterdir()}
    subprocess.run([DEPLOY / "compose/secrets.sh", secrets], check=True, capture_output=True)
    assert {path.name: path.read_text() for path in secrets.iterdir()} == before
    assert secrets.stat().st_mode & 0o077 == 0


def test_the_example_of_the_environment_names_all_that_the_compose_file_takes() -> None:
    taken = set(re.findall(r"\$\{(\w+)", (DEPLOY / "compose/compose.yaml").read_text()))
    given = re.findall(r"^(\w+)=", (DEPLOY / "compose/example.env").read_text(), re.MULTILINE)
    assert set(given) == taken


def test_the_files_that_the_compose_file_mounts_are_there() -> None:
    for name, service in compose()["services"].items():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (DEPLOY / "compose" / source).is_file(), f"{name}: {source}"


def test_servers_are_held_tight_in_compose() -> None:
    for name in ("server-a", "server-b"):
        server = compose()["services"][name]
        assert server["read_only"]
        assert server["cap_drop"] == ["ALL"]
        assert server["mem_limit"] == "512m"
    assert compose()["networks"]["inside"] == {"internal": True}
    for name, service in compose()["services"].items():
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), f"{name} is reached from elsewhere"


def test_nginx_takes_its_configuration(tmp_path: Path) -> None:
    nginx = tool("nginx")
    text = (DEPLOY / "compose/nginx.conf").read_text().replace("server-a:8080", "127.0.0.1:1")
    config = tmp_path / "nginx.conf"
    config.write_text(text.replace("server-b:8080", "127.0.0.1:2"))
    passed(nginx, "-t", "-e", "stderr", "-c", config)


def test_hadolint_finds_nothing_in_the_containerfile() -> None:
    passed(tool("hadolint"), DEPLOY / "Containerfile")


def test_every_image_has_its_labels_and_runs_as_nobody() -> None:
    text = (DEPLOY / "Containerfile").read_text()
    stages = {one.split()[0]: one for one in re.split(r"^FROM \S+ AS ", text, flags=re.MULTILINE)[1:]}
    for name in ("serve", "train-cpu", "train-cuda", "lab"):
        for label in ("title", "licenses", "version", "revision"):
            assert f"org.opencontainers.image.{label}=" in stages[name], f"{name}: {label}"
    for name in ("serve", "train"):
        assert "USER 10001:10001" in stages[name]
        assert 'ENTRYPOINT ["tini", "--", "torchstone"]' in stages[name]
    assert "HEALTHCHECK" in stages["serve"]


def locks() -> list[Path]:
    return sorted((DEPLOY / "locks").glob("*-py3.*.txt"))


def test_there_is_a_lock_file_for_each_set_and_python() -> None:
    sets = {path.name.rpartition("-py")[0] for path in locks()}
    assert sets == {"build", "serve", "serve-openvino", "train", "lab"}
    assert len(locks()) == 3 * len(sets)


@pytest.mark.parametrize("path", locks(), ids=lambda path: path.stem)
def test_every_locked_package_has_its_hashes(path: Path) -> None:
    requirements = re.split(r"\n(?=\S)", path.read_text().replace("\\\n", "").strip())
    for requirement in requirements:
        assert requirement.startswith("#") or ("==" in requirement and "--hash=sha256:" in requirement), requirement[
            :80
        ]
    names = {one.partition("==")[0].partition("[")[0] for one in requirements}
    if path.name.startswith("serve"):
        assert not names & {"torch", "scipy", "polars", "matplotlib"} - (
            {"scipy"} if "openvino" in path.name else set()
        )
        assert ("openvino" in names) == ("openvino" in path.name)


def test_torch_can_be_taken_out_of_a_lock_file(tmp_path: Path) -> None:
    lock = DEPLOY / "locks/train-py3.11.txt"
    script = DEPLOY / "locks/without_torch.py"
    kept = subprocess.run([sys.executable, script, lock], capture_output=True, text=True, check=True).stdout
    assert not re.search(r"^(torch|torchvision|triton|nvidia-\S+|cuda-\S+)==", kept, re.MULTILINE)
    for name in ("torch-pruning", "timm", "onnxruntime"):
        assert re.search(rf"^{name}==", kept, re.MULTILINE)
    left = lock.read_text().count("--hash=") - kept.count("--hash=")
    assert left > 20, "with their hashes"
