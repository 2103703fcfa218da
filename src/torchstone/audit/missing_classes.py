"""Classes that have no image, altogether or in one of the parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torchstone.audit import AuditContext
from torchstone.core.values import Finding
from torchstone.data.findings import count_of, name_a_few

WHY = {
    "train": "a model never learns them, and the images of the other parts can only be wrong",
    "val": "choices are made without them",
    "test": "nothing can be said of them",
}
"""What follows from a class that is not in a part."""


class MissingClasses:
    """Looks at the parts that the source brings: torchstone's own have an image of each class."""

    requires: ClassVar[tuple[str, ...]] = ()

    def run(self, context: AuditContext) -> list[Finding]:
        labels, classes = context.table["label"], context.catalog.classes
        everywhere = _without(labels.unique().to_list(), classes)
        found = []
        if everywhere:
            found.append(
                Finding(
                    check="missing_classes",
                    severity="error",
                    message=f"{count_of(len(everywhere), 'class')} without any usable image: {name_a_few(everywhere)}",
                    hint="add images, or take the class away",
                    evidence={"classes": everywhere},
                )
            )
        parts = context.table["part"]
        for part, why in WHY.items():
            there = labels.filter(parts == part)
            lacking = [name for name in _without(there.unique().to_list(), classes) if name not in everywhere]
            if len(there) and lacking:
                found.append(
                    Finding(
                        check="missing_classes",
                        severity="error" if part == "train" else "warning",
                        message=f"{count_of(len(lacking), 'class')} without an image in the source's {part} part: "
                        f"{name_a_few(lacking)}",
                        hint=f"{why}: add images, or divide the source again",
                        evidence={"part": part, "classes": lacking},
                    )
                )
        return found


def _without(labels: Sequence[int], classes: Sequence[str]) -> list[str]:
    there = set(labels)
    return [name for label, name in enumerate(classes) if label not in there]
