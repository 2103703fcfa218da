"""Can times be told apart here: what counts them, and does the processor keep its pace?"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from torchstone.core.values import Finding
from torchstone.doctor import Machine

SLOW_SOURCES = ("hpet", "acpi_pm", "jiffies", "refined-jiffies", "pit")
"""Counters that are read through the chipset: microseconds a look, where the processor's own takes nanoseconds."""
STEP = 1e-6
"""Seconds that a clock may take to move on."""


class Clock:
    """The kernel's clock, its smallest step, and the governor of the processor's frequency."""

    requires: ClassVar[tuple[str, ...]] = ()

    def run(self, context: Machine) -> list[Finding]:
        findings = [self._source(context)]
        governors = sorted({text for path in _governors(context.system) if (text := _read(path))})
        if "powersave" in governors and _read(context.system / "devices/system/cpu/intel_pstate/status") != "active":
            findings.append(
                Finding(
                    check="clock",
                    severity="warning",
                    message=f"the frequency of {len(_governors(context.system))} cores is governed by 'powersave': "
                    "times vary with what ran before",
                    hint="sudo cpupower frequency-set --governor performance",
                    evidence={"governors": governors},
                )
            )
        return findings

    def _source(self, context: Machine) -> Finding:
        source = _read(context.system / "devices/system/clocksource/clocksource0/current_clocksource") or "unknown"
        step = context.clock_step()
        message = f"times are counted by '{source}', in steps of {step * 1e9:,.0f} ns"
        evidence = {"source": source, "step_ns": round(step * 1e9)}
        if source not in SLOW_SOURCES and step <= STEP:
            return Finding(check="clock", severity="info", message=message, evidence=evidence)
        return Finding(
            check="clock",
            severity="warning",
            message=f"{message}: looking at the clock costs so much that small models seem slower than they are",
            hint="boot with clocksource=tsc, where /proc/cpuinfo says constant_tsc",
            evidence=evidence,
        )


def _governors(system: Path) -> list[Path]:
    return sorted((system / "devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_governor"))


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
