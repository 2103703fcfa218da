"""Answers that were given before. One file a place where they are kept, chosen by the URL's scheme."""

from __future__ import annotations

from torchstone.core.errors import ConfigError, MissingPackageError, nearest
from torchstone.core.registry import missing_packages
from torchstone.serve.settings import ServeSettings
from torchstone.serve.values import Cache

REDIS = ("redis", "rediss", "unix")
"""Schemes of a URL that lead to Redis: plain, over TLS, through a socket of this machine."""


def open_cache(settings: ServeSettings) -> Cache | None:
    """The cache that ``settings.cache`` names, None for ``none``. A ConfigError for what is no cache; one that cannot
    be reached is not an error, now or later."""
    scheme, colon, _ = settings.cache.partition("://")
    if settings.cache == "none":
        return None
    if settings.cache == "memory":
        from torchstone.serve.cache.memory import MemoryCache

        return MemoryCache(int(settings.cache_mb * 1e6))
    if colon and scheme in REDIS:
        if missing := missing_packages(("redis",)):
            raise MissingPackageError("--cache redis://…", missing, extra="serve")
        from torchstone.serve.cache.redis import RedisCache

        return RedisCache(settings.cache)
    if not scheme.isalnum():  # an address that lost a letter, with its password
        raise ConfigError("--cache is none of memory, none and redis://HOST", hint="redis://:PASSWORD@HOST:6379/0")
    raise ConfigError(
        f"--cache '{scheme}' is none of memory, none and redis://HOST",
        hint=nearest(scheme, ("memory", "none", *REDIS)),
    )
