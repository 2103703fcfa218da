"""``torchstone steps``: what a chain can be made of, read from the steps themselves."""

from __future__ import annotations

import json

import pytest

from torchstone.cli import _steps
from torchstone.core import registry
from torchstone.core.errors import ConfigError


def test_every_step_has_a_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert _steps.steps(None, json=False) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(registry.steps.names())
    assert all(len(line) > _steps.WIDTH + 20 and "`" not in line for line in lines)


@pytest.mark.parametrize("name", registry.steps.names())
def test_every_option_is_explained(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _steps.steps(name, json=True) == 0
    (row,) = json.loads(capsys.readouterr().out).values()
    fields = set(registry.steps.get(name).Config.model_fields) - {"schema_version"}
    assert set(row["options"]) == fields
    assert all(option["description"] for option in row["options"].values())


def test_a_step_that_there_is_not() -> None:
    with pytest.raises(ConfigError, match="prun"):
        _steps.steps("prun", json=False)
