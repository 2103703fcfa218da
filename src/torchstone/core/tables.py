"""The one door to polars: Parquet tables with a small JSON header, whole or not there."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchstone.core import files
from torchstone.core.errors import ArtifactError

if TYPE_CHECKING:
    import polars as pl

HEADER = "torchstone"


def frame(columns: dict[str, Any], schema: dict[str, Any] | None = None) -> pl.DataFrame:
    """A table of these columns; ``schema`` fixes their types (needed when a table may be empty)."""
    import polars as pl

    return pl.DataFrame(columns, schema_overrides=schema)


def write(path: Path, table: pl.DataFrame, header: dict[str, Any] | None = None) -> None:
    """Write Parquet (zstd), readable by pandas, DuckDB and polars; ``header`` goes into the file's metadata."""
    buffer = io.BytesIO()
    table.write_parquet(buffer, compression="zstd", metadata={HEADER: json.dumps(header or {})})
    files.write_bytes(path, buffer.getvalue())


def header(path: Path) -> dict[str, Any]:
    """The header alone, empty in a Parquet file of another origin; a missing or damaged file is an ArtifactError."""
    import polars as pl

    try:
        found = json.loads(pl.read_parquet_metadata(path).get(HEADER, "{}"))
    except (pl.exceptions.PolarsError, OSError, ValueError) as error:
        raise ArtifactError(f"'{path}' is not a readable table: {error}") from None
    return found if isinstance(found, dict) else {}


def peek(path: Path) -> tuple[int, pl.DataFrame]:
    """How many rows there are, and the first of them: what a file of another origin would take, before it is read."""
    import polars as pl

    try:
        whole = pl.scan_parquet(path)
        return whole.select(pl.len()).collect().item(), whole.head(1).collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise ArtifactError(f"'{path}' is not a readable table: {error}", hint="is it a whole Parquet file?") from None


def read(path: Path, columns: Sequence[str] | None = None) -> tuple[pl.DataFrame, dict[str, Any]]:
    """The table, or these columns of it, and its header; a missing or damaged file is an ArtifactError naming it."""
    import polars as pl

    try:
        header = json.loads(pl.read_parquet_metadata(path).get(HEADER, "{}"))
        return pl.read_parquet(path, columns=None if columns is None else list(columns)), header
    except FileNotFoundError:
        raise ArtifactError(f"'{path}' does not exist", hint="type the command that makes it again") from None
    except (pl.exceptions.PolarsError, OSError, ValueError) as error:
        raise ArtifactError(
            f"'{path}' is not a readable table: {error}", hint="delete it and type the command that made it again"
        ) from None
