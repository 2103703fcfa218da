"""Where a result was made: stored as a value, and compared with another machine."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

from command_line import torchstone
from torchstone.core import environment
from torchstone.core.environment import Environment
from torchstone.core.errors import ArtifactError, ConfigError
from torchstone.core.values import Finding
from torchstone.doctor import _against, cpu


@pytest.fixture(scope="module")
def made() -> Environment:
    return environment.here()


def told(then: Environment, **changes: object) -> list[Finding]:
    """What is said where ``then`` differs from now in these fields."""
    return _against.differences(then, then.model_copy(update=changes), "runs/flowers")


def test_this_machine_is_described_without_torch(made: Environment, tmp_path: Path) -> None:
    assert made.cores <= made.host_cores
    assert made.packages["numpy"] == metadata.version("numpy")
    assert made.blas
    assert made.contents["numpy"]
    made.save(tmp_path / "environment.json")
    assert Environment.load(tmp_path / "environment.json") == made
    assert environment.here().model_dump(exclude={"revision"}) == made.model_dump(exclude={"revision"})


def test_a_faked_machine(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/.containerenv").touch()
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("536870912\n")
    (group / "memory.current").write_text("1000\n")
    (group / "memory.stat").write_text("inactive_file 0\n")
    answers = {
        "nvidia-smi": "NVIDIA L4, 570.86.15\nNVIDIA L4, 570.86.15\n",
        "git rev-parse HEAD": "3b1c\n",
        "git status": " M train.py\n",
    }
    said: Callable[..., str] = lambda *words: next(  # noqa: E731
        (text for begin, text in answers.items() if " ".join(words).startswith(begin)), ""
    )
    seen = environment.here(
        environ={"OMP_NUM_THREADS": "1", "HOME": "/root", "TORCHSTONE_IMAGE": "serve@sha256:12"},
        root=tmp_path,
        command=said,
    )
    assert seen.gpus == ("NVIDIA L4", "NVIDIA L4")
    assert seen.driver == "570.86.15"
    assert seen.memory_limit == 512 * 2**20
    assert (seen.container, seen.image, seen.revision) == ("podman", "serve@sha256:12", "3b1c+")
    assert seen.variables == {"OMP_NUM_THREADS": "1"}
    (tmp_path / "run/.containerenv").unlink()
    assert environment.here(environ={"container": "podman"}, root=tmp_path, command=said).container == "podman"


def test_the_same_place_differs_in_nothing(made: Environment) -> None:
    (only,) = told(made)
    assert (only.severity, only.message) == ("info", "nothing differs from where 'runs/flowers' was made")


@pytest.mark.parametrize(
    ("field", "now", "severity", "words"),
    [
        ("cpu", "AMD EPYC", "warning", "AMD EPYC; kernels are chosen by it"),
        ("cores", 64, "warning", "64; sums of a training"),
        ("gpus", ("NVIDIA L4",), "warning", "with NVIDIA L4"),
        ("variables", {"OMP_NUM_THREADS": "1"}, "warning", "with OMP_NUM_THREADS=1"),
        ("system", "Linux 9.9", "info", "→ Linux 9.9"),
        ("memory_limit", 2**30, "info", "→ 1073741824"),
    ],
)
def test_a_difference_says_whether_it_changes_numbers(
    made: Environment, field: str, now: object, severity: str, words: str
) -> None:
    (only,) = told(made, **{field: now})
    assert only.severity == severity
    assert words in only.message
    assert only.evidence["field"] == field


def test_every_field_has_a_rule() -> None:
    assert set(_against.RULES) == set(Environment.model_fields) - {"schema_version", "packages", "contents"}


def test_instructions_that_came_and_went(made: Environment) -> None:
    before = made.model_copy(update={"cpu_features": ("avx2", "avx512_vnni")})
    (only,) = _against.differences(before, before.model_copy(update={"cpu_features": ("avx2", "amx_int8")}), "x")
    assert "without avx512_vnni, with amx_int8" in only.message


def test_packages(made: Environment) -> None:
    then = made.model_copy(
        update={
            "packages": {"torch": "2.6.0", "numpy": "2.1.0", "rich": "13.0", "timm": "1.0"},
            "contents": {"torch": "a", "numpy": "b", "rich": "c", "timm": "d"},
        }
    )
    found = told(
        then,
        packages={"torch": "2.7.0", "numpy": "2.1.0", "rich": "14.0", "idna": "3"},
        contents={"torch": "x", "numpy": "other", "rich": "y", "idna": "z"},
    )
    by_package = {finding.evidence.get("package"): finding for finding in found}
    assert [finding.severity for finding in found] == ["warning"] * 3 + ["info"]
    assert by_package["torch"].hint == "pip install 'torch==2.6.0'"
    assert "numpy 2.1.0 with other files" in by_package["numpy"].message
    assert "timm 1.0 → none" in by_package["timm"].message
    assert "2 other packages differ: idna none → 3, rich 13.0 → 14.0" in found[-1].message


def test_one_wheel_is_the_same_wherever_it_was_installed() -> None:
    wheel = "pkg/a.py,sha256=x,10\npkg-1.dist-info/METADATA,sha256=y,5\n"
    added = "../../bin/pkg,sha256=of-this-python,200\npkg/__pycache__/a.pyc,,\npkg-1.dist-info/INSTALLER,sha256=z,4\n"

    class Installed(metadata.Distribution):
        def __init__(self, record: str) -> None:
            self.record = record

        def read_text(self, filename: str) -> str | None:
            return self.record if filename == "RECORD" else None

        def locate_file(self, path: object) -> Path:
            raise NotImplementedError

    assert environment._content(Installed(wheel + added)) == environment._content(Installed(wheel))
    assert environment._content(Installed(wheel.replace("=x", "=w"))) != environment._content(Installed(wheel))


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is nothing at"):
        _against.stored(str(tmp_path / "runs/gone"))
    with pytest.raises(ConfigError, match="holds no environment"):
        _against.stored(str(tmp_path))
    (tmp_path / "environment.json").write_text('{"python": "3.11"}')
    with pytest.raises(ArtifactError, match=r"no valid Environment: system: field required, and \d+ more\n"):
        _against.stored(str(tmp_path))


def test_a_revision_that_is_not_known_changes_nothing(made: Environment) -> None:
    known = made.model_copy(update={"revision": "3b1c"})
    (elsewhere,) = told(known, revision=None)
    assert elsewhere.severity == "info"
    (changed,) = told(known, revision="3b1d")
    assert changed.severity == "warning"


def test_questions_that_do_not_go_together_are_refused(made: Environment, tmp_path: Path) -> None:
    made.save(tmp_path / "environment.json")
    for words in (
        ("--against", str(tmp_path), "--model", "resnet18"),
        ("--batch", "256"),
        ("--model", "resnet18", "--skip", "disk"),
    ):
        refused = torchstone("doctor", *words)
        assert refused.returncode == 2
        assert "hint:" in refused.stderr


def test_the_command_and_what_strict_makes_of_it(made: Environment, tmp_path: Path) -> None:
    made.save(tmp_path / "environment.json")
    assert torchstone("doctor", "--against", str(tmp_path), "--strict").returncode == 0
    made.model_copy(update={"cpu": "AMD EPYC"}).save(tmp_path / "environment.json")
    loose = torchstone("doctor", "--against", str(tmp_path), "--json")
    assert loose.returncode == 0
    assert json.loads(loose.stdout)["findings"][0]["evidence"]["then"] == "AMD EPYC"
    assert torchstone("doctor", "--against", str(tmp_path), "--strict").returncode == 1


def test_what_the_doctor_warns_of_is_stored() -> None:
    """A variable that caps the instructions is seen when two machines are compared, too."""
    assert set(cpu.CAPS) <= set(environment.VARIABLES)
