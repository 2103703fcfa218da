"""A directory of class folders: ``class/image.jpg``, or ``train/class/image.jpg`` beside ``val/…``, ``test/…``."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from torchstone.core.contracts import Listing
from torchstone.data.sources import layout
from torchstone.data.sources.trees import FolderTree


class Folder:
    """What the folders mean, ``data.sources.layout`` says. Takes any directory, so it is asked last."""

    requires: ClassVar[tuple[str, ...]] = ()
    understands: ClassVar[str] = "a folder of class folders"

    def accepts(self, root: str) -> bool:
        return Path(root).is_dir()

    def listing(self, root: str) -> Listing:
        return layout.listing(FolderTree(root))

    def image(self, root: str, path: str) -> bytes:
        return FolderTree(root).read(path)
