"""Do the installed versions fit each other? What ``pip check`` asks, and whether torchstone's extras are new enough."""

from __future__ import annotations

from collections import Counter
from typing import ClassVar

from torchstone.core.values import Finding
from torchstone.doctor import Machine, Package


class Conflicts:
    """Every requirement of every installed package against the versions that are there."""

    requires: ClassVar[tuple[str, ...]] = ()

    def run(self, context: Machine) -> list[Finding]:
        try:
            import packaging.utils
        except ImportError:
            return [
                Finding(
                    check="conflicts",
                    severity="info",
                    message=f"the requirements of {len(context.packages)} packages were not compared: "
                    "'packaging' is missing",
                    hint="pip install packaging",
                )
            ]
        versions: dict[str, str] = {
            packaging.utils.canonicalize_name(package.name): package.version for package in context.packages
        }
        findings = [
            _finding(package, *problem) for package in context.packages for problem in _problems(package, versions)
        ]
        names = Counter(packaging.utils.canonicalize_name(package.name) for package in context.packages)
        findings += [
            Finding(
                check="conflicts",
                severity="warning",
                message=f"{name} is installed {count} times on this path; which one is imported depends on its order",
                hint=f"pip uninstall -y {name} && pip install {name}",
                evidence={"package": name, "copies": count},
            )
            for name, count in names.items()
            if count > 1
        ]
        return findings or [
            Finding(
                check="conflicts",
                severity="info",
                message=f"the versions of {len(context.packages)} installed packages fit each other",
                evidence={"packages": len(context.packages)},
            )
        ]


def _problems(package: Package, versions: dict[str, str]) -> list[tuple[str, str | None]]:
    """(requirement, installed version or None) of each requirement that is not met.

    torchstone's own extras are looked at too, as far as their packages are installed: pip forgets them.
    """
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name

    own = canonicalize_name(package.name) == "torchstone"
    found = []
    for text in package.requires:
        try:
            requirement = Requirement(text)
        except InvalidRequirement:  # very old metadata; pip ignores it too
            continue
        optional = requirement.marker is not None and not requirement.marker.evaluate({"extra": ""})
        if optional and not own:
            continue
        version = versions.get(canonicalize_name(requirement.name))
        if version is None and not optional:
            found.append((_plain(requirement), None))
        elif version is not None and not requirement.specifier.contains(version, prereleases=True):
            found.append((_plain(requirement), version))
    return found


def _plain(requirement: object) -> str:
    """The requirement without its environment marker."""
    return str(requirement).partition(";")[0].strip()


def _finding(package: Package, requirement: str, version: str | None) -> Finding:
    own = package.name.lower() == "torchstone"
    there = "it is not installed" if version is None else f"{version} is installed"
    return Finding(
        check="conflicts",
        severity="error" if own else "warning",
        message=f"{package.name} {package.version} needs {requirement}, but {there}",
        hint=f"pip install '{requirement}'",
        evidence={"package": package.name, "requirement": requirement, "installed": version},
    )
