"""The command line: one file a verb, one folder of files a group of verbs. Files that begin with an underscore are
shared by several."""

from __future__ import annotations

import ast
import functools
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from torchstone.core.interrupts import CODE, INTERRUPTED

HERE = Path(__file__).parent
ORDER = (
    "demo", "doctor", "audit", "data", "augment", "recipes", "models", "train", "search",
    "import", "evaluate", "profile", "steps", "compress", "judge", "run", "verify", "serve", "load", "rollout",
)  # fmt: skip
EXIT_CODES = """Exit codes: 0 pass, clean, or 'not worth it'; 1 fail, a mismatch, an error-level finding; 2 a mistake
in what was asked; 3 undecided or void; 70 a bug of torchstone; 130 interrupted."""


class Verbs(TyperGroup):
    """Lists the verbs by their files and imports one only when it is called, so that ``--help`` stays quick."""

    folder = HERE
    """Where the verbs of this group lie."""

    def list_commands(self, ctx: Any) -> list[str]:
        found = [file.stem for file in self.folder.glob("*.py") if not file.stem.startswith("_")]
        found += [file.parent.name for file in self.folder.glob("*/__init__.py")]
        return sorted(found, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """What the list of verbs shows of one: its file's first line."""
        if cmd_name not in self.list_commands(ctx):
            return None
        place = self.folder / cmd_name
        file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
        summary = ast.get_docstring(ast.parse(file.read_text())) or ""
        return TyperCommand(cmd_name, help=summary.split("\n\n")[0].replace("\n", " "))

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[Any, Any, list[str]]:
        name, *rest = args
        if name not in self.list_commands(ctx):
            from torchstone.core.errors import nearest

            ctx.fail(f"no verb '{name}'; {nearest(name, self.list_commands(ctx))}")
        place = self.folder / name
        module = importlib.import_module(".".join(("torchstone.cli", *place.relative_to(HERE).parts)))
        if place.is_dir():
            return name, group(name, place, module.__doc__), rest
        app = typer.Typer(add_completion=False, rich_markup_mode=None)
        app.command(name, help=module.__doc__)(guarded(module.command))
        return name, typer.main.get_command(app), rest


def group(name: str, folder: Path, help: str | None) -> Verbs:
    """The verbs of a folder inside this one."""
    found = Verbs(name=name, help=help, no_args_is_help=True, rich_markup_mode=None)
    found.folder = folder
    return found


app = typer.Typer(
    cls=Verbs,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    help=f"From a folder of images to a classifier in production, with every claim proven.\n\n{EXIT_CODES}",
)


@app.callback(invoke_without_command=True)
def _version(version: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"torchstone {installed('torchstone')}")
        raise typer.Exit


def main() -> None:
    """Entry point of the command ``torchstone``."""
    try:
        app(prog_name="torchstone")
    except KeyboardInterrupt:  # before a verb has begun
        sys.exit(CODE)


def guarded(verb: Callable[..., int]) -> Callable[..., None]:
    """``verb``, ending in its exit code: two lines for what the user can mend, a traceback for what only we can."""

    @functools.wraps(verb)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            code = verb(*args, **kwargs)
            sys.stdout.flush()
        except BrokenPipeError:  # who read the answer has read enough, as 'head' does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = 128 + signal.SIGPIPE
        except KeyboardInterrupt as stopped:
            _complain(str(stopped) or INTERRUPTED)
            code = CODE
        except Exception as error:
            code = _explain(error)
        raise typer.Exit(code)

    return run


def _explain(error: Exception) -> int:
    from torchstone.core.errors import TorchstoneError, from_os_error

    known = from_os_error(error) if isinstance(error, OSError) else error
    if isinstance(known, TorchstoneError):
        _complain(f"error: {known}")
        return known.exit_code
    traceback.print_exception(error)
    _complain(f"error: this is a bug of torchstone ({type(error).__name__}); please report it with the lines above")
    return 70


def _complain(message: str) -> None:
    print(message, file=sys.stderr)  # noqa: T201
