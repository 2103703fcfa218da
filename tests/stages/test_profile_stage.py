from __future__ import annotations

import json
from pathlib import Path

import pytest

from command_line import torchstone
from torchstone.core.errors import ArtifactError, ConfigError
from torchstone.evaluate.relative import Options as Measured
from torchstone.stages import profile as profiles
from torchstone.stages.models import models
from torchstone.stages.profile import Options, profile


def test_an_architecture_in_a_graph_runtime(tmp_path: Path) -> None:
    found = profile("lenet5@onnxruntime", Options(batch=2), out=tmp_path / "p.html")
    assert found.profile.runtime == "onnxruntime"
    assert found.profile.batch == 2
    assert any(one.kind == "Conv" for one in found.profile.operators)
    assert "lenet5@onnxruntime" in found.page.read_text()


def test_a_trained_model_is_exported_on_the_way(trained: object, settings: object, tmp_path: Path) -> None:
    from torchstone.config import Settings

    assert isinstance(settings, Settings)
    run = settings.run.root
    before = sorted(path for path in run.rglob("*"))
    candidate = profiles.opened(f"{run}@openvino", Options(precision="f32"), tmp_path)
    assert candidate.artifact.format == "openvino"
    assert candidate.artifact.classes == tuple("0123456789")
    assert sorted(path for path in run.rglob("*")) == before, "a profile leaves the run as it was"


def test_what_cannot_be_profiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="unknown model"):
        profile("lenet6", Options())
    with pytest.raises(ArtifactError, match="neither an artifact nor a run"):
        profile("some/where", Options())
    with pytest.raises(ConfigError, match="cores"):
        profile("lenet5", Options(threads=4096))
    with pytest.raises(ConfigError, match=r"\.html"):
        profile("lenet5", Options(), out=Path("p.png"))
    with pytest.raises(ConfigError, match="did you mean 'openvino'"):
        profile("lenet5@openvin", Options())
    assert list(tmp_path.iterdir()) == []


def test_networks_take_turns_with_the_reference(tmp_path: Path) -> None:
    (row,) = models("lenet5", measure=Measured(runtime="torch"), out=tmp_path / "families.html")
    assert row.speed is not None
    assert row.speed.ratio < 0.5, "LeNet-5 takes a hundredth of ResNet-18's time"
    assert "lenet5" in (tmp_path / "families.html").read_text()


def test_the_list_of_networks_needs_no_torch(tmp_path: Path) -> None:
    done = torchstone("models", "resnet", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {"resnet18", "seresnet50", "resnet9"} <= {row["name"] for row in json.loads(done.stdout)}
    done = torchstone("models", cwd=tmp_path)
    assert "alexnet" in done.stdout
    assert "714.2 M" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_profile_as_json(tmp_path: Path) -> None:
    done = torchstone("profile", "lenet5", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["macs"] == 651_720
    assert (tmp_path / answer["page"]).is_file()
