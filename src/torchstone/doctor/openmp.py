"""Two OpenMP runtimes in one process, and variables that change how many threads start or how they wait."""

from __future__ import annotations

import contextlib
import importlib
import re
from typing import ClassVar

from torchstone.core.numbers import whole
from torchstone.core.values import Finding
from torchstone.doctor import Machine

VENDORS = {"gomp": "GNU libgomp", "iomp5": "Intel libiomp5", "omp": "LLVM libomp"}
COUNTS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_THREAD_LIMIT")
SURPRISES = {
    "OMP_WAIT_POLICY": "decides how waiting threads wait; 'active' burns the cores that a measured model needs",
    "KMP_BLOCKTIME": "lets waiting threads spin; a model measured beside them is slowed down",
    "GOMP_SPINCOUNT": "lets waiting threads spin; a model measured beside them is slowed down",
    "OMP_PROC_BIND": "pins threads; two workers may land on the same core while others idle",
    "KMP_AFFINITY": "pins threads; two workers may land on the same core while others idle",
    "GOMP_CPU_AFFINITY": "pins threads; two workers may land on the same core while others idle",
}


class Openmp:
    """The OpenMP libraries that torch and scikit-learn bring into one process, and the environment they read."""

    requires: ClassVar[tuple[str, ...]] = ()

    def run(self, context: Machine) -> list[Finding]:
        for package in ("torch", "sklearn"):
            if context.importable(package):
                with contextlib.suppress(Exception):  # the check of that package says what is wrong with it
                    importlib.import_module(package)
        findings = [_runtimes(context), *_counts(context)]
        findings += [
            Finding(
                check="openmp",
                severity="warning",
                message=f"{name}={context.environ[name]} {effect}",
                hint=f"unset {name}",
            )
            for name, effect in SURPRISES.items()
            if name in context.environ
        ]
        return findings


def _runtimes(context: Machine) -> Finding:
    """What is mapped into this process now."""
    try:
        maps = (context.proc / "self/maps").read_text()
    except OSError:
        return Finding(check="openmp", severity="info", message="this system does not list the libraries of a process")
    paths = sorted(set(re.findall(r"\S*/lib(?:gomp|iomp5|omp)[-.\w]*$", maps, flags=re.MULTILINE)))
    vendors = sorted(
        {VENDORS[match[1]] for path in paths if (match := re.search(r"/lib(gomp|iomp5|omp)[-.\w]*$", path))}
    )
    evidence = {"libraries": paths, "vendors": vendors}
    if len(vendors) > 1:
        return Finding(
            check="openmp",
            severity="warning",
            message=f"{len(vendors)} different OpenMP runtimes are loaded ({', '.join(vendors)}; {', '.join(paths)}): "
            "each starts its own threads; together they can crash, hang or, with KMP_DUPLICATE_LIB_OK, miscalculate",
            hint="take all packages from one source: pip install --force-reinstall torch scikit-learn numpy scipy",
            evidence=evidence,
        )
    copies = f" in {len(paths)} copies, each with its own threads" if len(paths) > 1 else ""
    return Finding(
        check="openmp",
        severity="info",
        message=f"1 OpenMP runtime is loaded: {vendors[0]}{copies}" if vendors else "0 OpenMP runtimes are loaded",
        evidence=evidence,
    )


def _counts(context: Machine) -> list[Finding]:
    """The variables that set a number of threads, against the usable cores."""
    findings = []
    usable = context.usable_cores
    for name in COUNTS:
        if (text := context.environ.get(name)) is None:
            continue
        first = whole(text.split(",")[0].strip())
        if not first:
            message, severity = (
                f"{name}={text} is no number of threads; libraries ignore it, each in its own way",
                "warning",
            )
        elif first > usable:
            message, severity = f"{name}={text} starts more threads than the {usable} usable cores can run", "warning"
        elif first < usable:
            message = f"{name}={text}: libraries that torchstone does not set itself use {first} of {usable} cores"
            severity = "info"
        else:
            continue
        findings.append(
            Finding(
                check="openmp",
                severity=severity,
                message=message,
                hint=f"export {name}={usable}",
                evidence={"variable": name, "value": text, "usable": usable},
            )
        )
    return findings
