"""Which arithmetic this processor does fast, and what that means for INT8 and BF16."""

from __future__ import annotations

from typing import ClassVar

from torchstone.core.values import Finding
from torchstone.doctor import Machine

INT8 = (
    ("amx_int8", "INT8 in AMX tiles, 2,048 operations a cycle and core against FP32's 64"),
    ("avx512_vnni", "INT8 by AVX512-VNNI dot products, 4 times as many products an instruction as FP32"),
    ("avx_vnni", "INT8 by AVX-VNNI dot products, 4 times as many products an instruction as FP32"),
    ("i8mm", "INT8 by Arm's i8mm matrix products"),
    ("asimddp", "INT8 by Arm's dot products"),
)
BF16 = (
    ("amx_bf16", "BF16 in AMX tiles, 1,024 operations a cycle and core against FP32's 64"),
    ("avx512_bf16", "BF16 by AVX512-BF16 dot products, twice as many products an instruction as FP32"),
    ("bf16", "BF16 by Arm's dot products"),
)
CAPS = (
    "ONEDNN_MAX_CPU_ISA",
    "DNNL_MAX_CPU_ISA",
    "ATEN_CPU_CAPABILITY",
    "OPENBLAS_CORETYPE",
    "NPY_DISABLE_CPU_FEATURES",
)


class Cpu:
    """The processor's name and its instructions for low precision, in words."""

    requires: ClassVar[tuple[str, ...]] = ()

    def run(self, context: Machine) -> list[Finding]:
        findings = [
            Finding(
                check="cpu",
                severity="warning",
                message=f"{name}={context.environ[name]} keeps libraries from the instructions that this CPU has: "
                "timings taken now do not hold without it",
                hint=f"unset {name}",
            )
            for name in CAPS
            if name in context.environ
        ]
        if not context.flags:
            return [
                *findings,
                Finding(
                    check="cpu",
                    severity="info",
                    message=f"{context.cpu}: the system does not list its instructions; what INT8 and BF16 bring, "
                    "only a measurement shows",
                    hint="torchstone demo",
                ),
            ]
        int8 = _first(INT8, context.flags)
        bf16 = _first(BF16, context.flags)
        evidence = {"cpu": context.cpu, "int8": int8 and int8[0], "bf16": bf16 and bf16[0]}
        if int8 is None:
            findings.append(
                Finding(
                    check="cpu",
                    severity="warning",
                    message=f"{context.cpu} has no INT8 dot product (0 of {len(INT8)} known: VNNI, AMX, Arm's): "
                    "INT8 models may be slower than FP32 here, and U8 × S8 products may saturate at 16 bits, which has "
                    "cost a ResNet-50 5.8 points that it keeps on a CPU with VNNI",
                    hint="do not assume, measure here: torchstone run DATA --max-drop 1 --min-speedup 1.1",
                    evidence=evidence,
                )
            )
        else:
            findings.append(
                Finding(
                    check="cpu", severity="info", message=f"{context.cpu}: {int8[1]} ({int8[0]})", evidence=evidence
                )
            )
        words = f"{bf16[1]} ({bf16[0]})" if bf16 else "no BF16 arithmetic: BF16 would be emulated and gain nothing"
        findings.append(Finding(check="cpu", severity="info", message=f"{context.cpu}: {words}", evidence=evidence))
        return findings


def _first(known: tuple[tuple[str, str], ...], flags: frozenset[str]) -> tuple[str, str] | None:
    return next((entry for entry in known if entry[0] in flags), None)
