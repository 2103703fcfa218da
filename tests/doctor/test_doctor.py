"""Each check finds what is wrong with a broken machine, and says what it saw on a sound one."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from faked import examine, mapped, only

from torchstone.core import registry
from torchstone.core.errors import EXTRAS_OF_PACKAGE, ConfigError
from torchstone.doctor import Machine, Package, TorchBuild, doctor


def test_this_machine_is_examined_by_every_check_and_opens_every_runtime() -> None:
    findings = doctor()
    assert {finding.check for finding in findings} == set(registry.machine_checks.names())
    assert not [finding for finding in findings if finding.severity == "error"]
    for check in ("torch", "onnxruntime", "openvino"):
        assert any(finding.check == check and "1" in finding.message for finding in findings)


def test_a_sound_machine_gets_only_information_with_numbers(sound: Machine) -> None:
    findings = doctor(sound)
    assert {finding.severity for finding in findings} == {"info"}
    for finding in findings:
        assert any(letter.isdigit() for letter in finding.message) or finding.hint, finding


def test_errors_come_first_then_warnings(sound: Machine) -> None:
    broken = dataclasses.replace(sound, python=(3, 10, 0), flags=frozenset({"avx2"}), environ={"OMP_NUM_THREADS": "9"})
    severities = [finding.severity for finding in doctor(broken)]
    assert severities[:3] == ["error", "warning", "warning"]
    assert set(severities[3:]) == {"info"}


def test_what_is_not_installed_is_told_with_the_command_that_brings_it(sound: Machine) -> None:
    hints = {finding.check: finding.hint for finding in doctor(sound) if "cannot be imported" in finding.message}
    assert hints == {
        "torch": "pip install 'torchstone[train]'",
        "onnxruntime": "pip install 'torchstone[judge]'",
        "openvino": "pip install 'torchstone[openvino]'",
    }


@pytest.mark.parametrize("version", [(3, 10, 14), (3, 14, 0)])
def test_python_that_is_not_supported(sound: Machine, version: tuple[int, int, int]) -> None:
    assert "3.11 to 3.13" in only(examine("python", sound, python=version), "error").message


def test_python_of_the_system(sound: Machine) -> None:
    assert "venv" in (only(examine("python", sound, virtual=False), "warning").hint or "")
    only(examine("python", sound, virtual=False, environ={"CONDA_PREFIX": "/opt/conda"}), "info")


def test_cpu_without_int8_is_a_warning_and_its_bf16_is_told(sound: Machine) -> None:
    findings = examine("cpu", sound, flags=frozenset({"avx2"}))
    assert "saturate" in only(findings, "warning").message
    assert "no BF16" in only(findings, "info").message


@pytest.mark.parametrize(
    ("flags", "int8", "bf16"),
    [
        ({"avx512_vnni", "amx_int8", "amx_bf16", "avx512_bf16"}, "amx_int8", "amx_bf16"),
        ({"avx_vnni", "avx2"}, "avx_vnni", None),
        ({"asimd", "asimddp"}, "asimddp", None),
    ],
)
def test_cpu_names_the_best_of_its_instructions(sound: Machine, flags: set[str], int8: str, bf16: str | None) -> None:
    findings = examine("cpu", sound, flags=frozenset(flags))
    assert {(finding.evidence["int8"], finding.evidence["bf16"]) for finding in findings} == {(int8, bf16)}


def test_cpu_whose_instructions_are_hidden_or_held_back(sound: Machine) -> None:
    assert "only a measurement" in only(examine("cpu", sound, flags=frozenset()), "info").message
    capped = only(examine("cpu", sound, environ={"ONEDNN_MAX_CPU_ISA": "AVX2"}), "warning")
    assert capped.hint == "unset ONEDNN_MAX_CPU_ISA"


def test_cores_below_the_quota_name_the_runtimes_that_count_the_host(sound: Machine) -> None:
    (sound.cgroup / "cpu.max").write_text("100000 100000\n")
    finding = only(examine("cores", sound, host_cores=64, affinity=64), "warning")
    assert finding.evidence == {"host": 64, "affinity": 64, "usable": 1}
    assert "ONNX Runtime 64" in finding.message
    assert "OMP_NUM_THREADS=1" in (finding.hint or "")


def test_cores_below_the_affinity(sound: Machine) -> None:
    finding = only(examine("cores", sound, host_cores=64), "warning")
    assert "affinity" in finding.message
    assert "1 of the host's 64" in finding.message


@pytest.mark.parametrize(("available", "severity"), [(0.5, "error"), (2, "warning"), (8, "info")])
def test_memory_of_the_host(sound: Machine, available: float, severity: str) -> None:
    kb = int(available * 2**20)
    (sound.proc / "meminfo").write_text(f"MemTotal: 16777216 kB\nMemAvailable: {kb} kB\n")
    assert only(examine("memory", sound), severity).evidence["available_gib"] == available


@pytest.mark.parametrize(
    ("limit", "usage", "stat", "name"),
    [
        ("memory.max", "memory.current", "memory.stat", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
    ],
)
def test_memory_of_the_cgroup_counts_its_file_cache_as_free(
    sound: Machine, limit: str, usage: str, stat: str, name: str
) -> None:
    (sound.cgroup / "memory").mkdir()
    (sound.cgroup / limit).write_text(f"{2 * 2**30}\n")
    (sound.cgroup / usage).write_text(f"{int(1.5 * 2**30)}\n")
    (sound.cgroup / stat).write_text(f"anon 1\n{name} {2**30}\n")
    finding = only(examine("memory", sound), "warning")
    assert finding.evidence == {"available_gib": 1.5, "total_gib": 2.0, "cgroup": True}


def test_memory_that_the_system_does_not_tell(sound: Machine) -> None:
    only(examine("memory", sound, proc=sound.proc / "nothing"), "info")


def test_disk_that_cannot_be_written(sound: Machine, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    finding = only(examine("disk", sound, runs=tmp_path / "file" / "runs"), "info")
    assert finding.evidence["place"] == str(tmp_path)  # the temporary folder is well
    error = only(examine("disk", sound, runs=tmp_path / "file" / "runs"), "error")
    assert "runs" in error.message
    assert "--runs" in (error.hint or "")


@pytest.mark.parametrize(("free", "severity"), [(10**8, "error"), (10**9, "warning"), (10**11, "info")])
def test_disk_that_is_nearly_full(sound: Machine, free: int, severity: str) -> None:
    findings = examine("disk", sound, free_bytes=lambda _: free)
    assert {finding.severity for finding in findings} == {severity}
    assert all(finding.evidence["free_gb"] == free / 10**9 for finding in findings)


def test_the_disk_of_this_machine_is_asked(tmp_path: Path) -> None:
    before = shutil.disk_usage(tmp_path).free
    free = Machine().free_bytes(tmp_path)
    assert abs(free - before) < 0.5 * max(free, before)  # others write beside us


def test_disk_leaves_nothing_behind(sound: Machine, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    examine("disk", sound)
    assert sorted(tmp_path.iterdir()) == before


def test_extras_that_are_missing_in_part(sound: Machine) -> None:
    findings = examine("extras", sound, importable=lambda name: name not in {"timm", "openvino", "nncf"})
    assert "timm" in only(findings, "warning").message
    missing = {finding.evidence["extra"]: finding.hint for finding in findings if finding.evidence["missing"]}
    assert missing == {
        "train": "pip install 'torchstone[train]'",
        "openvino": "pip install 'torchstone[openvino]'",
    }


def test_an_extra_is_not_begun_by_what_another_one_brought(sound: Machine) -> None:
    """Where 'serve' alone is installed, ONNX Runtime is there, and it is none of the judge's that failed."""
    served = {package for package, extras in EXTRAS_OF_PACKAGE.items() if "serve" in extras}
    findings = examine("extras", sound, importable=lambda name: name in served)
    assert {finding.severity for finding in findings} == {"info"}


