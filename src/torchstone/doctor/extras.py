"""Which of torchstone's optional parts are installed, and how to get the others."""

from __future__ import annotations

from typing import ClassVar

from torchstone.core.errors import EXTRAS_OF_PACKAGE
from torchstone.core.values import Finding
from torchstone.doctor import Machine

WITHOUT = {
    "judge": "nothing can be evaluated or judged",
    "train": "nothing can be trained, compressed or exported",
    "openvino": "there are no OpenVINO candidates, the fastest on most Intel CPUs",
    "serve": "'torchstone serve' cannot answer over HTTP",
    "litert": "no TensorFlow Lite file can be opened",
    "tflite": "no model can be exported to TensorFlow Lite",
    "tensorrt": "no TensorRT engine can be built for this machine's GPU",
    "lite": "--weights lite0, lite1 and lite2 (ImageNet weights) are not there",
    "search": "'torchstone search' cannot look for a better recipe",
    "track": "--track cannot keep the curves of a training in these tools",
    "fast": "JPEGs are decoded by Pillow alone: more slowly, and some damage is not noticed",
}


class Extras:
    """Each extra of pyproject.toml: its packages counted, without importing them. One is begun, and worth a warning,
    where a package is there that no complete extra has brought."""

    requires: ClassVar[tuple[str, ...]] = ()

    def run(self, context: Machine) -> list[Finding]:
        findings = []
        installed = {package for package in EXTRAS_OF_PACKAGE if context.importable(package)}
        names = sorted({extra for extras in EXTRAS_OF_PACKAGE.values() for extra in extras})
        members = {
            extra: [package for package, extras in EXTRAS_OF_PACKAGE.items() if extra in extras] for extra in names
        }
        brought = {package for packages in members.values() if installed.issuperset(packages) for package in packages}
        for extra, packages in members.items():
            missing = [package for package in packages if package not in installed]
            there = len(packages) - len(missing)
            begun = not brought.issuperset(installed.intersection(packages))
            count = f"the extra '{extra}': {there} of {len(packages)} packages installed"
            evidence = {"extra": extra, "installed": there, "missing": missing}
            if not missing:
                findings.append(Finding(check="extras", severity="info", message=count, evidence=evidence))
                continue
            findings.append(
                Finding(
                    check="extras",
                    severity="warning" if begun else "info",
                    message=f"{count}; missing: {', '.join(missing)}. Without them {WITHOUT[extra]}",
                    hint=f"pip install 'torchstone[{extra}]'",
                    evidence=evidence,
                )
            )
        return findings
