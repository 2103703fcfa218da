"""Say what this machine can do, what is wrong with it, and how to mend it."""

from __future__ import annotations

from torchstone.cli._options import JSON


def command(json: JSON = False) -> int:
    from torchstone.cli import _answers
    from torchstone.doctor import doctor

    return _answers.findings(doctor(), json)
