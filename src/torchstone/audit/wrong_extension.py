"""Files whose extension is not that of their content."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from torchstone.audit import AuditContext
from torchstone.core.values import Finding

EXTENSIONS: dict[str, frozenset[str]] = {
    "JPEG": frozenset(("jpg", "jpeg", "jpe", "jfif", "mpo")),
    "MPO": frozenset(("mpo", "jpg", "jpeg", "jpe", "jfif")),  # a JPEG with more pictures behind it, as phones make
    "PNG": frozenset(("png", "apng")),
    "WEBP": frozenset(("webp",)),
    "GIF": frozenset(("gif",)),
    "BMP": frozenset(("bmp", "dib")),
    "TIFF": frozenset(("tif", "tiff")),
    "PPM": frozenset(("ppm", "pgm", "pbm", "pnm", "pfm")),
    "AVIF": frozenset(("avif", "avifs")),
    "JPEG2000": frozenset(("jp2", "j2k", "jpf", "jpx", "jpc", "j2c")),
}
"""Format as the catalog names it: what files of it are called."""

KNOWN = frozenset().union(*EXTENSIONS.values())


class WrongExtension:
    """torchstone goes by the content; other programs go by the name, and fail or skip the file. What is cut out of a
    picture has no extension of its own."""

    requires: ClassVar[tuple[str, ...]] = ()

    def run(self, context: AuditContext) -> list[Finding]:
        if "box_picture" in context.table.columns:
            return []
        formats = context.table["format"]
        extensions = context.table["path"].str.extract(r"\.([^./]+)$").str.to_lowercase().fill_null("")
        lies = np.zeros(len(formats), bool)
        for name in formats.unique().to_list():
            fitting = extensions.is_in(list(EXTENSIONS.get(name, KNOWN)))
            lies |= ((formats == name) & extensions.is_in(list(KNOWN)) & ~fitting).to_numpy()
        rows = np.flatnonzero(lies)
        if not len(rows):
            return []
        contents = formats.gather(rows).to_list()
        return [
            context.about(
                "wrong_extension",
                rows,
                "with the extension of another format",
                notes=contents,
                hint="rename them: what goes by the extension fails on them or passes them over",
                evidence={"formats": sorted(set(contents))},
            )
        ]
