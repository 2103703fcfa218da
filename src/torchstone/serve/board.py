"""Numbers that several processes count side by side, in memory that all of them see.

Each process has a slot of its own, in which it alone writes; whoever is asked adds up all slots. A number lies where it
is counted, not in a buffer that is handed over later, so a process that is killed takes nothing with it; the one that
comes in its place finds its slot as it was, and counts on.

A slot is a row of blocks. A block has a description (JSON), which says what it counts, and room.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import tempfile
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from torchstone.core import console
from torchstone.core.errors import StorageError

SIZE = 4 * 1024 * 1024
"""Bytes of a slot: 1,000 classes of three models take a tenth of it."""
_HEAD = struct.Struct("<QQ")
"""Of a block: bytes of its description and bytes of its room, both multiples of 8."""
SHARED = Path("/dev/shm")
"""Where files are memory and nothing else, on Linux."""


class Block(NamedTuple):
    """What one process has counted."""

    what: dict[str, Any]
    room: memoryview


class Board:
    """Slots in one shared piece of memory. It has no name on any disk: it is gone with the last process."""

    def __init__(self, file: int, slots: int) -> None:
        self.file = file
        self._map = mmap.mmap(file, slots * SIZE)
        self._whole = memoryview(self._map)
        self._slots = slots

    @classmethod
    def of(cls, slots: int) -> Board:
        """A new one. The memory is taken at once: a full disk is noticed here, not at the first number. Where what may
        be shared is little (64 MB in most containers), a file on the disk does as well, if more slowly."""
        try:
            try:
                return cls(_file(slots * SIZE, SHARED), slots)
            except OSError:
                return cls(_file(slots * SIZE, None), slots)
        except OSError as error:
            raise StorageError(
                f"{slots * SIZE // 2**20} MB for the server's numbers are not to be had: {error.strerror}",
                hint="free some space, or start fewer --workers",
            ) from None

    def slot(self, number: int) -> Slot:
        return Slot(self._whole[number * SIZE : (number + 1) * SIZE])

    def blocks(self) -> Iterator[tuple[int, Block]]:
        """Every block of every slot, with the slot's number."""
        for number in range(self._slots):
            for block in _blocks(self._whole[number * SIZE : (number + 1) * SIZE]):
                yield number, block


class Slot:
    """One process's part of a board, or (without one) memory of its own."""

    def __init__(self, memory: memoryview | None = None) -> None:
        self._memory = memoryview(bytearray(SIZE)) if memory is None else memory
        self._known = {_text(block.what): block.room for block in _blocks(self._memory)}
        self._full = False
        self._lock = threading.Lock()

    def block(self, size: int, **what: Any) -> memoryview:
        """The room of what is described so, at least ``size`` bytes, zero where it is new. In a slot that is full, room
        outside of it, which nobody sees."""
        text = _text(what)
        with self._lock:  # threads of one process share its slot
            if text not in self._known:
                self._known[text] = self._made(text, size + -size % 8)
            return self._known[text]

    def cells(self, count: int, **what: Any) -> memoryview[float]:
        """The same as ``count`` numbers, float64."""
        return self.block(8 * count, **what).cast("d")

    def clear_gauges(self) -> None:
        """What was so while the process lived is so no more; what it has counted stays."""
        for block in _blocks(self._memory):
            if block.what.get("kind") == "gauge":
                block.room[:] = bytes(len(block.room))

    def _made(self, text: bytes, size: int) -> memoryview:
        start = _used(self._memory)
        body = start + _HEAD.size + len(text)
        if body + size > SIZE:
            if not self._full:
                console.say("there is no room for more numbers: what is new is not shown at /metrics")
            self._full = True
            return memoryview(bytearray(size))
        self._memory[start + _HEAD.size : body] = text
        _HEAD.pack_into(self._memory, start, len(text), size)
        self._memory[:8] = (body + size).to_bytes(8, "little")  # last: from here on others see it
        return self._memory[body : body + size]


class Page:
    """A text in a block that is replaced as a whole: a reader sees the old one or the new, never half of one."""

    def __init__(self, room: memoryview) -> None:
        half = (len(room) - 8) // 16 * 8
        self._turn = room[:8]
        self._halves = (room[8 : 8 + half], room[8 + half : 8 + 2 * half])

    def write(self, text: bytes) -> bool:
        """Put ``text`` in the place of what is there; False where there is no room for it."""
        turn = 1 - self._turn[0]
        half = self._halves[turn]
        if len(text) + 8 > len(half):
            return False
        half[8 : 8 + len(text)] = text
        struct.pack_into("<II", half, 0, len(text), zlib.crc32(text))
        self._turn[0] = turn
        return True

    def read(self) -> bytes | None:
        """The text; None before the first, or where a writer was quicker twice."""
        half = self._halves[self._turn[0]]
        length, sum_ = struct.unpack_from("<II", half)
        text = bytes(half[8 : 8 + length])
        return text if length and zlib.crc32(text) == sum_ else None


def _file(size: int, directory: Path | None) -> int:
    """A file descriptor of ``size`` bytes that are there; the file has no name."""
    with tempfile.TemporaryFile(dir=directory) as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)
        return os.dup(file.fileno())


def _blocks(memory: memoryview) -> Iterator[Block]:
    place, end = 8, _used(memory)
    while place < end:
        described, size = _HEAD.unpack_from(memory, place)
        body = place + _HEAD.size + described
        yield Block(json.loads(bytes(memory[place + _HEAD.size : body])), memory[body : body + size])
        place = body + size


def _used(memory: memoryview) -> int:
    return max(8, int.from_bytes(memory[:8], "little"))


def _text(what: dict[str, Any]) -> bytes:
    """The description as it is stored, padded so that numbers behind it lie at multiples of 8 bytes."""
    text = json.dumps(what, sort_keys=True, ensure_ascii=False).encode()
    return text + b" " * (-len(text) % 8)
