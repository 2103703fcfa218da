"""What makes times vary, or work slow, on faked machines."""

from __future__ import annotations

from pathlib import Path

import pytest
from faked import examine, only
from test_doctor import nvidia_smi

from torchstone.doctor import Machine, TorchBuild


@pytest.mark.parametrize(("room", "severity"), [(64 * 2**20, "warning"), (2**31, "info")])
def test_shared_memory_of_a_container(sound: Machine, room: int, severity: str) -> None:
    finding = only(examine("shared_memory", sound, free_bytes=lambda _: room), severity)
    assert finding.evidence["mib"] == room // 2**20
    assert ("--shm-size" in (finding.hint or "")) is (severity == "warning")


def test_a_system_without_shared_memory(sound: Machine) -> None:
    def none(_: Path) -> int:
        raise FileNotFoundError

    only(examine("shared_memory", sound, free_bytes=none), "info")


def system(sound: Machine, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = sound.system / "devices/system" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return sound.system


SOURCE = "clocksource/clocksource0/current_clocksource"


def test_a_clock_in_order(sound: Machine) -> None:
    system(sound, {SOURCE: "tsc", "cpu/cpu0/cpufreq/scaling_governor": "performance"})
    finding = only(examine("clock", sound), "info")
    assert finding.evidence == {"source": "tsc", "step_ns": 40}


def test_a_clock_that_is_slow_to_read(sound: Machine) -> None:
    system(sound, {SOURCE: "hpet"})
    assert "'hpet'" in only(examine("clock", sound), "warning").message
    system(sound, {SOURCE: "tsc"})
    assert "15,000,000 ns" in only(examine("clock", sound, clock_step=lambda: 0.015), "warning").message


def test_a_governor_that_holds_the_frequency_low(sound: Machine) -> None:
    system(sound, {SOURCE: "tsc", "cpu/cpu0/cpufreq/scaling_governor": "powersave"})
    assert "cpupower" in (only(examine("clock", sound), "warning").hint or "")
    system(sound, {"cpu/intel_pstate/status": "active"})  # whose 'powersave' follows the load
    assert not [finding for finding in examine("clock", sound) if finding.severity == "warning"]


def ticking(sound: Machine, busy: int, steal: int) -> list[float]:
    """Work during which these ticks of a thousand went by, of two cores."""
    (sound.proc / "stat").write_text(f"cpu {busy} 0 0 {1000 - busy - steal} 0 0 0 {steal} 0 0\n")
    return [1e-3] * 100


@pytest.mark.parametrize(
    ("busy", "steal", "severity"),
    [(500, 0, "info"), (600, 0, "info"), (950, 0, "warning"), (500, 100, "warning")],
)
def test_a_neighbour(sound: Machine, busy: int, steal: int, severity: str) -> None:
    """Of two cores this check keeps one busy: half of all ticks."""
    (sound.proc / "stat").write_text("cpu 0 0 0 0 0 0 0 0 0 0\n")
    finding = only(
        examine("neighbour", sound, spin=lambda: ticking(sound, busy, steal), host_cores=2, affinity=2), severity
    )
    assert finding.evidence["stolen"] == steal / 1000
    assert finding.evidence["others"] == pytest.approx((2 * busy / 1000 - 1) / 2, abs=1e-3)


def test_work_that_takes_longer_now_and_then(sound: Machine) -> None:
    finding = only(examine("neighbour", sound, spin=lambda: [1e-3] * 80 + [2e-3] * 20), "warning")
    assert finding.evidence["spread"] == 2.0
    only(examine("neighbour", sound, spin=lambda: [1e-3] * 95 + [9e-3] * 5), "info")


def test_a_disk_that_is_slow(sound: Machine) -> None:
    findings = examine("disk", sound, write_speed=lambda _: 8e6)
    assert {finding.severity for finding in findings} == {"warning"}
    assert "8 MB a second" in findings[0].message


def test_a_gpu_that_is_seen_and_does_not_convolve(sound: Machine) -> None:
    build = TorchBuild("2.7.0", "12.4", 90100, (("NVIDIA L4", "sm_89"),), ("sm_89",), None)
    finding = only(
        examine(
            "gpu", sound, command=nvidia_smi, torch_build=lambda: build, convolve=lambda _: "CUDA error: out of memory"
        ),
        "error",
    )
    assert "NVIDIA L4: CUDA error: out of memory" in finding.message
    assert finding.hint


def test_this_machine_answers() -> None:
    here = Machine()
    assert 0 < here.clock_step() < 0.1
    assert min(here.spin()) > 0
    assert here.write_speed(here.temporary) > 0
