"""Images that had to be converted to be read: turned, laid on white, reduced to 8 bits, to RGB or to one frame."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from torchstone.audit import AuditContext
from torchstone.core.values import Finding
from torchstone.data.preprocess import Conversion

TEXTS: dict[Conversion, tuple[str, str]] = {
    "exif-rotated": (
        "turned upright, as their EXIF data ask for",
        "other programs may ignore the tag: check that what serves the model does not",
    ),
    "alpha": ("with transparent pixels, which were laid on white", "what should stand behind them?"),
    "16-bit": (
        "with 16 bits a channel, of which the upper 8 were kept",
        "look at them: values that use a part of the range only come out dark; scale them first",
    ),
    "cmyk": (
        "in CMYK, converted to RGB without a colour profile",
        "colours can be far off: convert them with their profile",
    ),
    "animated": ("with several frames, of which the first was taken", "are these videos? Cut out what should count"),
}
"""What is said of each conversion, and what to do; of ``recovered`` the check ``damaged`` speaks."""


class Converted:
    """One finding for each kind of conversion."""

    requires: ClassVar[tuple[str, ...]] = ()

    def run(self, context: AuditContext) -> list[Finding]:
        conversions = context.table["converted"]
        found = []
        for kind, (text, hint) in TEXTS.items():
            rows = np.flatnonzero(conversions.str.contains(kind, literal=True).to_numpy())
            if len(rows):
                found.append(
                    context.about("converted", rows, text, severity="info", hint=hint, evidence={"kind": kind})
                )
        return found
