"""How often a rollout is stopped or promoted, by simulation: of equal candidates, of worse ones, and at the margin.

Every simulated pair of answers is a chance for the controller to decide; nothing is looked at less often than that
where harm is concerned. Wealth that bets on 'worse' can only reach a new high right after a pair that only the stable
model got right, so it is enough to look there; 'no worse' is asked for every EVERY pairs, as a controller that polls
would.

``--compare`` sets the mixture of torchstone beside other ways to choose a bet, and beside the best bet of one who knows
the truth. ``--arms`` simulates a canary, whose two arms answer different requests.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchstone.judge import betting
from torchstone.serve.rollout import monitors
from torchstone.serve.rollout.monitors import MONITORS

ACCURACY = MONITORS["accuracy"]
MARGIN = ACCURACY.margin
EVERY = 25
Hits = NDArray[np.float64]
"""float64[simulations]: after how many pairs the claim was shown; infinite if never."""


def draw(rng: np.random.Generator, pairs: int, disagreement: float, drop: float) -> NDArray[np.int8]:
    """int8[pairs]: X of each pair, 1, 0 or -1."""
    lost, gained, _ = betting.chances_of(disagreement, drop)
    chance = rng.random(pairs, dtype=np.float32)
    return (chance < lost).astype(np.int8) - (chance > 1 - gained).astype(np.int8)


def first(x: NDArray[np.int8], margin: float, alpha: float, claim: betting.Claim) -> float:
    """After how many pairs of ``x`` the mixture shows ``claim``; infinite if never."""
    looks = np.flatnonzero(x == 1) if claim == "worse" else np.arange(EVERY - 1, len(x), EVERY)
    lost, gained = np.cumsum(x == 1)[looks], np.cumsum(x == -1)[looks]
    counts = np.stack([lost, gained, looks + 1 - lost - gained], axis=-1)
    shown = betting.log_wealth(betting.PAIRED, counts, margin, claim) >= betting.threshold(alpha)
    return float(looks[shown.argmax()] + 1) if shown.any() else math.inf


def hits(seed: int, number: int, pairs: int, truth: tuple[float, float], one: Callable[[Any], float]) -> Hits:
    """``one`` of ``number`` simulated rollouts over ``pairs`` pairs each; ``truth`` is disagreement and drop."""
    return np.array([one(draw(np.random.default_rng((seed, trial)), pairs, *truth)) for trial in range(number)])


def plugged(x: NDArray[np.int8], margin: float, alpha: float) -> float:
    """Bets of the growth that is best for the counts so far and a prior of 40 pairs: 'plug-in'."""
    before = [np.r_[0, np.cumsum(x == sign)[:-1]] for sign in (1, -1)]
    pairs = np.arange(len(x)) + 42.0
    lost, gained = (before[0] + 1.5) / pairs, (before[1] + 0.5) / pairs
    mean = lost - gained
    stake = np.clip((mean - margin) / (lost + gained - 2 * margin * mean + margin**2), 0, 0.9 / (1 + margin))
    return _when(np.log1p(stake * (x - margin)), alpha)


def newton(x: NDArray[np.int8], margin: float, alpha: float) -> float:
    """Online Newton steps (Cutkosky & Orabona 2018), as in Waudby-Smith & Ramdas."""
    stake, curvature, logs = 0.0, 1.0, np.empty(len(x))
    for place, distance in enumerate((x - margin).tolist()):
        gain = 1 + stake * distance
        logs[place] = math.log(gain)
        slope = -distance / gain
        curvature += slope * slope
        stake = min(max(stake - 2 / (2 - math.log(3)) * slope / curvature, 0.0), 0.5 / (1 + margin))
    return _when(logs, alpha)


def known(truth: tuple[float, float], margin: float) -> Callable[[NDArray[np.int8], float, float], float]:
    """The bet of one who knows the truth."""
    chances = np.array(betting.chances_of(*truth))
    fractions = np.linspace(0.002, 0.998, 499)
    factors = 1 + fractions[:, None] * (betting.PAIRED - margin) / (1 + margin)
    best = float(fractions[(np.log(factors) @ chances).argmax()])
    return lambda x, m, alpha: _when(np.log1p(best * (x - m) / (1 + m)), alpha)


def _when(logs: NDArray[np.float64], alpha: float) -> float:
    shown = np.cumsum(logs) >= betting.threshold(alpha)
    return float(shown.argmax() + 1) if shown.any() else math.inf


def told(found: Hits) -> str:
    """Share that was ever shown, median and 90th percentile of the pairs until then."""
    ordered = np.sort(found)
    points = [ordered[max(0, math.ceil(share * len(ordered)) - 1)] for share in (0.5, 0.9)]
    median, late = (f"{point:,.0f}" if math.isfinite(point) else "—" for point in points)
    return f"{100 * np.isfinite(found).mean():6.2f} %  median {median:>7}  90 % by {late:>7}"


def watched(number: int, pairs: int) -> dict[str, Any]:
    """The three monitors of a shadow rollout together, at their levels."""
    rows: dict[str, Any] = {}
    print(
        f"{number:,} rollouts of {pairs:,} pairs; margin {100 * MARGIN:g} points; rolled back by any of three monitors"
    )
    for name, at_margin in (("equal", False), ("just at every margin", True)):
        for psi in (0.005, 0.04, 0.2):
            back = np.full(number, math.inf)
            for seed, (monitor, one) in enumerate(MONITORS.items()):
                margin, alpha = one.margin, one.harm
                differ = {"accuracy": psi, "errors": max(0.002, 1.2 * margin), "latency": 0.095}[monitor]
                drop = min(margin, differ) if at_margin else 0.0
                ask = lambda x, m=margin, a=alpha: first(x, m, a, "worse")  # noqa: E731
                back = np.minimum(back, hits(seed, number, pairs, (differ, drop), ask))
            rows[f"{name}, {psi:g}"] = float(np.isfinite(back).mean())
            print(f"  {name:22} disagreement {100 * psi:>4g} %: rolled back {told(back)}", flush=True)
    return rows


WORSE = ((0.04, 0.02, 8_000), (0.02, 0.01, 20_000), (0.04, 0.03, 4_000), (0.12, 0.1, 1_000), (0.2, 0.05, 8_000))
"""Disagreement, drop, and for how many pairs it is watched."""
NO_WORSE = ((0.005, 0.0, 4_000), (0.02, 0.0, 20_000), (0.04, 0.0, 40_000), (0.04, -0.01, 8_000), (0.2, 0.0, 200_000))


def caught(number: int) -> dict[str, Any]:
    """How soon accuracy's monitor sees worse candidates, and how soon an equal or better one is promoted."""
    rows: dict[str, Any] = {}
    cases: tuple[tuple[str, betting.Claim, float, Any], ...] = (
        ("until a worse candidate is caught", "worse", ACCURACY.harm, WORSE),
        ("until promotion", "no worse", ACCURACY.promotion, NO_WORSE),
    )
    for title, claim, alpha, truths in cases:
        print(f"\n{number:,} rollouts each: labelled pairs {title}, α = {100 * alpha:g} %")
        for psi, drop, pairs in truths:
            few = number if pairs <= 40_000 else number // 10
            found = hits(7, few, pairs, (psi, drop), lambda x, c=claim, a=alpha: first(x, MARGIN, a, c))
            expected = betting.needed(betting.PAIRED, betting.chances_of(psi, drop), MARGIN, alpha, claim)
            rows[f"{claim}, {psi:g}, {drop:g}"] = float(np.median(found))
            print(f"  {_case(drop, psi)}: {told(found)}  foreseen {expected or 0:,}", flush=True)
    wrong = hits(9, number, 50_000, (0.04, MARGIN), lambda x: first(x, MARGIN, ACCURACY.promotion, "no worse"))
    rows["promoted at the margin"] = float(np.isfinite(wrong).mean())
    print(f"  {_case(MARGIN, 0.04)} (the margin itself): {told(wrong)}", flush=True)
    return rows