def test_a_check_can_be_left_out(sound: Machine) -> None:
    assert "neighbour" in {finding.check for finding in doctor(sound)}
    assert "neighbour" not in {finding.check for finding in doctor(sound, skip=["neighbour"])}
    with pytest.raises(ConfigError, match="no check 'neighbor'") as caught:
        doctor(sound, skip=["neighbor"])
    assert "neighbour" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("packages", "severity", "words"),
    [
        ([Package("a", "1", ("b>=2",)), Package("b", "1.9", ())], "warning", "a 1 needs b>=2, but 1.9 is installed"),
        ([Package("a", "1", ("b>=2",))], "warning", "it is not installed"),
        ([Package("torchstone", "0.1", ("numpy>=2",)), Package("NumPy", "1.26", ())], "error", "1.26 is installed"),
        (
            [Package("torchstone", "0.1", ("timm>=1; extra == 'train'",)), Package("timm", "0.9", ())],
            "error",
            "timm>=1",
        ),
        ([Package("torchstone", "0.1", ("timm>=1; extra == 'train'",))], "info", "1 installed packages fit"),
        ([Package("a", "1", ("b>=2; python_version < '3'",))], "info", "fit each other"),
        ([Package("a", "1", ("b>=2; extra == 'x'",)), Package("b", "1", ())], "info", "fit each other"),
        ([Package("a", "1", ("b",)), Package("b", "2.0rc1", ())], "info", "fit each other"),
        ([Package("a-b", "1", ()), Package("a_b", "2", ())], "warning", "installed 2 times"),
    ],
)
def test_conflicts(sound: Machine, packages: list[Package], severity: str, words: str) -> None:
    assert words in only(examine("conflicts", sound, packages=tuple(packages)), severity).message


