"""Everything a server can be told: the flags of ``torchstone serve`` and the keys of its TOML file are these fields,
with dashes for underscores."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from torchstone.core import files, machine
from torchstone.core.errors import ConfigError, nearest
from torchstone.core.values import Value

STATE = "serve-state"
NAME = re.compile(r"[\w.-]{1,100}")


class ServeSettings(Value):
    """What ``serve`` does. Limits are there because requests come from outside: each bounds a memory or a time."""

    bundles: tuple[str, ...] = Field(min_length=1, description="bundles, each a directory or NAME=DIRECTORY")
    fallback: bool = Field(
        default=False,
        description="serve the FP32 model of a bundle whose own does not reproduce its golden images on this CPU, "
        "or whose runtime is not installed",
    )

    state: Path | None = Field(
        default=None, description=f"folder of what the server keeps; by default {STATE} beside the first bundle"
    )
    store: str | None = Field(
        default=None,
        description="database of log and rollouts, postgresql://USER@HOST/NAME; by default a file in state",
    )
    no_log: bool = Field(
        default=False,
        description="keep no log of predictions: then no label finds its prediction, and no rollout can run",
    )
    cache: str = Field(
        default="memory",
        description="where answers are kept for the next time: memory (of each worker), none, or redis://HOST:6379/0",
    )
    cache_mb: float = Field(default=64.0, gt=0, description="10⁶ bytes of answers in the memory of each worker")

    drift_rate: float = Field(
        default=4.0, ge=0, le=100, description="images a second that each worker looks at for drift; 0: none"
    )
    drift_window: int = Field(
        default=1000, ge=50, le=100_000, description="images that are compared with the bundle's reference at once"
    )
    drift_copies: int = Field(
        default=0,
        ge=0,
        le=10_000,
        description="small copies of images that lie far out, in the state directory; by default no picture is kept",
    )

    host: str = Field(default="127.0.0.1", description="address to listen on; 0.0.0.0 for all of this machine's")
    port: int = Field(default=8080, ge=0, le=65535, description="0: any that is free")
    workers: int = Field(default=1, ge=1, le=256, description="processes behind the port, each with its own model")
    threads: int | None = Field(
        default=None, ge=1, description="threads of the model in each worker; by default its share of the usable cores"
    )
    decoders: int | None = Field(
        default=None,
        ge=1,
        le=64,
        description="threads in each worker that decode images; by default as many as threads",
    )
    sessions: int = Field(
        default=1, ge=1, le=16, description="copies of the model in each worker that answer batches side by side"
    )
    arena_mb: int | None = Field(
        default=None, ge=16, description="10⁶ bytes that ONNX Runtime may take for what its layers compute, a worker"
    )

    max_batch: int = Field(default=32, ge=1, le=1024, description="images a batch; fewer where more gain no time")
    max_delay_ms: float = Field(
        default=2.0, ge=0, le=1000, description="that the first image of a batch waits for others that are on their way"
    )
    queue: int = Field(
        default=128, ge=1, description="images that a worker has accepted and not answered; more are refused (429)"
    )
    max_wait_ms: float = Field(
        default=400.0,
        gt=0,
        description="of work, at the pace so far, that may wait for longer than a burst; more is refused (429)",
    )
    timeout: float = Field(
        default=10.0, gt=0, le=3600, description="seconds in which an image is answered or given up (504)"
    )

    max_body_mb: float = Field(default=16.0, gt=0, description="10⁶ bytes of a request's body")
    max_bodies_mb: float = Field(
        default=256.0, gt=0, description="10⁶ bytes of all bodies that a worker holds at once; more are refused (429)"
    )
    max_pixels: int = Field(
        default=25_000_000, ge=1, description="of an image, by its header: decoding takes up to 11 bytes for each"
    )
    max_images: int = Field(default=32, ge=1, description="images in one request")
    header_timeout: float = Field(
        default=10.0, gt=0, description="seconds in which a connection has to send a request's headers"
    )
    body_timeout: float = Field(default=30.0, gt=0, description="seconds in which it has to send the body")
    keep_alive: float = Field(default=75.0, gt=0, description="seconds that a connection may rest between requests")
    drain: float = Field(
        default=5.0, ge=0, description="seconds that a stopping server leaves its connections to send what they began"
    )

    top: int = Field(default=5, ge=1, description="classes in an answer, if the request does not say how many")
    api_keys: Path | None = Field(
        default=None, description="file of keys, one a line, of which a request must bring one; or TORCHSTONE_API_KEYS"
    )
    admin_keys: Path | None = Field(
        default=None, description="file of keys that may also reload; or TORCHSTONE_ADMIN_KEYS"
    )

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise _refusal(error) from None

    @property
    def state_directory(self) -> Path:
        """Folder of what the server keeps."""
        if self.state is not None:
            return self.state
        return next(iter(named_places(self.bundles).values())).resolve().parent / STATE

    @property
    def threads_each(self) -> int:
        """Threads of the model in each worker: what was asked for, or a worker's share of the cgroup's cores."""
        return self.threads or max(1, machine.usable_cores() // self.workers)

    @property
    def decoders_each(self) -> int:
        return self.decoders or self.threads_each


def settings(given: dict[str, Any], config: Path | None = None) -> ServeSettings:
    """Settings from flags over a TOML file over defaults. A ConfigError names an unknown key or a wrong value."""
    content: dict[str, Any] = {}
    known = {flag(name): name for name in ServeSettings.model_fields if name != "schema_version"}
    for key, value in (files.read_toml(config, "the configuration") if config else {}).items():
        if flag(key) not in known:
            raise ConfigError(f"unknown key '{key}' in '{config}'", hint=nearest(flag(key), known))
        content[known[flag(key)]] = value
    values = {**content, **given}
    if not values.get("bundles"):
        raise ConfigError(
            "no bundle was named", hint='torchstone serve runs/NAME/bundle, or bundles = ["…"] in the file'
        )
    return ServeSettings(**values)


def named_places(bundles: tuple[str, ...]) -> dict[str, Path]:
    """``NAME=DIRECTORY`` or a directory, which is called like itself, or like its run if it is called 'bundle' and lies
    in one: a container's ``/bundle`` does not."""
    places: dict[str, Path] = {}
    for text in bundles:
        name, equals, directory = text.partition("=")
        if not equals or Path(text).exists():
            place = Path(text)
            resolved = place.resolve()
            name = (resolved.name == "bundle" and resolved.parent.name) or resolved.name
        else:
            place = Path(directory)
        if NAME.fullmatch(name) is None:
            raise ConfigError(
                f"a model cannot be called '{name}'", hint="letters, digits, dots, dashes: NAME=DIRECTORY"
            )
        if name in places:
            raise ConfigError(f"two bundles are called '{name}'", hint=f"name them: {name}-2={place}")
        places[name] = place
    return places


def flag(name: str) -> str:
    """``max_batch`` → ``max-batch``."""
    return name.replace("_", "-")


def _refusal(error: ValidationError) -> ConfigError:
    first = error.errors()[0]
    name = str(first["loc"][0])
    if name not in ServeSettings.model_fields:
        return ConfigError(f"unknown setting '{name}'", hint=nearest(name, ServeSettings.model_fields))
    return ConfigError(f"{flag(name)} = {first['input']!r} is refused: {first['msg'].lower()}")
