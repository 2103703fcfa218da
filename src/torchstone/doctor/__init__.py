"""What this machine can do for torchstone, and what is wrong with it: one file a check."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from torchstone.core import machine, registry
from torchstone.core.errors import ConfigError, MissingPackageError, nearest
from torchstone.core.values import Finding

ORDER = ("error", "warning", "info")
CONVOLUTION = 0.01
"""By which a GPU's convolution may differ from the processor's: TF32 has ten bits."""


class Package(NamedTuple):
    """An installed distribution, as its metadata tells."""

    name: str
    version: str
    requires: tuple[str, ...]


class TorchBuild(NamedTuple):
    """What the installed torch was built for, and what it found."""

    version: str
    cuda: str | None
    """The CUDA release that it was built with; None for a CPU-only build."""
    cudnn: int | None
    devices: tuple[tuple[str, str], ...]
    """Name and architecture (``sm_90``) of each GPU that torch can use."""
    architectures: tuple[str, ...]
    """The GPU architectures that its kernels were compiled for."""
    problem: str | None
    """Why it finds no GPU, in its own words."""


def installed() -> tuple[Package, ...]:
    """All distributions on the path of this Python."""
    return tuple(
        Package(found.metadata["Name"], found.version, tuple(found.requires or ()))
        for found in metadata.distributions()
        if found.metadata["Name"]
    )


def importable(package: str) -> bool:
    return not registry.missing_packages((package,))


def command(*arguments: str) -> str:
    """Standard output of a program. Raises FileNotFoundError or a SubprocessError."""
    return subprocess.run(arguments, capture_output=True, text=True, timeout=20, check=True).stdout


def free_bytes(place: Path) -> int:
    """What may still be written to the disk that holds ``place``, bytes. Raises an OSError."""
    return shutil.disk_usage(place).free


def torch_build() -> TorchBuild | None:
    """Asks torch itself; None where it is not installed or cannot be imported (the check ``torch`` says why)."""
    import warnings

    try:
        import torch
    except (ImportError, OSError):
        return None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        devices = tuple(
            (torch.cuda.get_device_name(i), "sm_{}{}".format(*torch.cuda.get_device_capability(i)))
            for i in range(count)
        )
        architectures = tuple(torch.cuda.get_arch_list()) if count else ()
    return TorchBuild(
        version=str(torch.__version__),
        cuda=torch.version.cuda,
        cudnn=torch.backends.cudnn.version() if count else None,
        devices=devices,
        architectures=architectures,
        problem=str(caught[0].message).splitlines()[0] if caught else None,
    )


def convolve(device: int) -> str | None:
    """A convolution on a GPU, compared with the processor's: what is wrong with it, or None."""
    import torch

    try:
        torch.manual_seed(0)
        layer, x = torch.nn.Conv2d(3, 8, 3), torch.randn(1, 3, 16, 16)
        with torch.inference_mode():
            expected = layer(x)
            found = layer.to(f"cuda:{device}")(x.to(f"cuda:{device}")).cpu()
    except RuntimeError as error:  # what CUDA's errors are in torch
        return str(error).splitlines()[0]
    worst = float((found - expected).abs().max())
    return None if worst < CONVOLUTION else f"it computes wrong, by {worst:.2g}"


def clock_step() -> float:
    """Seconds of the smallest step that the clock of our timings was seen to make."""
    steps = []
    for _ in range(50):
        begin = now = time.perf_counter()
        while now == begin:
            now = time.perf_counter()
        steps.append(now - begin)
    return min(steps)


def spin() -> list[float]:
    """Seconds of each of 200 equal pieces of work of about a millisecond."""
    took = []
    for _ in range(200):
        begin = time.perf_counter()
        sum(range(40_000))
        took.append(time.perf_counter() - begin)
    return took


def write_speed(place: Path) -> float:
    """Bytes a second of a file of 32 MiB that is forced to the disk. Raises an OSError."""
    block = os.urandom(2**20)  # what a disk that compresses cannot make small
    with tempfile.NamedTemporaryFile(dir=place, prefix=".torchstone-") as file:
        begin = time.perf_counter()
        for _ in range(32):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        return 32 * len(block) / (time.perf_counter() - begin)


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What the checks look at: by default this machine. Any field can be replaced, so that every check is tested on a
    machine that is broken."""

    runs: Path = Path("runs")
    temporary: Path = field(default_factory=lambda: Path(tempfile.gettempdir()))
    proc: Path = Path("/proc")
    system: Path = Path("/sys")
    cgroup: Path = Path("/sys/fs/cgroup")
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    python: tuple[int, int, int] = sys.version_info[:3]
    virtual: bool = sys.prefix != sys.base_prefix
    """Whether this Python is a virtual environment's."""
    cpu: str = field(default_factory=machine.cpu_name)
    flags: frozenset[str] = field(default_factory=machine.cpu_flags)
    host_cores: int = field(default_factory=lambda: os.cpu_count() or 1)
    affinity: int = field(default_factory=lambda: machine.usable_cores(cgroup=Path(os.devnull)))
    """Cores that this process may be scheduled on, whatever its quota."""
    packages: tuple[Package, ...] = field(default_factory=installed)
    importable: Callable[[str], bool] = importable
    command: Callable[..., str] = command
    free_bytes: Callable[[Path], int] = free_bytes
    torch_build: Callable[[], TorchBuild | None] = torch_build
    convolve: Callable[[int], str | None] = convolve
    clock_step: Callable[[], float] = clock_step
    spin: Callable[[], list[float]] = spin
    write_speed: Callable[[Path], float] = write_speed

    @property
    def usable_cores(self) -> int:
        """The smallest of the host's cores, the affinity and the cgroup's quota."""
        return min(self.host_cores, self.affinity, machine.usable_cores(self.cgroup))


def doctor(context: Machine | None = None, *, skip: Sequence[str] = ()) -> list[Finding]:
    """Run every check but those to ``skip``; errors first, then warnings, then what was seen and is well. A ConfigError
    where there is no check of that name.

    A check whose packages are not installed says so and how to get them; it is not an error to work without them.
    """
    context = context or Machine()
    findings: list[Finding] = []
    names = registry.machine_checks.names()
    if unknown := next((name for name in skip if name not in names), None):
        raise ConfigError(f"doctor has no check '{unknown}'", hint=nearest(unknown, names))
    for name in names:
        if name in skip:
            continue
        check = registry.machine_checks.get(name)
        missing = [package for package in check.requires if not context.importable(package)]
        if missing:
            lacking = MissingPackageError(f"the check '{name}'", missing)
            findings.append(Finding(check=name, severity="info", message=lacking.message, hint=lacking.hint))
        else:
            findings.extend(check.run(context))
    return sorted(findings, key=lambda finding: ORDER.index(finding.severity))