SMI = "| NVIDIA-SMI 535.129.03   Driver Version: 535.129.03   CUDA Version: 12.2 |\n"
H100 = "NVIDIA H100 80GB HBM3, 535.129.03, 81559\n"
GOOD = TorchBuild("2.6.0+cu121", "12.1", 90100, (("NVIDIA H100", "sm_90"),), ("sm_80", "sm_90"), None)


def nvidia_smi(*arguments: str) -> str:
    return H100 if len(arguments) > 1 else SMI


def test_gpu_in_order(sound: Machine) -> None:
    finding = only(examine("gpu", sound, command=nvidia_smi, torch_build=lambda: GOOD), "info")
    for fact in ("H100", "80 GiB", "535.129.03", "12.2", "12.1", "90100"):
        assert fact in finding.message


@pytest.mark.parametrize(
    ("build", "environ", "words", "hint"),
    [
        (GOOD._replace(cuda=None, devices=()), {}, "without CUDA", "gives for CUDA 12.2"),
        (GOOD._replace(devices=()), {"CUDA_VISIBLE_DEVICES": ""}, "hides them", "unset CUDA_VISIBLE_DEVICES"),
        (GOOD._replace(cuda="13.0", devices=()), {}, "12.2 is older than torch's 13.0", "update the driver"),
        (GOOD._replace(devices=(), problem="no such device"), {}, "no such device", "update the driver"),
        (GOOD._replace(devices=(("GTX 980", "sm_52"),)), {}, "no kernels", "--upgrade torch"),
        (GOOD._replace(cudnn=None), {}, "no cuDNN", "--force-reinstall torch"),
    ],
)
def test_gpu_that_torch_will_not_use(
    sound: Machine, build: TorchBuild, environ: dict[str, str], words: str, hint: str
) -> None:
    found = examine("gpu", sound, command=nvidia_smi, torch_build=lambda: build, environ=environ)
    finding = only(found, "warning")
    assert words in finding.message
    assert hint in (finding.hint or "")


@pytest.mark.parametrize(
    ("device", "architectures", "severity"),
    [
        ("sm_86", ("sm_80",), "info"),  # binary compatible within a major number
        ("sm_80", ("sm_86",), "warning"),
        ("sm_120", ("sm_90", "compute_90"), "info"),  # compiled from PTX when first used
        ("sm_90", ("sm_90a",), "info"),
    ],
)
def test_gpu_architectures(sound: Machine, device: str, architectures: tuple[str, ...], severity: str) -> None:
    build = GOOD._replace(devices=(("GPU", device),), architectures=architectures)
    only(examine("gpu", sound, command=nvidia_smi, torch_build=lambda: build), severity)


def test_gpu_whose_driver_fails(sound: Machine) -> None:
    def failing(*arguments: str) -> str:
        raise subprocess.CalledProcessError(9, arguments, output="NVIDIA-SMI has failed because it couldn't talk\n")

    assert "couldn't talk" in only(examine("gpu", sound, command=failing), "warning").message


