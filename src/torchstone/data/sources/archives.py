"""Archives read in place: zip, tar, and tar compressed by gzip or bzip2. No member is ever extracted to its name.

A zip file and a plain tar file give each member by its offset. A compressed tar file has no such offsets: it is
decompressed once into a temporary file that has no name, up to a limit. All reads name their offset (``pread``), so
that threads and forked processes share one open file.
"""

from __future__ import annotations

import bz2
import errno
import gzip
import itertools
import os
import shutil
import stat
import struct
import tarfile
import tempfile
import weakref
import zipfile
import zlib
from collections.abc import Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from torchstone.core.errors import DataError, StorageError
from torchstone.core.values import Finding
from torchstone.data.findings import ITEMS_NAMED, count_of, name_a_few
from torchstone.data.sources.trees import LEFT_BY_ARCHIVERS, MAX_FILE, Entry, Kind, is_safe, is_text, join, too_large

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".zip")

MOST_EXPANSION = 100
"""Times its own size that a compressed tar file may grow to. Folders of tiny images reach about 10, for tar pads each
member to 512 bytes; gzip can announce 1,000."""

ALWAYS_ALLOWED = 2**30
"""Bytes that any archive may grow to."""

LONGEST_NAME = 4096
DEEPEST_NAME = 64
MAX_HEADER = 2**20
"""Bytes that one header of a tar file may have: some hold long names, none needs more."""

DEFLATED = zipfile.ZIP_DEFLATED
BLOCK = 2**20


class Member(NamedTuple):
    """Where a member's content lies."""

    offset: int
    """In zip files, of its local header."""
    size: int
    packed: int
    method: int = zipfile.ZIP_STORED
    crc: int | None = None
    encrypted: bool = False


class ArchiveTree:
    """The folder in an archive. Folders that hold nothing but one folder are passed through: ``flowers.tar`` with
    ``flowers/rose/1.jpg`` reads like the folder ``flowers``."""

    def __init__(self, root: str) -> None:
        self.root = root
        path = Path(root)
        hint = "copy or download it again"
        try:
            with path.open("rb") as file:
                self._is_zip = _starts_with(file, b"PK")
                with file if self._is_zip else _tar_file(file, path) as unpacked:
                    index = _Index(_zip_members(unpacked) if self._is_zip else _tar_members(unpacked))
                    self._bytes = _Bytes(unpacked)
        except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, struct.error) as error:
            raise DataError(f"'{root}' is damaged: {error or 'it ends early'}", hint=hint) from None
        except (ValueError, NotImplementedError, RecursionError, OverflowError) as error:
            # zipfile and tarfile let through what their parsing ran into
            raise DataError(f"'{root}' is no archive that can be read: {error}", hint=hint) from None
        self._members, self._folders = index.members, index.folders
        self.noticed = tuple(index.findings())
        self._prefix = self._wrapping_folder()

    def entries(self, folder: str) -> Iterable[Entry]:
        contents = self._folders.get(self._full(folder))
        if contents is None:
            raise DataError(f"'{self.root}' holds no folder '{folder}'")
        return itertools.starmap(Entry, contents.items())

    def identity(self, folder: str) -> Hashable:
        return folder

    def holds(self, path: str) -> bool:
        return self._full(path) in self._members

    def read(self, path: str, limit: int = MAX_FILE) -> bytes:
        member = self._members.get(self._full(path))
        if member is None:
            raise FileNotFoundError(errno.ENOENT, f"no such member in '{self.root}'", path)
        if member.encrypted:
            raise DataError(f"'{path}' is encrypted in '{self.root}'", hint="unpack it with its password")
        if max(member.size, member.packed) > limit:
            raise too_large(path, limit)
        if not self._is_zip:
            return self._bytes.at(member.offset, member.size)
        return _zip_content(self._bytes, member, path)

    def files(self, paths: Iterable[str]) -> Sequence[str]:
        return [self.root]

    def _full(self, path: str) -> str:
        return join(self._prefix, path) if path else self._prefix

    def _wrapping_folder(self) -> str:
        folder = ""
        while True:
            shown = [
                (name, kind)
                for name, kind in self._folders.get(folder, {}).items()
                if not name.startswith(".") and name != LEFT_BY_ARCHIVERS
            ]
            if len(shown) != 1 or shown[0][1] != "folder":
                return folder
            folder = join(folder, shown[0][0])


