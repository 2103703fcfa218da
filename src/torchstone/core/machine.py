"""The machine as this process may use it: the cgroup's quota, not the host's."""

from __future__ import annotations

import os
import platform
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from torchstone.core.errors import ConfigError

PACKAGES = (
    "torchstone", "numpy", "pillow", "polars", "torch", "torchvision", "timm", "torch-pruning",
    "onnx", "onnxruntime", "openvino", "nncf",
)  # fmt: skip


def usable_cores(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Cores that this process may keep busy: the smallest of the host's, its affinity and the cgroup's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(cgroup)
    return max(1, min(cores, int(quota))) if quota else cores


def check_threads(threads: int) -> None:
    """Raise the ConfigError of more threads than cores: they would take turns, and what is timed so means nothing."""
    cores = usable_cores()
    if threads > cores:
        raise ConfigError(
            f"{threads} threads were asked for, and this process may use {cores} cores",
            hint=f"use --threads {cores} or fewer",
        )


def _quota(cgroup: Path) -> float | None:
    """Cores granted by cgroup v2 or v1, or None where nothing is limited."""
    try:
        limit, period = (cgroup / "cpu.max").read_text().split()
        return None if limit == "max" else int(limit) / int(period)
    except (OSError, ValueError):
        pass
    try:
        limit = (cgroup / "cpu/cpu.cfs_quota_us").read_text()
        period = (cgroup / "cpu/cpu.cfs_period_us").read_text()
        return int(limit) / int(period) if int(limit) > 0 else None
    except (OSError, ValueError):
        return None


@cache
def cpu_name() -> str:
    """The processor's model name."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


@cache
def cpu_flags() -> frozenset[str]:
    """Instruction-set flags as Linux names them; empty where they cannot be read."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("flags", "Features")):
                return frozenset(line.partition(":")[2].split())
    except OSError:
        pass
    return frozenset()


def native_bf16() -> bool:
    """Whether the processor multiplies BF16 itself, and not by way of float32."""
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & cpu_flags())  # the last is Arm's name


def memory_limits(cgroup: Path = Path("/sys/fs/cgroup")) -> tuple[int | None, int | None]:
    """The cgroup's limit and what is left of it, in bytes (v2, then v1); None where nothing is limited. File cache can
    be dropped, so it is left."""
    for limit, used, stat, name in (
        ("memory.max", "memory.current", "memory.stat", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
    ):
        try:
            most = int((cgroup / limit).read_text())
            now = int((cgroup / used).read_text())
            cache = dict(line.split() for line in (cgroup / stat).read_text().splitlines()).get(name, "0")
        except (OSError, ValueError):  # no such file, or "max"
            continue
        return most, most - now + int(cache)
    return None, None


def memory(proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> tuple[int, int, bool] | None:
    """Bytes in all, bytes available now, and whether a cgroup grants less than the host has; None where the system does
    not say."""
    try:
        rows = dict(line.split(":", 1) for line in (proc / "meminfo").read_text().splitlines() if ":" in line)
        total, available = (int(rows[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
    except (OSError, KeyError, ValueError):
        return None
    limit, left = memory_limits(cgroup)
    if limit is None or left is None or limit >= total:
        return total, available, False
    return limit, min(available, left), True


def versions() -> dict[str, str]:
    """Installed versions of the packages that can change a number; nothing is imported."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def summary() -> dict[str, Any]:
    """What an artifact says of the machine that made it. All of it: ``core.environment``."""
    wanted = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "asimd", "asimddp")
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "cpu": cpu_name(),
        "cpu_features": [flag for flag in wanted if flag in cpu_flags()],
        "cores": usable_cores(),
        "packages": versions(),
    }
