"""Answers in this process's memory: bounded by bytes, the one that was asked for longest ago leaves first."""

from __future__ import annotations

from collections import OrderedDict

OVERHEAD = 240
"""Bytes that an entry takes beside its key and value: two objects, a place in the table, two links."""


class MemoryCache:
    """A cache (``values.Cache``) for one event loop."""

    def __init__(self, limit: int) -> None:
        """``limit`` is in bytes, of all that is kept."""
        self._limit = limit
        self._kept: OrderedDict[bytes, bytes] = OrderedDict()
        self.size = 0
        self.hits = self.misses = self.errors = 0

    async def get(self, key: bytes) -> bytes | None:
        value = self._kept.get(key)
        if value is None:
            self.misses += 1
            return None
        self.hits += 1
        self._kept.move_to_end(key)
        return value

    async def put(self, key: bytes, value: bytes) -> None:
        """Keep ``value``, unless it alone is larger than all that may be kept."""
        before = self._kept.pop(key, None)
        if before is not None:
            self.size -= _bytes(key, before)
        if _bytes(key, value) > self._limit:
            return
        self._kept[key] = value
        self.size += _bytes(key, value)
        while self.size > self._limit:
            self.size -= _bytes(*self._kept.popitem(last=False))

    async def close(self) -> None:
        self._kept.clear()
        self.size = 0


def _bytes(key: bytes, value: bytes) -> int:
    return len(key) + len(value) + OVERHEAD