class _Index:
    """The members by name, as folders; of two with one name the last counts, as when tar extracts them."""

    def __init__(self, found: Iterable[tuple[str, Member | None]]) -> None:
        """``found``: a name and its content; a name that ends in ``/`` is a folder, None is what has no content."""
        self.members: dict[str, Member] = {}
        self.folders: dict[str, dict[str, Kind]] = {"": {}}
        self._unsafe: list[str] = []
        self._repeated: list[str] = []
        for name, member in found:
            path = "/".join(piece for piece in name.split("/") if piece not in ("", "."))
            if not is_safe(name) or len(path) > LONGEST_NAME or path.count("/") >= DEEPEST_NAME:
                self._unsafe.append(name)
            elif not path:
                continue
            elif name.endswith("/"):
                self._folder(path)
            elif member is None:
                self._entry(path, "other")
            else:
                if path in self.members:
                    self._repeated.append(path)
                self.members[path] = member
                self._entry(path, "file")

    def findings(self) -> Iterator[Finding]:
        if self._unsafe:
            yield Finding(
                check="archive",
                severity="warning",
                message=f"{count_of(len(self._unsafe), 'member')} left out, whose name leads out of the archive: "
                f"{name_a_few(map(_shown, self._unsafe))}",
                hint="no honest tool writes such names: ask where the archive comes from",
                items=tuple(map(_shown, self._unsafe[:ITEMS_NAMED])),
                evidence={"members": len(self._unsafe)},
            )
        if self._repeated:
            yield Finding(
                check="archive",
                severity="warning",
                message=f"{count_of(len(self._repeated), 'name')} standing more than once in the archive; the last "
                f"member of each is read: {name_a_few(map(_shown, self._repeated))}",
                hint="pack it again from a folder",
                items=tuple(map(_shown, self._repeated[:ITEMS_NAMED])),
                evidence={"names": len(self._repeated)},
            )

    def _entry(self, path: str, kind: Kind) -> None:
        folder, _, name = path.rpartition("/")
        contents = self._folder(folder)
        if contents.get(name) != "folder":
            contents[name] = kind

    def _folder(self, path: str) -> dict[str, Kind]:
        if path not in self.folders:
            above, _, name = path.rpartition("/")
            self._folder(above)[name] = "folder"
            self.folders[path] = {}
        return self.folders[path]


class _Bytes:
    """An open file that is read by offset, by several threads and forked processes at once."""

    def __init__(self, file: IO[bytes]) -> None:
        self._descriptor = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._descriptor)

    def at(self, offset: int, size: int) -> bytes:
        pieces = []
        while size > 0 and (piece := os.pread(self._descriptor, size, offset)):
            pieces.append(piece)
            offset, size = offset + len(piece), size - len(piece)
        if size > 0:
            raise DataError("the archive ends within this member", hint="copy or download it again")
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def is_archive(path: Path) -> bool:
    """By its suffix (then a damaged one is told so), or by its content."""
    if not path.is_file():
        return False
    if path.name.lower().endswith(SUFFIXES):
        return True
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except OSError:
        return False
    return start.startswith(b"PK\x03\x04") or start[257:262] == b"ustar"


def _zip_members(file: IO[bytes]) -> Iterator[tuple[str, Member | None]]:
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            name = info.filename if "/" in info.filename else info.filename.replace("\\", "/")
            if stat.S_ISLNK(info.external_attr >> 16):
                yield name, None
                continue
            encrypted = bool(info.flag_bits & 1)
            packed = (info.compress_size, info.compress_type, info.CRC, encrypted)
            yield name, Member(info.header_offset, info.file_size, *packed)


