"""The documents say only what is so: targets, verbs, flags, files and links that exist."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import torchstone
from torchstone.core.registry import PACKAGE

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted(
    file.relative_to(ROOT).as_posix() for file in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")] if file.is_file()
)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
COMMAND = re.compile(r"(?<!import )torchstone (?P<verb>[a-z]+)(?P<rest>[^`\n|#]*)")
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
PLACE = re.compile(r"`((?:src|tests|docs|benchmarks|\.ci|\.github)/[\w./-]+)`")

every_document = pytest.mark.parametrize("document", DOCUMENTS)


def text_of(document: str) -> str:
    """The document without the continuation of lines in its commands."""
    return (ROOT / document).read_text().replace("\\\n", " ")


def code_of(document: str) -> str:
    """What stands in code blocks and in backticks, a piece a line."""
    text = text_of(document)
    blocks = re.findall(r"```\w*\n(.*?)```", text, flags=re.DOTALL)
    return "\n".join([*blocks, *re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))])


def targets() -> set[str]:
    makefile = (ROOT / "Makefile").read_text()
    return set(re.findall(r"^([a-z][a-z-]*):", makefile, flags=re.MULTILINE))


def verbs() -> set[str]:
    files = {file.stem for file in (PACKAGE / "cli").glob("*.py") if not file.stem.startswith("_")}
    return files | set(groups())


def groups() -> dict[str, set[str]]:
    """Folders of verbs, and what is in them."""
    return {
        folder.parent.name: {file.stem for file in folder.parent.glob("*.py") if not file.stem.startswith("_")}
        for folder in (PACKAGE / "cli").glob("*/__init__.py")
    }


@functools.cache
def flags_of(*verb: str) -> set[str]:
    """The flags that ``torchstone VERB --help`` lists; of a group, GROUP VERB."""
    done = subprocess.run(
        [sys.executable, "-m", "torchstone", *verb, "--help"],
        env={**os.environ, "COLUMNS": "240", "TERM": "dumb", "NO_COLOR": "1"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return set(FLAG.findall(done.stdout))


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def test_the_documents_of_a_project_are_there() -> None:
    assert {"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/architecture.md", "docs/log.md"} <= set(DOCUMENTS)
    assert (ROOT / "LICENSE").read_text().lstrip().startswith("Apache License\n")


@every_document
def test_every_make_target_exists(document: str) -> None:
    named = set(re.findall(r"(?:^|[\s;&])make ([a-z][a-z-]*)", code_of(document), flags=re.MULTILINE))
    assert named <= targets()


@every_document
def test_every_verb_exists(document: str) -> None:
    assert {match["verb"] for match in COMMAND.finditer(code_of(document))} <= verbs()


@every_document
def test_every_flag_of_a_command_exists(document: str) -> None:
    for match in COMMAND.finditer(code_of(document)):
        verb = [match["verb"]]
        if match["verb"] in groups():
            verb += match["rest"].split()[:1]
            assert set(verb[1:]) <= groups()[match["verb"]], match[0]
        assert set(FLAG.findall(match["rest"])) <= flags_of(*verb), match[0]


def test_every_flag_in_the_table_of_run_exists() -> None:
    rows = re.search(r"\| flag of `run`.*?\n\n", text_of("README.md"), flags=re.DOTALL)
    assert rows
    named = set(FLAG.findall("\n".join(line.split("|")[1] for line in rows[0].strip().splitlines())))
    assert len(named) > 8
    assert named <= flags_of("run")


def test_every_verb_is_in_the_readme() -> None:
    assert verbs() - {match["verb"] for match in COMMAND.finditer(code_of("README.md"))} <= {"demo"}
    assert "demo" in verbs()  # make demo


def test_every_public_name_in_the_readme_exists() -> None:
    named = set(re.findall(r"\bts\.(\w+)", text_of("README.md")))
    assert named
    assert named <= set(torchstone.__all__)


@every_document
def test_every_link_resolves(document: str) -> None:
    broken = []
    for target in LINK.findall(text_of(document)):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / document).parent / path if path else ROOT / document
        headings = re.findall(r"^#+ (.*)$", file.read_text(), flags=re.MULTILINE) if anchor and file.is_file() else []
        if not file.exists() or (anchor and anchor not in map(slug, headings)):
            broken.append(target)
    assert broken == []


@every_document
def test_every_file_that_is_named_exists(document: str) -> None:
    assert [place for place in PLACE.findall(text_of(document)) if not (ROOT / place).exists()] == []


def test_every_room_is_in_the_architecture_and_in_the_layers() -> None:
    rooms = {folder.name for folder in PACKAGE.iterdir() if (folder / "__init__.py").exists()}
    described = set(re.findall(r"^\| `(\w+)` \|", text_of("docs/architecture.md"), flags=re.MULTILINE))
    assert rooms <= described
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = {
        room.strip() for contract in contracts for layer in contract.get("layers", ()) for room in layer.split("|")
    }
    assert rooms <= layers


def test_decisions_are_numbered_without_a_gap() -> None:
    records = sorted((ROOT / "docs/adr").glob("*.md"))
    assert [int(record.name[:4]) for record in records] == list(range(1, len(records) + 1))
    for number, record in enumerate(records, start=1):
        assert record.read_text().startswith(f"# {number}. ")
