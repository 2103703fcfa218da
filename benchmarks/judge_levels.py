"""How often the judge passes a candidate whose true drop is the margin itself: exactly, over all outcomes.

For a test set of n images, a share psi of them on which the two models differ in being right, and a true drop equal to
the margin m, every pair (lost, gained) is weighed with its trinomial probability, and those count that Tango's bound
passes. Nominal is 5 % and 2.5 %. With few images that differ no level can be met exactly, and less is as it should be.

A bound keeps the margin exactly where the score test rejects at it, which is what the grid is computed by, for it is
quick; ``decided_rate`` asks the judge's own rule of every outcome, and tests/judge/test_exact.py holds both together.
"""

from __future__ import annotations

import argparse
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchstone.core.values import Budget
from torchstone.core.verdict import AccuracyResult
from torchstone.judge import accuracy, decide

IMAGES = (100, 200, 400, 765, 1_570, 3_000, 6_280, 10_000)
DISAGREEMENT = (0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2)
MARGINS = (0.003, 0.005, 0.01, 0.02, 0.03, 0.05)
SIDES = 9.0
"""Standard deviations of the counts that are enumerated to either side of the expected ones."""


def outcomes(n: int, lost: float, gained: float) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Counts of lost and gained images, and their probability, when an image is lost or gained with these."""
    ranges = [counts(n, chance) for chance in (lost, gained)]
    x, y = (grid.ravel() for grid in np.meshgrid(*ranges))
    x, y = x[x + y <= n], y[x + y <= n]
    factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    logs = factorials[n] - factorials[x] - factorials[y] - factorials[n - x - y]
    for count, chance in ((x, lost), (y, gained), (n - x - y, 1 - lost - gained)):
        logs += np.where(count > 0, count * np.log(chance if chance > 0 else 1.0), 0.0)
    return x, y, np.exp(logs)


def counts(n: int, chance: float) -> NDArray[np.int64]:
    """Those that are at all likely."""
    if chance <= 0:
        return np.zeros(1, np.int64)
    reach = SIDES * np.sqrt(n * chance * (1 - chance)) + SIDES
    return np.arange(max(0, int(n * chance - reach)), min(n, int(n * chance + reach) + 1) + 1)


def pass_rate(n: int, disagreement: float, drop: float, margin: float, level: float) -> float:
    """Probability that a candidate with this true drop is passed at ``margin``, at the one-sided ``level``."""
    lost, gained, chance = outcomes(n, (disagreement + drop) / 2, (disagreement - drop) / 2)
    passes = accuracy.score(lost, gained, n, margin) <= -NormalDist().inv_cdf(level)
    return float(chance[passes].sum())


def decided(
    lost: NDArray[np.int64], gained: NDArray[np.int64], n: Any, margin: float, level: float, effect: Any = 1.0
) -> NDArray[np.bool_]:
    """Whether the judge passes these counts, by the bounds and the rule that it decides by; ``effect`` is the design
    effect of images in groups. ``n`` may be one number, or one for each."""
    uppers = accuracy.upper_bounds(lost / effect, gained / effect, n / effect, level)
    lowers = -accuracy.upper_bounds(gained / effect, lost / effect, n / effect, level)
    budget = Budget(max_drop=100 * margin)
    images, effects = np.broadcast_to(n, lost.shape), np.broadcast_to(effect, lost.shape)
    passes = []
    for x, y, count, lower, upper, one in zip(lost, gained, images, lowers, uppers, effects, strict=True):
        result = AccuracyResult(
            part="test", images=int(count), baseline_top1=90.0, top1=90.0, lost=int(x), gained=int(y),
            drop=100 * float(x - y) / int(count), drop_upper=100 * float(upper), drop_lower=100 * float(lower),
            design_effect=float(one), agreement=90.0,
        )  # fmt: skip
        passes.append(decide.drop(result, budget, level).outcome == "pass")
    return np.array(passes)


def decided_rate(n: int, disagreement: float, drop: float, margin: float, level: float) -> float:
    """``pass_rate`` by what the judge decides."""
    lost, gained, chance = outcomes(n, (disagreement + drop) / 2, (disagreement - drop) / 2)
    return float(chance[decided(lost, gained, n, margin, level)].sum())


def table(level: float) -> list[tuple[int, float, float, float]]:
    """(n, psi, m, rate) of the whole grid with psi ≥ m, the true drop being m."""
    return [
        (n, psi, margin, pass_rate(n, psi, margin, margin, level))
        for n in IMAGES
        for psi in DISAGREEMENT
        for margin in MARGINS
        if psi >= margin
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--level", type=float, action="append", help="one-sided confidence; 0.95 and 0.975")
    for level in parser.parse_args().level or (0.95, 0.975):
        rows = table(level)
        print(f"nominal {100 * (1 - level):g} %, the true drop being the margin\n")
        print(f"{'n':>7} {'psi':>6} {'n psi':>7}  " + " ".join(f"m={100 * margin:g}%".rjust(7) for margin in MARGINS))
        for n in IMAGES:
            for psi in DISAGREEMENT:
                found = {margin: rate for one, other, margin, rate in rows if (one, other) == (n, psi)}
                cells = [f"{100 * found[margin]:.2f}" if margin in found else "" for margin in MARGINS]
                print(f"{n:>7,} {100 * psi:>5g}% {n * psi:>7.0f}  " + " ".join(cell.rjust(7) for cell in cells))
        for said, which in (
            ("n psi >= 5", [rate for n, psi, _, rate in rows if n * psi >= 5]),
            ("n psi >= 20 and psi >= 1.5 m", [rate for n, psi, m, rate in rows if n * psi >= 20 and psi >= 1.5 * m]),
        ):
            print(f"{said}: {100 * min(which):.2f} to {100 * max(which):.2f} % in {len(which)} cells")
        print()


if __name__ == "__main__":
    main()
