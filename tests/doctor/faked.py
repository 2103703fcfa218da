"""A machine with nothing wrong, for what is then broken."""

from __future__ import annotations

import dataclasses
from typing import Any

from torchstone.core import registry
from torchstone.core.values import Finding
from torchstone.doctor import Machine


def examine(check: str, machine: Machine, **changes: Any) -> list[Finding]:
    return registry.machine_checks.get(check).run(dataclasses.replace(machine, **changes))


def only(findings: list[Finding], severity: str) -> Finding:
    found = [finding for finding in findings if finding.severity == severity]
    assert len(found) == 1, findings
    return found[0]


def mapped(*libraries: str) -> str:
    return "".join(f"7f00-7f01 r-xp 00000000 08:01 12345    {library}\n" for library in libraries)
