"""Broken image files, made from real ones: what a download that stopped, a disk that fails or an attacker leaves."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
from PIL import Image, ImageChops, features

FLIPS = 26
CUTS = 13
"""Files of each kind with flipped bits, and cut off."""

SAVED: dict[str, tuple[str, dict[str, object]]] = {
    "baseline.jpg": ("JPEG", {"quality": 85}),
    "progressive.jpg": ("JPEG", {"quality": 85, "progressive": True}),
    "grey.jpg": ("JPEG", {"quality": 70}),
    "rgb.png": ("PNG", {}),
    "alpha.png": ("PNG", {}),
    "palette.png": ("PNG", {}),
    "lossy.webp": ("WEBP", {"quality": 80}),
    "lossless.webp": ("WEBP", {"lossless": True}),
    "plain.gif": ("GIF", {}),
    "plain.bmp": ("BMP", {}),
    "raw.tiff": ("TIFF", {}),
    "lzw.tiff": ("TIFF", {"compression": "tiff_lzw"}),
    "plain.avif": ("AVIF", {"quality": 70}),
    "plain.jp2": ("JPEG2000", {}),
}
"""Kinds of files, by the name they are given."""


def originals(photo: Image.Image) -> dict[str, bytes]:
    """One sound file of each kind, of about 96 × 64 pixels."""
    small = photo.resize((96, 64))
    modes = {"grey.jpg": "L", "alpha.png": "RGBA", "palette.png": "P"}
    codecs = {"AVIF": "avif", "JPEG2000": "jpg_2000", "WEBP": "webp"}
    found = {}
    for name, (kind, options) in SAVED.items():
        if kind in codecs and not features.check(codecs[kind]):
            continue
        image = small.convert(modes.get(name, "RGB"))
        if name == "alpha.png":
            image.putalpha(ImageChops.invert(small.convert("L")))
        found[name] = saved(image, kind, **options)
    return found


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def flipped(sound: dict[str, bytes], each: int = FLIPS, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """``each`` files of each kind with 1 to 30 bits turned over, anywhere."""
    chance = random.Random(seed)
    for name, content in sound.items():
        for number in range(each):
            broken = bytearray(content)
            for _ in range(chance.choice((1, 1, 3, 10, 30))):
                place = chance.randrange(8 * len(broken))
                broken[place // 8] ^= 1 << place % 8
            yield f"flipped-{number:02d}-{name}", bytes(broken)


def unusable(sound: dict[str, bytes], seed: int = 1) -> Iterator[tuple[str, bytes]]:
    """Files of which nobody should get an image: cut off, announcing what they do not hold, or no images at all."""
    chance = random.Random(seed)
    for name, content in sound.items():
        for number in range(CUTS):
            yield f"cut-{number:02d}-{name}", content[: int(len(content) * (number + chance.random() / 2) / CUTS)]
    for number in range(10):
        yield f"noise-{number}.jpg", b"\xff\xd8\xff\xe0" + chance.randbytes(3000)
        yield f"noise-{number}.png", PNG + chance.randbytes(3000)
        yield f"noise-{number}.webp", chance.randbytes(2000)
    yield from _no_images()
    yield from _too_large(sound)
    yield from _bombs(sound)


def _no_images() -> Iterator[tuple[str, bytes]]:
    yield "empty.jpg", b""
    yield "page.jpg", b"<!DOCTYPE html><html><body>404 Not Found</body></html>"
    yield "drawing.png", b'<svg xmlns="http://www.w3.org/2000/svg"><image href="/etc/passwd"/></svg>'
    yield "script.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(/tmp/pwned) (w) file\nshowpage\n"
    yield "document.png", b"%PDF-1.7\n1 0 obj\n<< /Type /Catalog >>\nendobj\n"
    yield "archive.jpg", b"PK\x03\x04" + bytes(200)
    yield "program.png", b"\x7fELF" + bytes(200)
    yield "text.bmp", "Größe".encode()
    yield "zeros.jpg", bytes(5000)


def _too_large(sound: dict[str, bytes]) -> Iterator[tuple[str, bytes]]:
    """30,000 × 30,000 pixels in the header, and what belongs to an image of 96 × 64 behind it."""
    size = 30_000
    yield "huge.png", PNG + chunk(b"IHDR", struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)) + sound["rgb.png"][33:]
    for name in ("baseline.jpg", "progressive.jpg"):
        content = bytearray(sound[name])
        frame = content.index(b"\xff\xc0" if name == "baseline.jpg" else b"\xff\xc2")
        content[frame + 5 : frame + 9] = struct.pack(">HH", size, size)
        yield f"huge-{name}", bytes(content)
    gif = bytearray(sound["plain.gif"])
    gif[6:10] = struct.pack("<HH", size, size)
    yield "huge.gif", bytes(gif)
    bmp = bytearray(sound["plain.bmp"])
    bmp[18:26] = struct.pack("<ii", size, size)
    yield "huge.bmp", bytes(bmp)
    yield "huge.ppm", b"P6 30000 30000 255\n" + bytes(5000)
    yield "huge.pbm", b"P4 30000 30000\n" + bytes(5000)
    tiff = bytearray(sound["raw.tiff"])
    for entry in entries_of(tiff):
        if struct.unpack("<H", tiff[entry : entry + 2])[0] in (256, 257):  # width and height
            tiff[entry + 2 : entry + 12] = struct.pack("<HII", 4, 1, size)
    yield "huge.tiff", bytes(tiff)


def _bombs(sound: dict[str, bytes]) -> Iterator[tuple[str, bytes]]:
    """A few kilobytes that ask for gigabytes or hours."""
    header, rest = sound["rgb.png"][:33], sound["rgb.png"][33:]
    yield "text-bomb.png", header + chunk(b"zTXt", b"Comment\x00\x00" + zeros()) + rest
    yield "language-bomb.png", header + chunk(b"iTXt", b"Comment\x00\x01\x00\x00\x00" + zeros()) + rest
    yield "many-scans.jpg", with_scans(sound["progressive.jpg"], 5000)
    yield "many-scans-huge.jpg", with_scans(resized_header(sound["progressive.jpg"], 9000), 5000)


def sparing(sound: dict[str, bytes]) -> Iterator[tuple[str, bytes]]:
    """Files that may be decoded or refused, and must not cost much."""
    header, rest = sound["rgb.png"][:33], sound["rgb.png"][33:]
    yield "profile-bomb.png", header + chunk(b"iCCP", b"name\x00\x00" + zeros()) + rest
    yield "exif-bomb.png", header + chunk(b"eXIf", b"II*\x00\x08\x00\x00\x00\xff\xff" + bytes(100)) + rest
    yield "pixels-bomb.png", header + chunk(b"IDAT", zeros()) + chunk(b"IEND", b"")
    grey = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 0, 0, 0, 0)
    yield "largest.png", PNG + chunk(b"IHDR", grey) + chunk(b"IDAT", zeros()) + chunk(b"IEND", b"")
    yield "many-chunks.png", header + 20_000 * chunk(b"tEXt", b"a\x00b") + rest
    yield "trailer.jpg", sound["baseline.jpg"] + random.Random(2).randbytes(1 << 22)
    yield "many-segments.jpg", sound["baseline.jpg"][:2] + 20_000 * b"\xff\xfe\x00\x03x" + sound["baseline.jpg"][2:]
    frames = [Image.new("P", (8, 8), colour % 256) for colour in range(300)]
    yield "many-frames.gif", saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    loop = bytearray(sound["raw.tiff"])
    after = entries_of(loop).stop
    loop[after : after + 4] = loop[4:8]  # the next directory is the first one
    yield "endless.tiff", bytes(loop)
    yield "holes.jpg", holed(sound["baseline.jpg"], 64)
    yield "holes.webp", holed(sound["lossy.webp"], 64)
    yield "long.jpg", saved(Image.new("RGB", (60_000, 1), "red"), "JPEG")
    yield (
        "orientation.jpg",
        saved(Image.new("RGB", (8, 8)), "JPEG", exif=b"Exif\x00\x00MM\x00*\x00\x00\xff\xff nonsense"),
    )


@cache
def zeros() -> bytes:
    """A grey image of SIDE × SIDE pixels, and what any zlib stream can hide: 89 MB in 87 kB."""
    return zlib.compress(bytes((SIDE + 1) * SIDE), 1)


SIDE = 9459
"""Of the largest square image that is decoded."""
PNG = b"\x89PNG\r\n\x1a\n"


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def entries_of(tiff: bytearray) -> range:
    """Places of the entries of a little-endian TIFF file's first directory."""
    first = struct.unpack("<I", tiff[4:8])[0] + 2
    return range(first, first + 12 * struct.unpack("<H", tiff[first - 2 : first])[0], 12)


def with_scans(content: bytes, scans: int) -> bytes:
    """A progressive JPEG file with its last scan over and over."""
    last = content.rindex(b"\xff\xda")
    return content[:last] + scans * content[last:-2] + content[-2:]


def resized_header(content: bytes, size: int) -> bytes:
    broken = bytearray(content)
    frame = broken.index(b"\xff\xc2")
    broken[frame + 5 : frame + 9] = struct.pack(">HH", size, size)
    return bytes(broken)


def holed(content: bytes, length: int) -> bytes:
    """A block of zeros in the middle, as a disk leaves it."""
    middle = len(content) // 2
    return content[:middle] + bytes(length) + content[middle + length :]


def everything(photo: Image.Image) -> dict[str, bytes]:
    """All of them by name: over 500."""
    sound = originals(photo)
    makers: tuple[Callable[[dict[str, bytes]], Iterator[tuple[str, bytes]]], ...] = (flipped, unusable, sparing)
    return {name: content for make in makers for name, content in make(sound)}


def pixels_of(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
