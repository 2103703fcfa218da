"""Is there a GPU, does its driver fit torch's CUDA, or would work fall back to the CPU without a word?"""

from __future__ import annotations

import re
import subprocess
from typing import ClassVar

from torchstone.core.values import Finding
from torchstone.doctor import Machine, TorchBuild

QUERY = ("nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader,nounits")


class Gpu:
    """The NVIDIA driver and its GPUs, against the CUDA, the cuDNN and the architectures of the installed torch."""

    requires: ClassVar[tuple[str, ...]] = ()

    def run(self, context: Machine) -> list[Finding]:
        build = context.torch_build()
        try:
            rows = [tuple(map(str.strip, line.split(","))) for line in context.command(*QUERY).splitlines() if line]
            banner = context.command("nvidia-smi")
        except FileNotFoundError:
            return [_no_tool(context, build)]
        except (OSError, subprocess.SubprocessError) as error:
            said = (getattr(error, "stdout", None) or str(error)).strip().splitlines()
            return [
                _finding(
                    "warning",
                    f"nvidia-smi is there but fails ({said[0] if said else error}): no GPU will be used",
                    "sudo modprobe nvidia; after an update of the driver: sudo reboot",
                )
            ]
        if not rows:
            return [_no_gpu(build)]
        limit = re.search(r"CUDA Version:\s*([\d.]+)", banner)
        seen = ", ".join(f"{name} ({int(memory) / 1024:.0f} GiB)" for name, _, memory in rows)
        driver = f"{len(rows)} GPU: {seen}; driver {rows[0][1]}, CUDA up to {limit[1] if limit else 'unknown'}"
        return [_compare(context, build, driver, limit[1] if limit else None)]


def _compare(context: Machine, build: TorchBuild | None, driver: str, limit: str | None) -> Finding:
    """The driver is there: will torch use the GPU?"""
    if build is None:
        return _finding("info", f"{driver}; torch is not installed", "pip install 'torchstone[train]'")
    fallback = f"{driver}. Yet torch {build.version} finds 0 of them, and work falls back to the CPU without a word"
    if build.cuda is None:
        return _finding(
            "warning",
            f"{fallback}: this torch was built without CUDA",
            _reinstall(f"CUDA {limit}" if limit else "CUDA"),
        )
    hidden = context.environ.get("CUDA_VISIBLE_DEVICES")
    if not build.devices and hidden is not None:
        return _finding(
            "warning", f"{fallback}: CUDA_VISIBLE_DEVICES='{hidden}' hides them", "unset CUDA_VISIBLE_DEVICES"
        )
    if not build.devices:
        older = limit is not None and _number(limit) < _number(build.cuda)
        why = (
            f"the driver's CUDA {limit} is older than torch's {build.cuda}"
            if older
            else build.problem or "no reason given"
        )
        return _finding(
            "warning",
            f"{fallback}: {why}",
            f"update the driver, or {_reinstall(f'CUDA {limit or build.cuda}')}",
        )
    strange = [f"{name} is {its}" for name, its in build.devices if not _covered(its, build.architectures)]
    if strange:
        return _finding(
            "warning",
            f"{driver}. torch {build.version} has no kernels for it ({', '.join(strange)}; it has "
            f"{', '.join(build.architectures)}): the first convolution will fail",
            "pip install --upgrade torch torchvision",
        )
    return _tried(context, build, driver)


def _tried(context: Machine, build: TorchBuild, driver: str) -> Finding:
    """By all that can be asked torch will use them: does a convolution come out right on each?"""
    broken = [f"{name}: {why}" for number, (name, _) in enumerate(build.devices) if (why := context.convolve(number))]
    count = len(build.devices)
    if broken:
        return _finding(
            "error",
            f"{driver}. torch {build.version} sees {count} of them, and a convolution fails ({'; '.join(broken)})",
            "nvidia-smi: is its memory taken, are there errors? Then sudo reboot, or CUDA_VISIBLE_DEVICES without it",
        )
    cudnn = f", cuDNN {build.cudnn}" if build.cudnn else ", no cuDNN"
    return _finding(
        "info" if build.cudnn else "warning",
        f"{driver}. torch {build.version} (CUDA {build.cuda}{cudnn}) uses {count} of them, and convolves right",
        None if build.cudnn else "pip install --force-reinstall torch torchvision",
    )


def _no_tool(context: Machine, build: TorchBuild | None) -> Finding:
    if (context.proc / "driver/nvidia/version").exists():
        return _finding(
            "warning",
            "an NVIDIA driver is loaded, but nvidia-smi is not on the path: the GPU cannot be looked at (0 seen)",
            "in a container: docker run --gpus all; on a host: sudo apt install nvidia-utils",
        )
    return _no_gpu(build)


def _no_gpu(build: TorchBuild | None) -> Finding:
    """Working without a GPU is fine; the CUDA build of torch brings 4 GB that nothing uses."""
    message = "0 NVIDIA GPUs: everything runs on the CPU"
    if build is not None and build.cuda is not None:
        return _finding(
            "info",
            f"{message}; 4 GB of CUDA libraries lie unused beside torch {build.version} (CUDA {build.cuda})",
            _reinstall("CPU"),
        )
    return _finding("info", message)


def _reinstall(build: str) -> str:
    return (
        "pip install --force-reinstall torch torchvision --index-url URL, with the URL that PyTorch's installation "
        f"page gives for {build}"
    )


def _covered(device: str, architectures: tuple[str, ...]) -> bool:
    """Whether kernels for ``sm_86`` are there: compiled for it, for a smaller minor number of the same major (binary
    compatible), or as PTX (``compute_80``) of an older one."""
    number = _architecture(device)
    for architecture in architectures:
        its = _architecture(architecture)
        if its <= number and (its // 10 == number // 10 or architecture.startswith("compute_")):
            return True
    return False


def _architecture(name: str) -> int:
    """``sm_90a`` → 90."""
    match = re.search(r"\d+", name)
    return int(match[0]) if match else 0


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])


def _finding(severity: str, message: str, hint: str | None = None) -> Finding:
    return Finding.model_validate({"check": "gpu", "severity": severity, "message": message, "hint": hint})
