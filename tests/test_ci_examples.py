"""The examples for CI are run as CI would run them: in a repository, with answers that are committed."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
CI = ROOT / "examples/ci"
ACTION: dict[str, Any] = yaml.safe_load((CI / "github-action/action.yml").read_text())
IDENTITY = {
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@b.c",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@b.c",
}


def answers(path: Path, wrong: int, images: int = 1500) -> None:
    rows = [f"{n},{'ab'[n % 2]},{'ba'[n % 2] if n < wrong else 'ab'[n % 2]}" for n in range(images)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["id,label,prediction", *rows]) + "\n")


class Repository:
    """A user's repository with a baseline, a candidate and a runner that has torchstone."""

    def __init__(self, place: Path) -> None:
        self.place, self.temp = place / "repository", place / "temp"
        self.place.mkdir()
        self.temp.mkdir()
        tools = Path(sys.executable).parent
        self.environment = {**os.environ, **IDENTITY, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
        answers(self.place / "evidence/baseline.csv", 60)
        self.run("git", "init", "--quiet")

    def run(self, *command: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=self.place, env={**self.environment, **more}, capture_output=True, text=True, check=False
        )

    def commit(self) -> None:
        self.run("git", "add", "--all")
        assert self.run("git", "commit", "--quiet", "--no-verify", "--message", "x").returncode == 0

    def action(self, **inputs: str) -> subprocess.CompletedProcess[str]:
        """The action's judging step with these inputs over its defaults, in the variables of GitHub's runner."""
        given = {name: str(one.get("default", "")) for name, one in ACTION["inputs"].items()}
        given |= {"baseline": "evidence/baseline.csv", "candidates": "evidence/candidate.csv"}
        given |= {name.replace("_", "-"): value for name, value in inputs.items()}
        (step,) = (step for step in ACTION["runs"]["steps"] if step.get("id") == "judge")
        variables = {
            name: given[value.removeprefix("${{ inputs.").removesuffix(" }}")] for name, value in step["env"].items()
        }
        for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"):
            (self.temp / name).write_text("")
            variables[name] = str(self.temp / name)
        return self.run(
            "bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"],
            GITHUB_ACTIONS="true", GITHUB_ACTION_PATH=str(CI / "github-action"), RUNNER_TEMP=str(self.temp),
            **variables,
        )  # fmt: skip

    def outputs(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in (self.temp / "GITHUB_OUTPUT").read_text().splitlines())


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


def test_the_action_fails_a_build_that_loses_accuracy(repository: Repository) -> None:
    answers(repository.place / "evidence/candidate.csv", 160)
    repository.commit()
    done = repository.action(recorded="false")
    assert done.returncode == 1, done.stderr
    assert "::error::a candidate is worse" in done.stdout
    assert repository.outputs()["outcome"] == "fail"
    assert "evidence/candidate.csv" in (repository.temp / "GITHUB_STEP_SUMMARY").read_text()


def test_the_action_wants_the_look_in_the_repository(repository: Repository) -> None:
    answers(repository.place / "evidence/candidate.csv", 61)
    (repository.place / ".gitignore").write_text(".*.lock\n")
    repository.commit()
    done = repository.action()
    assert done.returncode == 1
    assert "has a look that is not committed" in done.stdout
    repository.commit()  # what the developer does
    done = repository.action()
    assert done.returncode == 0, done.stdout + done.stderr
    assert repository.run("git", "status", "--porcelain").stdout == "", "the same question is the same look"
    outputs = repository.outputs()
    assert outputs["outcome"] == "pass"
    assert json.loads(Path(outputs["verdict"]).read_text())["look"] == 1
    answers(repository.place / "evidence/candidate.csv", 62)  # another candidate is another look
    repository.commit()
    assert "has a look that is not committed" in repository.action().stdout


@pytest.mark.parametrize(("undecided", "code", "said"), [("fail", 1, "::error::"), ("warn", 0, "::warning::")])
def test_the_action_does_with_an_open_question_as_it_is_told(
    undecided: str, code: int, said: str, repository: Repository
) -> None:
    answers(repository.place / "evidence/candidate.csv", 70)
    repository.commit()
    done = repository.action(recorded="false", undecided=undecided)
    assert done.returncode == code
    assert f"{said}these test images cannot tell" in done.stdout
    assert repository.outputs()["outcome"] == "undecided"


def test_the_action_passes_a_mistake_on(repository: Repository) -> None:
    repository.commit()
    done = repository.action(candidates="evidence/nowhere.csv")
    assert done.returncode == 2
    assert "neither a file nor a directory" in done.stderr
    harmless = repository.action(candidates="$(touch owned); touch owned")
    assert harmless.returncode == 2
    assert not (repository.place / "owned").exists(), "an input was run"


def test_the_action_judges_several_candidates_in_their_order(repository: Repository) -> None:
    for name, wrong in (("a b", 61), ("worse", 160)):
        answers(repository.place / f"evidence/{name}.csv", wrong)
    done = repository.action(candidates="\n  evidence/a b.csv\n\nevidence/worse.csv\n", recorded="false")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(Path(repository.outputs()["verdict"]).read_text())
    assert [(row["name"], row["outcome"]) for row in found["rows"][1:]] == [
        ("evidence/a b.csv", "pass"),
        ("evidence/worse.csv", "fail"),
    ]


def test_the_workflow_gives_the_action_what_it_takes() -> None:
    jobs = yaml.safe_load((CI / "github-action/accuracy.yml").read_text())["jobs"]
    uses = [step for job in jobs.values() for step in job["steps"] if step["uses"].startswith("./")]
    assert len(uses) == len(jobs)
    for step in uses:
        assert set(step["with"]) <= set(ACTION["inputs"])
        assert {name for name, one in ACTION["inputs"].items() if one.get("required")} <= set(step["with"])


@pytest.mark.parametrize("file", ["pre-commit-config.yaml", "gitlab-ci.yml"])
def test_the_commands_of_the_other_examples_run(file: str, repository: Repository) -> None:
    found = yaml.safe_load((CI / file).read_text())
    if file.startswith("gitlab"):
        (command,) = (line for line in found["accuracy"]["script"] if line.startswith("torchstone"))
    else:
        command = found["repos"][0]["hooks"][0]["entry"]
    words = shlex.split(command.replace(".parquet", ".csv").partition("||")[0])
    answers(repository.place / "evidence/candidate.csv", 160)
    done = repository.run(*words)
    assert done.returncode == 1, done.stdout + done.stderr
