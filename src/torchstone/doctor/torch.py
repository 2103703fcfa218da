"""Does PyTorch open, and compute a convolution right?"""

from __future__ import annotations

from typing import ClassVar

from torchstone.core.values import Finding
from torchstone.doctor import Machine


class Torch:
    """One real convolution: nine ones under a 3 × 3 kernel of ones are 9."""

    requires: ClassVar[tuple[str, ...]] = ("torch",)

    def run(self, context: Machine) -> list[Finding]:
        try:
            import torch

            with torch.inference_mode():
                result = torch.nn.functional.conv2d(torch.ones(1, 1, 8, 8), torch.ones(1, 1, 3, 3))
            wrong = (result - 9).abs().max().item()
        except Exception as error:  # whatever a broken build raises is the finding
            return [_broken(f"cannot run one convolution: {type(error).__name__}: {error}")]
        if wrong:
            return [_broken(f"computes a convolution wrong by {wrong} where the answer is 9")]
        onednn = torch.backends.mkldnn.is_available()
        threads = torch.get_num_threads()
        findings = [
            Finding(
                check="torch",
                severity="info" if onednn else "warning",
                message=f"PyTorch {torch.__version__} computed 1 convolution right; "
                f"{threads} threads, oneDNN {'is there' if onednn else 'is missing: convolutions will be slow'}",
                hint=None if onednn else REINSTALL,
                evidence={"version": str(torch.__version__), "threads": threads, "onednn": onednn},
            )
        ]
        if threads > context.usable_cores:
            findings.append(
                Finding(
                    check="torch",
                    severity="warning",
                    message=f"PyTorch would start {threads} threads on {context.usable_cores} usable cores; "
                    "torchstone sets the number itself, other programs do not",
                    hint=f"export OMP_NUM_THREADS={context.usable_cores}",
                    evidence={"threads": threads, "usable": context.usable_cores},
                )
            )
        return findings


REINSTALL = "pip install --force-reinstall --no-cache-dir torch torchvision"


def _broken(what: str) -> Finding:
    return Finding(check="torch", severity="error", message=f"PyTorch is installed but {what}", hint=REINSTALL)
