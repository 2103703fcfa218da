"""Say what this machine can do, what is wrong with it, and how to mend it."""

from __future__ import annotations

from torchstone.cli._options import JSON


def command(json: JSON = False) -> int:
    from torchstone import doctor
    from torchstone.cli import _answers

    _answers.prepare(json)
    return _answers.findings(doctor.doctor(), json)
