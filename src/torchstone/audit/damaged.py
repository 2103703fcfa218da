"""Image files with damage that their decoder passed over: part of the picture may be grey, or shifted."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from torchstone.audit import AuditContext
from torchstone.core.values import Finding


class Damaged:
    """JPEG files that decode with the decoder's own warning (``converted`` says ``recovered``). It takes the extra
    ``fast`` to notice; PNG files carry checksums, and one that does not fit makes them unreadable."""

    requires: ClassVar[tuple[str, ...]] = ()

    def run(self, context: AuditContext) -> list[Finding]:
        rows = np.flatnonzero(context.table["converted"].str.contains("recovered").to_numpy())
        if not len(rows):
            return []
        return [
            context.about(
                "damaged",
                rows,
                "can be opened although their data are damaged",
                hint="look at them: copy them again, or take them out",
                decision="review",
            )
        ]
