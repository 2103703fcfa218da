"""The report: one HTML file that holds everything it shows and asks no network for anything."""

from __future__ import annotations

from pathlib import Path

from torchstone.core import files, registry
from torchstone.core.errors import MissingPackageError
from torchstone.core.run import Run


def write(run: Run) -> Path:
    """Write ``report.html`` of a judged run and return its path.

    Raises an ArtifactError when the verdict, the candidates or the catalog cannot be read; missing evidence only
    leaves its section out.
    """
    missing = registry.missing_packages(("jinja2", "matplotlib", "polars"))
    if missing:
        raise MissingPackageError("the report", missing)
    from torchstone.report.context import gather
    from torchstone.report.templates import environment

    page = environment().get_template("template.html.j2").render(page=gather(run))
    files.write_text(run.report, page)
    return run.report