def _zip_content(file: _Bytes, member: Member, path: str) -> bytes:
    """A member's bytes, checked by their CRC. Never more than announced is decompressed."""
    signature, name_size, extra_size = struct.unpack("<4s22xHH", file.at(member.offset, 30))
    if signature != b"PK\x03\x04":
        raise DataError(f"the archive has no member where it says '{path}' is", hint="copy or download it again")
    packed = file.at(member.offset + 30 + name_size + extra_size, member.packed)
    if member.method == zipfile.ZIP_STORED:
        content = packed
    elif member.method == DEFLATED:
        try:
            content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, member.size + 1)
        except zlib.error as error:
            raise DataError(f"'{path}' is damaged in the archive: {error}", hint="copy it again") from None
    else:
        raise DataError(f"'{path}' is compressed by method {member.method}", hint="pack it with deflate, or unpack it")
    if len(content) != member.size or zlib.crc32(content) != member.crc:
        raise DataError(f"'{path}' is damaged in the archive: size or checksum differ", hint="copy it again")
    return content


def _tar_members(file: IO[bytes]) -> Iterator[tuple[str, Member | None]]:
    """Hard links give the content of the member that they name."""
    by_name: dict[str, Member] = {}
    size = os.fstat(file.fileno()).st_size
    with tarfile.open(fileobj=_Headers(file), mode="r:", errorlevel=0) as archive:  # type: ignore[arg-type]
        while (info := archive.next()) is not None:
            archive.members = []  # tarfile would keep a kilobyte a member
            if info.isdir():
                yield info.name + "/", None
            elif info.isreg() and not info.issparse():
                if info.offset_data + info.size > size:
                    raise EOFError("it ends early")
                by_name[info.name] = Member(info.offset_data, info.size, info.size)
                yield info.name, by_name[info.name]
            else:
                yield info.name, by_name.get(info.linkname) if info.islnk() else None
        # tarfile takes whatever is no header for the end; tar ends with blocks of zeros.
        file.seek(archive.offset)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise EOFError(f"after {archive.offset:,} bytes it goes on with neither a member nor an end")


class _Headers:
    """A tar file for tarfile, which skips the contents and would read a header of any announced size."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell
        self.seek(0)

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MAX_HEADER:
            raise tarfile.ReadError(f"a header announces {size:,} bytes")
        return self._file.read(size)


def _tar_file(file: IO[bytes], path: Path) -> IO[bytes]:
    """The file itself, or a temporary one with its decompressed content, which is gone with the last who reads it."""
    if _starts_with(file, b"\x1f\x8b"):
        unpacking: IO[bytes] = gzip.GzipFile(fileobj=file)  # type: ignore[assignment]
    elif _starts_with(file, b"BZh"):
        unpacking = bz2.BZ2File(file)
    else:
        return file
    place = tempfile.gettempdir()
    packed, free = path.stat().st_size, shutil.disk_usage(place).free
    allowed = max(ALWAYS_ALLOWED, MOST_EXPANSION * packed)
    hint = "unpack it, or pack it as .zip or .tar"
    unpacked = tempfile.TemporaryFile(prefix="torchstone-")  # noqa: SIM115 - the caller closes it
    size = 0
    try:
        while block := unpacking.read(BLOCK):
            size += len(block)
            if size > allowed:
                times = f"more than {MOST_EXPANSION} times its size" if allowed > ALWAYS_ALLOWED else "more than 1 GiB"
                raise DataError(f"'{path}' decompresses to {times}: a decompression bomb?", hint=f"if not, {hint}")
            if size > free:
                raise StorageError(f"'{path}' decompressed does not fit into '{place}'", hint=f"{hint}, or set TMPDIR")
            unpacked.write(block)
        unpacked.flush()
    except BaseException as error:
        unpacked.close()
        if isinstance(error, gzip.BadGzipFile | EOFError) or (isinstance(error, OSError) and error.errno is None):
            raise DataError(f"'{path}' is damaged: {error}", hint="copy or download it again") from None
        raise
    return unpacked


def _starts_with(file: IO[bytes], magic: bytes) -> bool:
    file.seek(0)
    start = file.read(len(magic))
    file.seek(0)
    return start == magic


def _shown(name: str) -> str:
    short = name if len(name) <= 100 else name[:97] + "…"
    return short if is_text(short) else ascii(short)
