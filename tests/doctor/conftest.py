from __future__ import annotations

from pathlib import Path

import pytest
from faked import mapped

from torchstone.doctor import Machine, Package


@pytest.fixture
def sound(tmp_path: Path) -> Machine:
    """A machine with nothing wrong, whatever this one is like."""
    proc = tmp_path / "proc"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text("MemTotal: 16777216 kB\nMemFree: 1 kB\nMemAvailable: 8388608 kB\n")
    (proc / "self/maps").write_text(mapped("/site/torch/lib/libgomp.so.1"))
    (tmp_path / "cgroup").mkdir()

    def no_such_program(*arguments: str) -> str:
        raise FileNotFoundError(arguments[0])

    return Machine(
        runs=tmp_path / "runs",
        temporary=tmp_path,
        proc=proc,
        cgroup=tmp_path / "cgroup",
        environ={},
        python=(3, 12, 1),
        virtual=True,
        cpu="A Processor",
        flags=frozenset({"avx512_vnni", "avx512_bf16"}),
        host_cores=1,
        affinity=1,
        packages=(Package("torchstone", "0.1.0", ("numpy>=2.0",)), Package("numpy", "2.1.0", ())),
        importable=lambda _: False,
        command=no_such_program,
        free_bytes=lambda _: 10**11,
        torch_build=lambda: None,
        system=tmp_path / "sys",
        convolve=lambda _: None,
        clock_step=lambda: 4e-8,
        spin=lambda: [1e-3] * 100,
        write_speed=lambda _: 5e8,
    )
