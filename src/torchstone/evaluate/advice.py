"""What a profile suggests to try next. Each rule looks at shares of the measured time and at the measured peaks."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torchstone.core.values import Finding
from torchstone.evaluate.profile import Profile

CHECK = "profile"
MUCH = 0.5
"""Share of the time from which on something is what the model does."""
SOME = 0.15
"""Share of the time that is worth a change."""
GAIN = 1.5
"""Times that another arithmetic's measured peak must exceed the present one's."""
QUIET = 0.85
"""Share of the time on a processor below which the machine is not this process's own."""
LOW = 0.25
"""Share of its roof below which an operator is far from it."""
TINY_MS = 0.02
"""Below which an operator is mostly the call of it."""
TINY_MEAN_MS = 0.05
"""Of an average operator with what lies around it, below which a network may be too small for advice on arithmetic."""
FUSED = ("norm", "relu", "silu", "hardswish", "hardsigmoid", "hardtanh", "sigmoid", "clamp", "gelu")
CONVERSIONS = ("reorder", "transpose", "cast", "convert", "quantize", "fakequant", "_to_copy", "clone", "contiguous")
GRAPHS = ("onnxruntime", "openvino")


def advise(profile: Profile) -> list[Finding]:
    """What was noticed, with numbers, and the command that follows from it; empty where nothing stands out."""
    rules = OF_TINY if _is_tiny(profile) else RULES
    return [found for rule in rules for found in rule(profile)]


def _busy(profile: Profile) -> Iterator[Finding]:
    if _is_busy(profile):
        yield Finding(
            check=CHECK,
            severity="warning",
            message="others use this machine: the process had a processor for "
            f"{_percent(profile.processor)} of its time. The times are too long, those of long operators most",
            hint="profile again when it is quiet; the shares are right sooner than the milliseconds",
            evidence={"processor": profile.processor},
        )


def _is_busy(profile: Profile) -> bool:
    return profile.processor < QUIET


def _tiny(profile: Profile) -> Iterator[Finding]:
    """A network that waits for its calls: narrower arithmetic and fewer channels save what it does not spend."""
    each = 1e3 * profile.call_ms / len(profile.operators)
    yield _finding(
        f"the network is tiny: its {len(profile.operators)} operators take {each:.0f} µs each, and their arithmetic "
        f"would take {_percent(_arithmetic_share(profile))} of the call at this machine's peak. The rest is what it "
        "costs to start them",
        hint="more images a call (--batch 32) share that cost; INT8, BF16 and pruning gain little here",
        each_us=each,
        arithmetic=_arithmetic_share(profile),
    )


def _is_tiny(profile: Profile) -> bool:
    if not profile.operators or not profile.macs:
        return False
    mean = profile.call_ms / len(profile.operators)
    return mean < TINY_MEAN_MS and _arithmetic_share(profile) < LOW


def _arithmetic_share(profile: Profile) -> float:
    """Of a call, which its operations would take at the peak in f32."""
    return 2e-6 * profile.macs / profile.peaks.arithmetic("f32") / profile.call_ms


def _eager(profile: Profile) -> Iterator[Finding]:
    """What a graph runtime saves: fused operators, and no Python between them."""
    if profile.runtime in GRAPHS:
        return
    fused = profile.time_of(lambda one: any(word in one.kind.lower() for word in FUSED))
    if fused < SOME and (profile.outside < SOME or _is_busy(profile)):
        return
    yield _finding(
        f"{_percent(fused)} of the operators' time goes to batch norms and activations that stand alone, and "
        f"{_percent(profile.outside)} of a call lies outside its operators: a graph runtime fuses the ones and saves "
        "the other",
        hint="export it: torchstone compress MODEL onnx openvino, and profile that",
        fused=fused,
        outside=profile.outside,
    )


def _arithmetic(profile: Profile) -> Iterator[Finding]:
    """A narrower arithmetic, where the present one is the limit and the machine is measurably faster in another."""
    present = profile.peaks.arithmetic("f32")
    bound = profile.time_of(lambda one: one.macs > 0 and one.precision == "f32" and not profile.memory_bound(one))
    if bound < MUCH:
        return
    gains = {name: value / present for name, value in profile.peaks.gflops.items() if name != "f32"}
    wanted = {name: gain for name, gain in gains.items() if gain >= GAIN}
    chains = {"int8": "int8@openvino", "bf16": "bf16@openvino"}
    if wanted:
        faster = " and ".join(f"{name.upper()} {gain:.1f} times" for name, gain in sorted(wanted.items()))
        yield _finding(
            f"{_percent(bound)} of the time goes to f32 arithmetic; this machine's matrix products measure "
            f"{present:.0f} GFLOP/s in f32, and {faster} as many",
            hint=f"torchstone compress MODEL {' '.join(chains[name] for name in sorted(wanted))}, then judge them",
            bound=bound,
            **gains,
        )
    else:
        yield _finding(
            f"{_percent(bound)} of the time goes to f32 arithmetic, and no narrower arithmetic measures faster here",
            hint="fewer operations: a smaller input (--image-size), prune=0.3+finetune=2, or a smaller model "
            "(torchstone models)",
            bound=bound,
        )


