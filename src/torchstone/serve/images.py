"""The images in a request's body, whichever way a client wraps them: as they are, multipart, or base64 in JSON."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any

from torchstone.serve.exchange import from_json
from torchstone.serve.refusals import Refusal

FIELDS = 16
"""Parts of a form that are no images, at most."""
HEADERS = 16
"""Headers of a part, at most."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a body asks for."""

    images: list[bytes]
    options: dict[str, Any]
    """What stands beside the images: ``top``, ``timeout``, ``key``."""


def read(content: bytes, kind: bytes, most: int) -> Asked:
    """The images of a body of this Content-Type, at most ``most``; a Refusal for anything else."""
    plain = kind.partition(b";")[0].strip().lower()
    if plain == b"application/json":
        asked = _from_json(content)
    elif plain == b"multipart/form-data":
        asked = _from_form(content, kind, most)
    elif plain.startswith((b"text/", b"message/", b"multipart/")):
        raise Refusal("media_type", "images come as they are, as multipart/form-data, or as base64 in application/json")
    else:  # an image, whatever a client calls it: `curl --data-binary` says application/x-www-form-urlencoded
        asked = Asked(images=[content], options={})
    if not asked.images:
        raise Refusal("malformed", "there is no image in the request")
    bounded(len(asked.images), most)
    for number, image in enumerate(asked.images):
        if not image:
            raise Refusal("malformed", f"image {number} is empty" if len(asked.images) > 1 else "the image is empty")
    return asked


def bounded(images: int, most: int) -> None:
    """Raise the Refusal of more images than one request may have."""
    if images > most:
        raise Refusal("too_large", f"{images} images; a request may have {most}")


def from_base64(text: Any) -> bytes:
    """The bytes behind base64, with or without ``data:image/…;base64,`` before it."""
    if not isinstance(text, str):
        raise Refusal("malformed", "an image is a string of base64")
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Refusal(
            "malformed", "an image is no base64", hint="RFC 4648, with padding and without line breaks"
        ) from None


def _from_json(content: bytes) -> Asked:
    """``{"image": "…"}`` or ``{"images": ["…", …]}``, with options beside."""
    value = from_json(content)
    if not isinstance(value, dict) or ("image" in value) == ("images" in value):
        raise Refusal("malformed", "the body is not a JSON object with 'image' or 'images'")
    images = value["images"] if "images" in value else [value["image"]]
    if not isinstance(images, list):
        raise Refusal("malformed", "'images' is not a list")
    options = {name: it for name, it in value.items() if name not in ("image", "images")}
    return Asked(images=[from_base64(image) for image in images], options=options)


def _from_form(content: bytes, kind: bytes, most: int) -> Asked:
    """Every part with a file name, or called ``image`` or ``images``, is an image; the others are options."""
    images: list[bytes] = []
    options: dict[str, Any] = {}
    for name, filename, data in _parts(content, kind, most + FIELDS):
        if filename is not None or name in ("image", "images"):
            images.append(data)
        elif len(options) < FIELDS and len(data) <= 1000:
            options[name] = data.decode("utf-8", "replace")
        else:
            raise Refusal("malformed", "the form has more, or longer, fields than are read")
    return Asked(images=images, options=options)


def _parts(content: bytes, kind: bytes, most: int) -> list[tuple[str, str | None, bytes]]:
    """Name, file name and content of each part."""
    from python_multipart.exceptions import FormParserError
    from python_multipart.multipart import MultipartParser, parse_options_header

    found: list[tuple[str, str | None, bytes]] = []
    headers: list[tuple[bytes, bytes]] = []
    field, value = bytearray(), bytearray()
    data: list[bytes] = []

    def begin() -> None:
        if len(found) >= most:
            raise Refusal("too_large", f"the form has more than {most} parts")
        headers.clear()
        data.clear()

    def header_end() -> None:
        headers.append((bytes(field).lower(), bytes(value)))
        field.clear()
        value.clear()

    def end() -> None:
        disposition = next((value for name, value in headers if name == b"content-disposition"), b"")
        options = parse_options_header(disposition)[1]
        filename = options.get(b"filename")
        name = options.get(b"name", b"").decode("utf-8", "replace")
        found.append((name, None if filename is None else filename.decode("utf-8", "replace"), b"".join(data)))

    callbacks: Any = {
        "on_part_begin": begin,
        "on_header_field": lambda piece, start, stop: field.extend(piece[start:stop]),
        "on_header_value": lambda piece, start, stop: value.extend(piece[start:stop]),
        "on_header_end": header_end,
        "on_part_data": lambda piece, start, stop: data.append(piece[start:stop]),
        "on_part_end": end,
    }
    boundary = parse_options_header(kind)[1].get(b"boundary")
    if not boundary:
        raise Refusal("malformed", "multipart/form-data without a boundary")
    try:
        parser = MultipartParser(boundary, callbacks, max_header_count=HEADERS)
        parser.write(content)
        parser.finalize()
    except FormParserError:
        raise Refusal("malformed", "the form cannot be read") from None
    return found
