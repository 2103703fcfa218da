"""A ``.zip``, ``.tar``, ``.tar.gz`` or ``.tar.bz2`` of class folders, read in place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from torchstone.core.contracts import Listing
from torchstone.data.sources import archives, layout, trees


class Archive:
    """Reads like the directory that was packed (``data.sources.layout``), its items included."""

    requires: ClassVar[tuple[str, ...]] = ()
    understands: ClassVar[str] = "a .zip or .tar[.gz] of one"

    def accepts(self, root: str) -> bool:
        return archives.is_archive(Path(root))

    def listing(self, root: str) -> Listing:
        return replace(layout.listing(trees.tree(root)), files=(root,))

    def image(self, root: str, path: str) -> bytes:
        return trees.tree(root).read(path)