def _memory(profile: Profile) -> Iterator[Finding]:
    bound = profile.time_of(lambda one: one.macs > 0 and profile.memory_bound(one))
    if bound < 2 * SOME:
        return
    hint = (
        "INT8 moves a quarter of the bytes (int8@openvino)"
        if all(one.precision != "int8" for one in profile.operators if one.macs)
        else "fewer channels move fewer bytes: prune=0.3+finetune=2"
    )
    yield _finding(
        f"{_percent(bound)} of the time goes to convolutions and matrix products that have too few operations a byte "
        f"to be limited by the arithmetic (below {profile.peaks.arithmetic('f32') / profile.peaks.memory:.0f} in f32)",
        hint=hint + (", and a larger batch shares the weights (--batch 8)" if profile.batch == 1 else ""),
        bound=bound,
    )


def _conversions(profile: Profile) -> Iterator[Finding]:
    share = profile.time_of(lambda one: any(word in one.kind.lower() for word in CONVERSIONS))
    if share < SOME:
        return
    yield _finding(
        f"{_percent(share)} of the time goes to changing layouts and types, which computes nothing",
        hint="another runtime may lay this model out better: profile MODEL@" + _other(profile.runtime),
        share=share,
    )


def _left_in_f32(profile: Profile) -> Iterator[Finding]:
    """In a quantised model: what was not."""
    with_macs = [one for one in profile.operators if one.macs]
    if not any(one.precision == "int8" for one in with_macs):
        return
    left = sorted((one for one in with_macs if one.precision != "int8"), key=lambda one: -one.ms)
    share = sum(one.ms for one in left) / (profile.ms or 1.0)
    if share < SOME:
        return
    yield _finding(
        f"{len(left)} of {len(with_macs)} convolutions and matrix products of this INT8 model run in "
        f"{left[0].precision}, and take {_percent(share)} of its time; '{left[0].layer or left[0].name}' takes most",
        hint="which layers an int8 step leaves out depends on its target: name the runtime that it will run in "
        "(int8@openvino, int8@onnxruntime)",
        share=share,
        layers=[one.layer or one.name for one in left[:10]],
    )


def _far(profile: Profile) -> Iterator[Finding]:
    """Convolutions that neither arithmetic nor memory explains."""
    slow = [one for one in profile.singles if one.macs and one.reached < LOW and one.ms >= TINY_MS]
    share = sum(one.share for one in slow)
    if share < 2 * SOME or _is_busy(profile):
        return
    worst = max(slow, key=lambda one: one.ms)
    yield _finding(
        f"{_percent(share)} of the time goes to {len(slow)} operators that reach less than {_percent(LOW)} of what "
        f"this machine allows them; the costliest, '{worst.name}', reaches {_percent(worst.reached)} "
        f"({worst.gflops:.1f} of {worst.roof:.0f} GFLOP/s)",
        hint=f"profile MODEL@{_other(profile.runtime)}; pruned channels that are no multiple of 16 have this effect, "
        "too (prune=0.3:round_to=16)",
        share=share,
        worst=worst.name,
    )


def _one_layer(profile: Profile) -> Iterator[Finding]:
    first = next((one for one in profile.layers if one.macs), None)
    others = len([one for one in profile.layers if one.macs])
    if first is None or first.share < 2 * SOME or others < 5:
        return
    yield _finding(
        f"one of {others} layers, '{first.name}', takes {_percent(first.share)} of the time and "
        f"{_percent(first.macs / profile.macs)} of the operations",
        hint="a smaller input (--image-size) if it is one of the first layers; fewer channels if it is the last",
        layer=first.name,
        share=first.share,
    )


RULES: tuple[Callable[[Profile], Iterator[Finding]], ...] = (
    _busy, _eager, _left_in_f32, _arithmetic, _memory, _conversions, _far, _one_layer,
)  # fmt: skip
OF_TINY: tuple[Callable[[Profile], Iterator[Finding]], ...] = (_busy, _tiny, _eager, _conversions)


def _other(runtime: str) -> str:
    return "onnxruntime" if runtime == "openvino" else "openvino"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _finding(message: str, *, hint: str, **evidence: object) -> Finding:
    return Finding(check=CHECK, severity="info", message=message, hint=hint, evidence=evidence)
