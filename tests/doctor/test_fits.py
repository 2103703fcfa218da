"""What a training takes of the memory, by shapes alone, and what to do where it is too much."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from command_line import torchstone
from torchstone.doctor import Machine, TorchBuild, _fits
from torchstone.models import cost

GIB = 2**30


def free(sound: Machine, gib: float) -> Machine:
    (sound.proc / "meminfo").write_text(f"MemTotal: 99999999 kB\nMemAvailable: {int(gib * 2**20)} kB\n")
    return sound


def test_a_batch_takes_what_its_layers_keep() -> None:
    """LeNet-5's weights are its own number; what is kept goes with the batch."""
    fixed, one = cost.training_bytes("lenet5", classes=10, crop=32, channels=1, batch=2)
    assert fixed == 4 * 61_706 * 4
    _, more = cost.training_bytes("lenet5", classes=10, crop=32, channels=1, batch=20)
    assert more == 10 * one
    assert cost.training_bytes("lenet5", classes=10, crop=32, channels=1, batch=2, states=1)[0] == 3 * 61_706 * 4


def test_what_fits_and_what_does_not(sound: Machine) -> None:
    fitting = _fits.fits("torchvision:resnet18", 8, 128, free(sound, 16))
    assert fitting.severity == "info"
    large = _fits.fits("torchvision:resnet18", 4096, 128, free(sound, 4))
    assert large.severity == "error"
    most = large.evidence["largest_batch"]
    assert most == _fits.fits("torchvision:resnet18", 8, 128, free(sound, 4)).evidence["largest_batch"]
    assert _fits.fits("torchvision:resnet18", most, 128, free(sound, 4)).severity == "info"
    assert "--set accumulate=" in (large.hint or "")
    none = _fits.fits("torchvision:resnet18", 8, 224, free(sound, 0.5))
    assert "not even 2 images" in (none.hint or "")


def test_a_gpus_memory_counts_where_torch_uses_it(sound: Machine) -> None:
    import dataclasses

    build = TorchBuild("2.7.0", "12.4", 90100, (("NVIDIA L4", "sm_89"),), ("sm_89",), None)
    with_gpu = dataclasses.replace(free(sound, 900), torch_build=lambda: build, command=lambda *_: "2048\n")
    finding = _fits.fits("torchvision:resnet18", 512, 224, with_gpu)
    assert finding.severity == "error"
    assert "2.0 are free on NVIDIA L4" in finding.message


def test_the_command(tmp_path: Path) -> None:
    assert torchstone("doctor", "--model", "lenet5", "--batch", "8").returncode == 0
    done = torchstone("doctor", "--model", "resnet19")
    assert done.returncode == 2
    assert "hint" in done.stderr


PEAK = """
import resource, sys, torch
from torch.nn import functional
from torchstone.models import zoo
name, batch, crop = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
torch.set_num_threads(1)
network = zoo.build(name, classes=1000).train()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
optimiser = torch.optim.AdamW(network.parameters())
for _ in range(2):
    x = torch.randn(batch, 3, crop, crop)
    functional.cross_entropy(network(x), torch.zeros(batch, dtype=torch.long)).backward()
    optimiser.step()
    optimiser.zero_grad()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "batch", "crop"),
    [
        ("torchvision:resnet18", 32, 160),
        ("torchvision:mobilenet_v3_small", 64, 160),
        ("timm:tf_efficientnet_b0", 16, 160),
    ],
)
def test_what_was_foreseen_is_what_a_training_takes(name: str, batch: int, crop: int) -> None:
    """The peak of a process that trains, over what it held with the weights alone."""
    done = subprocess.run(
        [sys.executable, "-c", PEAK, name, str(batch), str(crop)], capture_output=True, text=True, check=True
    )
    fixed, one = cost.training_bytes(name, classes=1000, crop=crop, batch=batch)
    foreseen = fixed * 3 / 4 + one  # the weights were there before
    assert 0.75 < int(done.stdout) / foreseen < 1.35
