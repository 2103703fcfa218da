"""Ask a server for a while, at a rate, and say what its users would have met."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from torchstone.core import console, interrupts
from torchstone.core.errors import ConfigError, DataError
from torchstone.core.registry import readers
from torchstone.core.seeding import generator
from torchstone.data.sources import find_reader
from torchstone.data.sources.trees import is_image_name
from torchstone.judge import tail
from torchstone.serve import load as loads
from torchstone.serve.load import Load, Session, Target

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_RATE = 20_000.0
"""Requests a second. One Python process sends and reads fewer; the session then says so."""
MAX_SECONDS = 6 * 3600.0
MAX_REQUESTS = 10_000_000
MAX_IMAGES = 2_000
MAX_IMAGE_MB = 256.0
"""10⁶ bytes of all images that are kept in memory."""
LEVEL = 0.99
"""One-sided, of the bounds on quantiles: MLPerf's."""
SHARES = (0.5, 0.9, 0.95, 0.99, 0.999)
LATE_MS = 2.0
LATE_SHARE = 0.1
"""A session is void where the client's own lateness, by its p99, is more than so many milliseconds and more than this
share of the p99 that it found."""
WORDS = {
    loads.UNFINISHED: "still on its way",
    loads.REFUSED: "no connection",
    loads.BROKEN: "broken off",
    loads.SILENT: "no answer in time",
}

Outcome = Literal["pass", "fail", "undecided", "void"]


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is to be measured."""

    url: str
    rate: float
    seconds: float
    images: str
    seed: int = 0
    connections: int = 256
    timeout: float = 10.0
    unique: bool = False
    key: str | None = None
    max_p99_ms: float | None = None

    def __post_init__(self) -> None:
        for name, value, most in (("rate", self.rate, MAX_RATE), ("for", self.seconds, MAX_SECONDS)):
            if not 0 < value <= most:
                raise ConfigError(f"--{name} {value:g} is refused: above 0 and at most {most:,.0f}")
        if self.rate * self.seconds > MAX_REQUESTS:
            raise ConfigError(
                f"{self.rate * self.seconds:,.0f} requests are more than the {MAX_REQUESTS:,} of one session",
                hint="a lower --rate, or a shorter --for",
            )


@dataclass(frozen=True, kw_only=True)
class Quantile:
    """A latency that a share of the requests keeps. Infinite: they were not answered."""

    share: float
    ms: float
    at_most_ms: float | None
    """Bound at ``LEVEL``; None: too few requests for one."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a session showed."""

    session: Session
    wanted: Wanted
    images: int
    every: tuple[Quantile, ...]
    """Of all requests that were due; one without an answer 200 never ends."""
    answered: tuple[Quantile, ...]
    """Of the answers 200 alone."""
    counts: dict[str, int]
    """Requests by what came of them: an HTTP status, or why there is none."""
    late_ms: tuple[float, float, float]
    """How late the client was: median, p99, most."""
    slower: int
    """Requests that exceeded the limit, as far as is known."""
    outcome: Outcome | None
    """Of the limit; None: there is none."""
    void: str | None
    """Why nothing can be said."""
    needed: int | None
    """Requests in all that would decide the limit if it goes on like this, or that give the p99 a bound; None: no
    number would, or these did."""

    @property
    def requests(self) -> int:
        return sum(self.counts.values())

    @property
    def offered(self) -> float:
        """Requests a second that were due."""
        return self.requests / self.asked_for

    @property
    def goodput(self) -> float:
        """Answers 200 a second, from the beginning to the last answer."""
        return self.counts.get("200", 0) / max(self.session.seconds, self.asked_for)

    @property
    def asked_for(self) -> float:
        """Seconds in which requests were due."""
        return self.session.seconds if self.session.interrupted else self.wanted.seconds

    @property
    def sent(self) -> float:
        """Requests a second that were sent, from the first to the last one's sending."""
        moments = self.session.sent
        return self.requests / max(self.asked_for, float(moments[-1]) if len(moments) else 0.0)

    def as_json(self) -> dict[str, Any]:
        wanted = self.wanted
        return {
            "url": wanted.url, "rate": wanted.rate, "seconds": wanted.seconds, "seed": wanted.seed,
            "images": self.images, "unique": wanted.unique, "timeout": wanted.timeout,
            "interrupted": self.session.interrupted, "requests": self.requests, "offered": self.offered,
            "sent": self.sent, "goodput": self.goodput, "counts": self.counts, "level": LEVEL,
            "latency_ms": {"every": _rows(self.every), "answered": _rows(self.answered)},
            "client": {
                "late_ms": dict(zip(("median", "p99", "most"), self.late_ms, strict=True)),
                "busy": self.session.busy / max(self.session.seconds, 1e-9),
                "connections": self.session.opened, "waited_for_one": self.session.waited,
            },
            "from_cache": self.session.cached, "max_p99_ms": wanted.max_p99_ms, "slower": self.slower,
            "outcome": self.outcome, "void": self.void, "requests_needed": self.needed,
        }  # fmt: skip


def load(wanted: Wanted) -> Measured:
    """Hold a session. Ctrl-C ends it early, with the figures so far."""
    bodies = images_of(wanted.images, wanted.seed)
    planned = Load(
        target=Target.of(wanted.url), due=loads.arrivals(wanted.rate, wanted.seconds, wanted.seed), bodies=bodies,
        key=wanted.key, seed=wanted.seed, connections=wanted.connections, timeout=wanted.timeout, unique=wanted.unique,
    )  # fmt: skip
    if not len(planned.due):
        raise ConfigError(
            f"at a rate of {wanted.rate:g} a second no request is due within {wanted.seconds:g} s",
            hint="a higher --rate, or a longer --for",
        )
    address, status, reply = loads.ask_once(planned)
    _check(status, reply, wanted.url)
    with (
        _shown(wanted.seconds) as tell,
        interrupts.postponed(lambda: console.say("stopped: what is on its way has a second to arrive")) as stopped,
    ):
        session = loads.run(planned, address, tell, stopped)
    return measured(session, wanted, len(bodies))