def test_gpu_that_a_container_hides(sound: Machine) -> None:
    (sound.proc / "driver/nvidia").mkdir(parents=True)
    (sound.proc / "driver/nvidia/version").write_text("NVRM version")
    assert "--gpus all" in (only(examine("gpu", sound), "warning").hint or "")


def test_no_gpu_is_no_fault_but_the_unused_gigabytes_are_told(sound: Machine) -> None:
    finding = only(examine("gpu", sound, torch_build=lambda: GOOD._replace(devices=())), "info")
    assert "gives for CPU" in (finding.hint or "")
    assert only(examine("gpu", sound), "info").hint is None


def test_openmp_of_two_makers(sound: Machine) -> None:
    (sound.proc / "self/maps").write_text(mapped("/site/torch/lib/libgomp.so.1", "/conda/lib/libiomp5.so"))
    finding = only(examine("openmp", sound), "warning")
    assert finding.evidence["vendors"] == ["GNU libgomp", "Intel libiomp5"]


def test_openmp_of_one_maker_twice_is_told_only(sound: Machine) -> None:
    (sound.proc / "self/maps").write_text(
        mapped("/site/torch/lib/libgomp.so.1", "/site/sk.libs/libgomp-e9.so.1.0.0", "/lib/libcompact.so")
    )
    assert "2 copies" in only(examine("openmp", sound), "info").message


@pytest.mark.parametrize(
    ("variable", "value", "severity"),
    [
        ("OMP_NUM_THREADS", "16", "warning"),
        ("OMP_NUM_THREADS", "many", "warning"),
        ("MKL_NUM_THREADS", "0", "warning"),
        ("OMP_WAIT_POLICY", "active", "warning"),
        ("GOMP_CPU_AFFINITY", "0-1", "warning"),
    ],
)
def test_openmp_variables_that_surprise(sound: Machine, variable: str, value: str, severity: str) -> None:
    finding = only(examine("openmp", sound, environ={variable: value}), severity)
    assert f"{variable}={value}" in finding.message
    assert variable in (finding.hint or "")


def test_openmp_variables_that_fit_or_leave_cores_idle(sound: Machine) -> None:
    assert len(examine("openmp", sound, environ={"OMP_NUM_THREADS": "1"})) == 1
    machine = dataclasses.replace(sound, host_cores=2, affinity=2)
    if Machine().usable_cores >= 2:
        assert "1 of 2 cores" in examine("openmp", machine, environ={"OMP_NUM_THREADS": "1"})[1].message


def test_onnxruntime_installed_twice(sound: Machine) -> None:
    packages = (Package("onnxruntime", "1.20", ()), Package("onnxruntime-gpu", "1.20", ()))
    finding = only(examine("onnxruntime", sound, packages=packages), "error")
    assert "2 distributions" in finding.message


@pytest.mark.parametrize(
    ("check", "broken"),
    [
        ("torch", "torch.nn.functional.conv2d"),
        ("onnxruntime", "onnxruntime.InferenceSession"),
        ("openvino", "torchstone.runtimes.openvino.core"),
    ],
)
def test_a_runtime_that_raises_is_an_error_with_its_words(
    sound: Machine, monkeypatch: pytest.MonkeyPatch, check: str, broken: str
) -> None:
    def refuse(*arguments: Any, **options: Any) -> Any:
        raise OSError("libsomething.so.1: cannot open shared object file")

    monkeypatch.setattr(broken, refuse)
    finding = only(examine(check, sound), "error")
    assert "libsomething.so.1" in finding.message
    assert "--force-reinstall" in (finding.hint or "")


def test_torch_that_computes_wrong_or_starts_too_many_threads(sound: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    assert "64 threads on 1" in only(examine("torch", sound), "warning").message
    monkeypatch.setattr(torch.nn.functional, "conv2d", lambda *_: torch.zeros(1, 1, 6, 6))
    assert "wrong by 9.0" in only(examine("torch", sound), "error").message


def test_the_onnx_model_written_byte_by_byte_is_a_valid_one() -> None:
    onnx = pytest.importorskip("onnx")
    from torchstone.doctor.onnxruntime import one_convolution

    model = onnx.load_model_from_string(one_convolution())
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == ["Conv"]
