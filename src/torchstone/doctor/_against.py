"""What differs between the machine that a result was made on and this one, and which of it can change its numbers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from torchstone.core.environment import Environment, computes
from torchstone.core.errors import ConfigError
from torchstone.core.run import Run
from torchstone.core.values import Finding


class Rule(NamedTuple):
    """What a difference in one field of ``Environment`` means."""

    name: str
    changes: str
    """Empty: neither numbers nor times."""
    hint: str | None = None


KERNELS = "kernels are chosen by it: INT8 and the last bits of every sum may differ, and all times do"
RULES = {
    "machine": Rule("architecture", KERNELS),
    "cpu": Rule("processor", KERNELS, "judge again here: a verdict speaks of one processor"),
    "cpu_features": Rule("processor's instructions", KERNELS, "judge again here: a verdict speaks of one processor"),
    "cores": Rule("usable cores", "sums of a training are split among threads, and times of all threads change"),
    "host_cores": Rule("cores of the host", ""),
    "memory_limit": Rule("memory limit", ""),
    "gpus": Rule("GPUs", "what is trained on another GPU, or on none, ends with other weights"),
    "driver": Rule("GPU driver", "it compiles kernels: the last bits of sums, and times"),
    "cuda": Rule("CUDA of torch", "its libraries bring other kernels: the last bits of sums, and times"),
    "blas": Rule("numpy's BLAS", "the last bits of numpy's sums"),
    "providers": Rule("ONNX Runtime's providers", "which of them computes a layer decides its last bits and its time"),
    "variables": Rule("variables of the environment", "libraries obey them: threads, times and the order of sums"),
    "python": Rule("Python", ""),
    "system": Rule("kernel", ""),
    "libc": Rule("C library", "exp and log of the last bit"),
    "container": Rule("container", ""),
    "image": Rule("image", ""),
    "revision": Rule("git revision", "code of yours that took part may have changed"),
}


def stored(place: str) -> Environment:
    """The environment of a run, or of a directory of evidence. A ConfigError where there is none."""
    path = Run(Path(place).expanduser()).environment
    if not Path(place).expanduser().exists():
        raise ConfigError(f"there is nothing at '{place}'", hint="name a run, such as runs/flowers")
    if not path.is_file():
        raise ConfigError(
            f"'{place}' holds no environment.json",
            hint="name a run, such as runs/flowers, or a directory of evidence (torchstone judge --evidence --out)",
        )
    return Environment.load(path)


def differences(then: Environment, now: Environment, place: str) -> list[Finding]:
    """What can change numbers first, as warnings; then the rest. One line where nothing differs."""
    found = [finding for field in RULES if (finding := _field(field, then, now))]
    found += _packages(then, now, place)
    if not found:
        found = [Finding(check="against", severity="info", message=f"nothing differs from where '{place}' was made")]
    return sorted(found, key=lambda finding: finding.grave)


def _field(field: str, then: Environment, now: Environment) -> Finding | None:
    before, after = getattr(then, field), getattr(now, field)
    if before == after:
        return None
    rule = RULES[field]
    if field == "revision" and None in (before, after):  # it was, or is, no repository: nothing of it took part
        rule = rule._replace(changes="")
    said = _change(before, after)
    return Finding(
        check="against",
        severity="warning" if rule.changes else "info",
        message=f"{rule.name}: {said}" + (f"; {rule.changes}" if rule.changes else ""),
        hint=rule.hint,
        evidence={"field": field, "then": before, "now": after},
    )


def _change(before: object, after: object) -> str:
    """``before → after``; of what holds several, what left and what came."""
    if isinstance(before, dict) and isinstance(after, dict):
        before, after = (tuple(f"{name}={value}" for name, value in one.items()) for one in (before, after))
    if isinstance(before, tuple) and isinstance(after, tuple) and set(before) != set(after):
        left = [str(one) for one in before if one not in after]
        came = [str(one) for one in after if one not in before]
        return ", ".join([*(f"without {one}" for one in left), *(f"with {one}" for one in came)])
    return f"{_shown(before)} → {_shown(after)}"


def _shown(value: object) -> str:
    if value is None or value == ():
        return "none"
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _packages(then: Environment, now: Environment, place: str) -> Iterator[Finding]:
    others: list[str] = []
    for name in sorted({*then.packages, *now.packages}):
        before, after = then.packages.get(name), now.packages.get(name)
        same = before == after
        rebuilt = same and then.contents.get(name) != now.contents.get(name)
        if same and not rebuilt:
            continue
        said = f"{name} {before} with other files" if rebuilt else f"{name} {before or 'none'} → {after or 'none'}"
        if not computes(name):
            others.append(said)
            continue
        wanted = f"{name}=={before}" if before else None
        yield Finding(
            check="against",
            severity="warning",
            message=f"{said}; it computes what a model answers, or the pixels that it sees",
            hint=f"pip install '{wanted}'" if wanted and not rebuilt else None,
            evidence={"package": name, "then": before, "now": after, "rebuilt": rebuilt},
        )
    if others:
        shown = ", ".join(others[:5]) + (f" and {len(others) - 5} more" if len(others) > 5 else "")
        yield Finding(
            check="against",
            severity="info",
            message=f"{len(others)} other package{'s' * (len(others) != 1)} differ{'s' * (len(others) == 1)}: {shown}",
            hint=f"all of them: {Path(place) / 'environment.json'}",
            evidence={"packages": others},
        )
