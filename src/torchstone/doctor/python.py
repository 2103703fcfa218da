"""Is this a Python that torchstone is tested on, in an environment of its own?"""

from __future__ import annotations

from typing import ClassVar

from torchstone.core.values import Finding
from torchstone.doctor import Machine

OLDEST, NEWEST = (3, 11), (3, 13)


class Python:
    """The interpreter's version, and whether packages installed for torchstone stay apart from the system's."""

    requires: ClassVar[tuple[str, ...]] = ()

    def run(self, context: Machine) -> list[Finding]:
        version = ".".join(map(str, context.python))
        conda = context.environ.get("CONDA_PREFIX")
        findings = []
        if not OLDEST <= context.python[:2] <= NEWEST:
            findings.append(
                Finding(
                    check="python",
                    severity="error",
                    message=f"Python {version} is not supported: 3.{OLDEST[1]} to 3.{NEWEST[1]} are",
                    hint=f"python3.{NEWEST[1]} -m venv .venv && .venv/bin/pip install 'torchstone[train]'",
                    evidence={"version": version},
                )
            )
        if not context.virtual and not conda:
            findings.append(
                Finding(
                    check="python",
                    severity="warning",
                    message=f"Python {version} is the system's own: the 100 packages that torchstone needs "
                    "change versions under other programs, and the other way round",
                    hint="python3 -m venv .venv && .venv/bin/pip install 'torchstone[train]'",
                    evidence={"version": version},
                )
            )
        if not findings:
            place = f"the conda environment '{conda}'" if conda and not context.virtual else "a virtual environment"
            findings.append(
                Finding(
                    check="python",
                    severity="info",
                    message=f"Python {version} in {place}",
                    evidence={"version": version},
                )
            )
        return findings