def images_of(source: str, seed: int) -> list[bytes]:
    """Encoded images from a folder of any depth, or of whatever ``torchstone audit`` can read: at most MAX_IMAGES, and
    MAX_IMAGE_MB in all, drawn with the seed. Raises a DataError where there are none."""
    names, read = _listed(source)
    found: list[bytes] = []
    size = 0.0
    for number in generator("images", seed).permutation(len(names))[:MAX_IMAGES]:
        with contextlib.suppress(OSError, DataError):
            content = read(names[number])
            size += len(content) / 1e6
            if size > MAX_IMAGE_MB and found:
                break
            found += [content] if content else []
    if not found:
        raise DataError(f"there is no image in '{source}' that can be read", hint="--images FOLDER, of any depth")
    return found


def measured(session: Session, wanted: Wanted, images: int) -> Measured:
    """The figures of a session, and whether they prove what was asked."""
    every = np.sort(1e3 * session.latencies)
    answered = every[np.isfinite(every)]
    late = np.sort(1e3 * session.lateness[np.isfinite(session.lateness)])
    late_ms = (0.0, 0.0, 0.0)
    if len(late):
        late_ms = (float(np.median(late)), tail.quantile(late, tail.SHARE), float(late[-1]))
    codes, counts = np.unique(session.status, return_counts=True)
    limit = wanted.max_p99_ms
    slower, unkept = 0, 0
    if limit is not None:  # what was still on its way is slower where it had waited for longer, and may be where not
        slower, unkept = int((1e3 * session.at_least > limit).sum()), int((every > limit).sum())
    void = _void(late_ms[1], answered)
    outcome: Outcome | None = None
    if limit is not None:
        kept = tail.proven(unkept, len(every), tail.SHARE, LEVEL) is True
        broken = tail.proven(slower, len(every), tail.SHARE, LEVEL) is False
        outcome = "void" if void else "pass" if kept else "fail" if broken else "undecided"
    undecided = outcome == "undecided" if limit is not None else tail.slower_allowed(len(every), tail.SHARE, LEVEL) < 0
    return Measured(
        session=session, wanted=wanted, images=images, every=_quantiles(every), answered=_quantiles(answered),
        counts={WORDS.get(int(code), str(code)): int(count) for code, count in zip(codes, counts, strict=True)},
        late_ms=late_ms, slower=slower, outcome=outcome, void=void,
        needed=tail.calls_needed(unkept, len(every), tail.SHARE, LEVEL) if undecided else None,
    )  # fmt: skip


def _void(late: float, answered: NDArray[np.float64]) -> str | None:
    found = tail.quantile(answered, tail.SHARE) if len(answered) else 0.0
    if late <= max(LATE_MS, LATE_SHARE * found):
        return None
    return (
        f"the client itself was late by {late:.1f} ms (p99), of {found:.1f} ms that it found: ask less often, or from "
        "a machine that has nothing else to do"
    )


def _quantiles(ordered: NDArray[np.float64]) -> tuple[Quantile, ...]:
    if not len(ordered):
        return ()
    return tuple(
        Quantile(
            share=share, ms=tail.quantile(ordered, share), at_most_ms=tail.upper_bound(ordered, share, LEVEL)
        )
        for share in SHARES
    )  # fmt: skip


def _rows(quantiles: Sequence[Quantile]) -> list[dict[str, float | None]]:
    def finite(value: float | None) -> float | None:
        return value if value is not None and math.isfinite(value) else None

    return [{"share": one.share, "ms": finite(one.ms), "at_most_ms": finite(one.at_most_ms)} for one in quantiles]


def _listed(source: str) -> tuple[Sequence[Any], Callable[[Any], bytes]]:
    """What images there are, and how one is read."""
    place = Path(source).expanduser()
    if place.is_dir():
        found = sorted(path for path in place.rglob("*") if is_image_name(path.name) and not path.name.startswith("."))
        if found:
            return found, Path.read_bytes
    root, name = find_reader(source)
    reader = readers.ready(name)
    return reader.listing(root).paths, lambda path: reader.image(root, path)


def _check(status: int, reply: bytes, url: str) -> None:
    """Raise the ConfigError of a server that will answer nothing of this."""
    said = ""
    with contextlib.suppress(ValueError, TypeError, KeyError, UnicodeDecodeError):
        said = f": {json.loads(reply)['error']['message']}"
    if status in (401, 403):
        raise ConfigError(f"{url} answers {status}{said}", hint="a key in TORCHSTONE_API_KEYS, or --api-keys FILE")
    if status in (404, 405) or 300 <= status < 400:
        raise ConfigError(
            f"{url} answers {status}{said}", hint=f"name the path as well; without one, {loads.PATH} is asked"
        )


@contextlib.contextmanager
def _shown(seconds: float) -> Iterator[Callable[[float], None]]:
    """A progress bar that is told the time."""
    total = math.ceil(seconds)
    bar = cast("Generator[int]", console.track(range(total), "seconds of load", total))
    shown = 0

    def tell(now: float) -> None:
        nonlocal shown
        while shown <= now and shown < total:
            next(bar)
            shown += 1

    try:
        yield tell
    finally:
        if shown == total:
            next(bar, None)  # to its end
        bar.close()