def compared(number: int) -> dict[str, Any]:
    """Ways to choose the bet, on the same simulated pairs."""
    rows: dict[str, Any] = {}
    print(f"\n{number:,} rollouts each: median pairs until a worse candidate is caught, by the way to bet")
    ways: dict[str, Callable[[NDArray[np.int8], float, float], float]] = {
        "mixture": lambda x, margin, alpha: first(x, margin, alpha, "worse"),
        "plug-in": plugged,
        "online Newton": newton,
    }
    for psi, drop, pairs in (*WORSE[:1], (0.02, 0.015, 6_000), *WORSE[3:], (0.2, 0.02, 40_000)):
        found = {}
        for name, way in {**ways, "knowing the truth": known((psi, drop), MARGIN)}.items():
            when = hits(11, number, pairs, (psi, drop), lambda x, way=way: way(x, MARGIN, ACCURACY.harm))
            found[name] = float(np.median(when))
        rows[f"{psi:g}, {drop:g}"] = found
        print(
            f"  {_case(drop, psi)}: " + ", ".join(f"{name} {median:,.0f}" for name, median in found.items()), flush=True
        )
    return rows


def _case(drop: float, disagreement: float) -> str:
    return f"drop {100 * drop:>4g} points, disagreement {100 * disagreement:>4g} %"


def canary(number: int, weight: float, accuracy: float) -> dict[str, Any]:
    """Labelled answers of both arms until a candidate 2 points worse is caught, through the monitor's own blocks."""
    rows: dict[str, Any] = {}
    print(f"\n{number:,} canaries at {100 * weight:g} %, the stable model {100 * accuracy:g} % right")
    for drop, labels in ((0.0, 200_000), (0.02, 200_000), (0.05, 100_000)):
        back = []
        for trial in range(number):
            rng = np.random.default_rng((13, trial))
            arm = rng.random(labels) < weight
            right = rng.random(labels) < np.where(arm, accuracy - drop, accuracy)
            arms = monitors.Arms.of_weight(weight)
            when = math.inf
            for start in range(0, labels, 1_000):
                part = slice(start, start + 1_000)
                answers = np.stack([arm[part], ~right[part]], axis=1).tolist()
                arms = arms.add(("canary" if mine else "stable", bad) for mine, bad in answers)
                values, counts = arms.seen()
                if betting.log_wealth(values, counts, MARGIN, "worse") >= betting.threshold(ACCURACY.harm):
                    when = start + 1_000
                    break
            back.append(when)
        found = np.array(back)
        rows[f"canary, {drop:g}"] = float(np.median(found))
        print(f"  {100 * drop:>4g} points worse: rolled back {told(found)} labels of both arms", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rollouts", type=int, default=2_000)
    parser.add_argument("--pairs", type=int, default=50_000, help="that each rollout of an equal candidate is watched")
    parser.add_argument("--compare", action="store_true", help="ways to choose the bet")
    parser.add_argument("--arms", action="store_true", help="a canary, unpaired")
    parser.add_argument("--json", type=Path, help="write the numbers here, too")
    asked = parser.parse_args()
    rows: dict[str, Any] = {}
    if asked.compare:
        rows = compared(asked.rollouts)
    elif asked.arms:
        rows = canary(asked.rollouts, 0.05, 0.9)
    else:
        rows = watched(asked.rollouts, asked.pairs) | caught(asked.rollouts)
    if asked.json:
        asked.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
