"""The examples say what the command line understands, and name the files that it writes."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from command_line import parsed
from torchstone.stages import versions

ROOT = Path(__file__).parent.parent
DVC = ROOT / "examples/dvc"
STAGES: dict[str, dict[str, Any]] = yaml.safe_load((DVC / "dvc.yaml").read_text())["stages"]
PARAMETERS: dict[str, Any] = yaml.safe_load((DVC / "params.yaml").read_text())


def filled(text: str) -> str:
    """The text with DVC's ``${a.b}`` replaced from ``params.yaml``."""

    def value(match: re.Match[str]) -> str:
        found: Any = PARAMETERS
        for name in match[1].split("."):
            found = found[name]
        return str(found)

    return re.sub(r"\$\{([\w.-]+)\}", value, text)


def outputs(stage: dict[str, Any]) -> list[str]:
    written = [*stage.get("outs", ()), *stage.get("metrics", ())]
    return [filled(out if isinstance(out, str) else next(iter(out))) for out in written]


@pytest.mark.parametrize("stage", STAGES)
def test_each_stage_of_the_dvc_pipeline_is_a_command_that_parses(stage: str) -> None:
    verb, arguments = parsed(filled(STAGES[stage]["cmd"]))
    assert verb.split()[-1] == stage
    assert arguments["data"] == PARAMETERS["data"]


def test_a_stage_depends_on_what_the_stages_before_it_write() -> None:
    written = [PARAMETERS["data"]]
    for stage in STAGES.values():
        for place in map(filled, stage["deps"]):
            assert any(place == out or place.startswith(f"{out}/") for out in written), place
        written += outputs(stage)
    split = next(filled(place) for place in STAGES["run"]["deps"] if place.startswith("split/"))
    assert Path(split).name in versions.WRITTEN
    _, arguments = parsed(filled(STAGES["run"]["cmd"]))
    assert str(arguments["previous_split"]) == split
    assert all(place.startswith(f"runs/{arguments['name']}/") for place in outputs(STAGES["run"]))


def test_run_and_split_are_told_the_same_fractions() -> None:
    by_stage = {name: parsed(filled(STAGES[name]["cmd"]))[1] for name in ("split", "run")}
    assert by_stage["split"]["test_fraction"] == by_stage["run"]["test_fraction"]
    assert by_stage["split"]["seed"] == by_stage["run"]["seed"]


@pytest.mark.parametrize("name", ["examples/launch/slurm.sh", "deploy/kubernetes/train.yaml"])
def test_the_launch_files_start_a_training_that_the_command_line_knows(name: str) -> None:
    text = (ROOT / name).read_text()
    if name.endswith(".sh"):
        assert subprocess.run(["bash", "-n", ROOT / name], check=False).returncode == 0
        words = shlex.split(text[text.index("srun") :].replace("\\\n", " "))
        words = words[words.index("torchrun") : words.index("&")]
        words[words.index("$@")] = "flowers"
    else:
        service, job, policy = yaml.safe_load_all(text)
        assert service["spec"]["ports"][0]["port"] == 29500
        words = job["spec"]["template"]["spec"]["containers"][0]["command"]
        assert f"--nnodes={job['spec']['completions']}" in words
        pods = job["spec"]["template"]["metadata"]["labels"]
        assert policy["spec"]["podSelector"]["matchLabels"] == pods
        assert policy["spec"]["ingress"] == [{"from": [{"podSelector": {"matchLabels": pods}}]}]
    verb, _ = parsed(shlex.join(words[words.index("-m") + 1 :]))
    assert verb == "train"
