"""What class folders stand for, where a file beside them says so: ``n01440764`` is a tench.

Read are ImageNet's own files and a ``classes.txt``: either the folders' names, a line each, in the order of the labels,
or in each line a folder and, after a space, a tab or a comma, what it is called.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from torchstone.core.errors import DataError
from torchstone.core.values import Finding
from torchstone.data.findings import ITEMS_NAMED, count_of, name_a_few
from torchstone.data.sources import texts
from torchstone.data.sources.trees import Tree

FILES = ("classes.txt", "LOC_synset_mapping.txt", "synset_words.txt", "words.txt", "imagenet_class_index.json")

MAX_NAMES = 64 * 2**20
"""Bytes of a file of names; WordNet's own list of all its nouns has 2.6 million."""


@dataclass(frozen=True)
class Naming:
    """The class folders in the order of their labels, and what to call them."""

    folders: Sequence[str]
    classes: Sequence[str]
    file: str | None = None
    findings: tuple[Finding, ...] = ()


def naming(tree: Tree, folders: Sequence[str]) -> Naming:
    """What the first file that speaks of these folders says of them; their own names where there is none."""
    for file in FILES:
        if not tree.holds(file):
            continue
        lines = _lines(tree, file)
        if set(folders) == set(lines):
            return Naming(lines, lines, file)
        pairs = (re.split(r"[\s,]+", line, maxsplit=1) for line in lines)
        called = {pair[0]: pair[1].strip() for pair in pairs if len(pair) == 2 and pair[1].strip()}
        if set(called) & set(folders):
            return _named(folders, called, file)
    return Naming(folders, folders)


def _lines(tree: Tree, file: str) -> list[str]:
    content = tree.read(file, MAX_NAMES)
    if not file.endswith(".json"):
        return texts.lines(content, file)
    hint = 'its form is {"0": ["n01440764", "tench"], …}; or take it away'
    rows = texts.json_value(texts.text(content, file), f"'{file}'", hint)
    try:
        return [f"{folder} {name}" for folder, name in rows.values()]
    except (ValueError, AttributeError, TypeError):
        raise DataError(f"'{file}' does not name classes", hint=hint) from None


def _named(folders: Sequence[str], called: dict[str, str], file: str) -> Naming:
    """The first of each folder's synonyms, with the folder where two classes would have one name (ImageNet has two
    cranes: a bird and a machine)."""
    first = [called.get(folder, folder).partition(",")[0].strip() for folder in folders]
    count = Counter(first)
    classes = [name if count[name] == 1 else f"{name} ({folder})" for name, folder in zip(first, folders, strict=True)]
    unnamed = [folder for folder in folders if folder not in called]
    if not unnamed:
        return Naming(folders, classes, file)
    finding = Finding(
        check="names",
        severity="info",
        message=f"{count_of(len(unnamed), 'class')} not named in '{file}': {name_a_few(unnamed)}",
        hint="add them to it; until then they go by their folders",
        items=tuple(unnamed[:ITEMS_NAMED]),
        evidence={"classes": len(unnamed)},
    )
    return Naming(folders, classes, file, (finding,))
