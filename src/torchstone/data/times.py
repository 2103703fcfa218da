"""When an image was taken."""

from __future__ import annotations

import re
from datetime import datetime

_SHORT = re.compile(r"\d{4}(-\d{2})?")


def moment(text: str) -> datetime:
    """A time in ISO 8601, with a zone or without; a day, a month or a year alone is its beginning. A ValueError for any
    other text."""
    return datetime.fromisoformat(text + "-01-01"[3 * text.count("-") :] if _SHORT.fullmatch(text) else text)
