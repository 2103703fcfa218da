"""API keys: read once, kept as hashes, compared in constant time, never logged."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from torchstone.core.errors import ConfigError
from torchstone.serve.settings import ServeSettings

API_KEYS = "TORCHSTONE_API_KEYS"
ADMIN_KEYS = "TORCHSTONE_ADMIN_KEYS"
SHORTEST = 16
"""Characters of a key: shorter ones can be tried out."""


class Keys:
    """Which keys open what. Without API keys, everything but administration is open; without admin keys, that is not
    to be had at all."""

    def __init__(self, api: Iterable[str] = (), admin: Iterable[str] = ()) -> None:
        self._admin = [_digest(key.encode()) for key in admin]
        self._api = [_digest(key.encode()) for key in api]

    @classmethod
    def of(cls, settings: ServeSettings, environment: Mapping[str, str] = os.environ) -> Keys:
        """The keys of the settings' files and of the environment. A ConfigError for a file that cannot be read or
        holds none, and for keys too short to be secret."""
        return cls(
            _read(settings.api_keys, "--api-keys") + _listed(environment.get(API_KEYS, ""), API_KEYS),
            _read(settings.admin_keys, "--admin-keys") + _listed(environment.get(ADMIN_KEYS, ""), ADMIN_KEYS),
        )

    @property
    def required(self) -> bool:
        """Whether a request must bring a key."""
        return bool(self._api)

    @property
    def administrable(self) -> bool:
        return bool(self._admin)

    def opens(self, key: bytes | None) -> bool:
        """Whether a request with this key (None: with none) is answered."""
        return not self.required or self._among(key, self._api + self._admin)

    def administers(self, key: bytes | None) -> bool:
        return self._among(key, self._admin)

    @staticmethod
    def _among(key: bytes | None, known: list[bytes]) -> bool:
        """All are looked at, equal or not, and hashes of one length are compared: time tells nothing of a key."""
        given = _digest(key or b"")
        found = [hmac.compare_digest(given, one) for one in known]
        return key is not None and any(found)


def own_key(path: Path | None, environment: Mapping[str, str] = os.environ) -> str | None:
    """The key that a client of ours brings: the first of the file, or of the environment; None where there is none. A
    ConfigError as ``Keys.of``."""
    found = _read(path, "--api-keys") or _listed(environment.get(API_KEYS, ""), API_KEYS)
    return found[0] if found else None


def key_of(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """What stands in ``X-API-Key``, or in ``Authorization`` behind ``Bearer``."""
    for name, value in headers:
        if name == b"x-api-key":
            return value.strip()
        if name == b"authorization" and value[:7].lower() == b"bearer ":
            return value[7:].strip()
    return None


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _read(path: Path | None, where: str) -> list[str]:
    if path is None:
        return []
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{where} '{path}' cannot be read: {error}", hint="one key a line") from None
    keys = _listed("\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#")), where)
    if not keys:
        raise ConfigError(f"{where} '{path}' holds no key", hint="one key a line")
    return keys


def _listed(text: str, where: str) -> list[str]:
    keys = [key for part in text.splitlines() for key in (piece.strip() for piece in part.split(",")) if key]
    if any(len(key) < SHORTEST or not key.isascii() for key in keys):
        raise ConfigError(
            f"a key in {where} is shorter than {SHORTEST} characters, or not ASCII",
            hint="python -c 'import secrets; print(secrets.token_urlsafe())' makes a good one",
        )
    return keys
