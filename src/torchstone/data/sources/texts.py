"""Text from outside: UTF-8 or refused, so that whatever is taken from it can be printed and stored."""

from __future__ import annotations

import json
import re
from typing import Any

from torchstone.core.errors import DataError


def text(content: bytes, where: str) -> str:
    """Without a byte order mark; a DataError where it is not UTF-8."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"'{where}' is not UTF-8 text: {error.reason}", hint="save it as UTF-8") from None


def lines(content: bytes, where: str) -> list[str]:
    """The lines that are not empty, without what surrounds them."""
    return [line.strip() for line in text(content, where).splitlines() if line.strip()]


def number_of(name: str, count: int) -> int | None:
    """The number in ``00012.png``, None where it is no name of one of ``count`` images that lie in one file."""
    found = re.fullmatch(r"([0-9]{1,12})\.png", name)
    number = int(found[1]) if found else count
    return number if number < count else None


def json_value(written: str, where: str, hint: str) -> Any:
    """What a JSON text holds; a DataError where it is none, or holds half a character (a lone surrogate)."""
    try:
        value = json.loads(written)
        if "\\ud" in written or "\\uD" in written:
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is no JSON: {error}", hint=hint) from None
    return value
