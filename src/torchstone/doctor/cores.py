"""How many cores this process may really use, against how many the host shows."""

from __future__ import annotations

from typing import ClassVar

from torchstone.core.values import Finding
from torchstone.doctor import Machine


class Cores:
    """The cgroup's quota and the affinity against the host's count: libraries differ in which they believe."""

    requires: ClassVar[tuple[str, ...]] = ()

    def run(self, context: Machine) -> list[Finding]:
        usable, host = context.usable_cores, context.host_cores
        evidence = {"host": host, "affinity": context.affinity, "usable": usable}
        if usable == host:
            return [
                Finding(
                    check="cores",
                    severity="info",
                    message=f"all {host} of the host's cores may be used",
                    evidence=evidence,
                )
            ]
        if usable < context.affinity:
            limit = f"the cgroup's quota allows {usable} of the host's {host} cores"
            believers = f"PyTorch, OpenMP libraries and OpenVINO start {context.affinity} threads, ONNX Runtime {host}"
        else:
            limit = f"the affinity of this process allows {usable} of the host's {host} cores"
            believers = f"ONNX Runtime starts {host} threads (PyTorch, OpenMP libraries and OpenVINO see the {usable})"
        return [
            Finding(
                check="cores",
                severity="warning",
                message=f"{limit}; left to themselves, {believers}, which wait for each other. torchstone gives each "
                "runtime its number of threads; other programs need to be told",
                hint=f"export OMP_NUM_THREADS={usable} (ONNX Runtime: SessionOptions.intra_op_num_threads = {usable})",
                evidence=evidence,
            )
        ]
