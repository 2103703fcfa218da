"""How often the judge's bounds miss what is true, by simulation, where enumeration is out of reach.

First the bootstrap's bounds of macro F1, AUROC and calibration error: test sets are drawn from a population whose
differences are known (from many images), and the misses of the upper and of the lower bound are counted. Then the
bound of top-1 for images that come in groups: how often a drop equal to the margin passes by Tango's bound as if the
images were independent, and with the design effect.
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from judge_levels import decided
from torchstone.core.values import METRICS
from torchstone.judge import accuracy, bootstrap

SETS = (
    (400, 5, 0.0, 0.1, 1.0, 1.6), (400, 5, 0.6, 0.3, 0.8, 1.6), (150, 3, 0.4, 0.25, 1.3, 1.6),
    (1_000, 5, 0.6, 0.2, 1.0, 1.6),
    (30, 5, 0.0, 0.1, 2.0, 1.6), (150, 5, 0.0, 0.1, 2.0, 1.6), (1_000, 5, 0.0, 0.1, 2.0, 1.6),
    (30, 5, 0.0, 0.1, 1.6, 3.2), (150, 5, 0.0, 0.1, 1.6, 3.2), (1_000, 5, 0.0, 0.1, 1.6, 3.2),
    (1_000, 5, 0.0, 0.02, 1.0, 3.2),
    (120, 5, 0.0, 0.1, 1.0, 1.6), (120, 5, 0.6, 0.3, 0.8, 1.6), (120, 3, 0.4, 0.25, 1.3, 1.6),
    (120, 5, 0.6, 0.2, 1.0, 1.6), (120, 5, 0.0, 0.1, 2.0, 1.6), (120, 5, 0.0, 0.1, 1.6, 3.2),
    (120, 5, 0.0, 0.02, 1.0, 3.2),
)  # fmt: skip
"""Images, classes, how unequal the classes are, how noisy the candidate's logits, how stretched, and how sharp those of
the baseline: 3.2 is calibrated. A calibration error that is found is chance alone in a model that has none, so that the
sets in which one of the two models is calibrated are the hardest for its bounds. The last rows are a small test set of
each population."""
GROUPS = ((12, 10, 10), (40, 10, 10), (150, 10, 10), (12, 2, 42), (40, 2, 42), (150, 2, 42))
"""Groups, and the fewest and the most images of each: any number between is as likely, drawn anew for each test set."""
CORRELATIONS = (0.0, 0.05, 0.3, 0.9)
"""Of two images of a group in being lost, and in being gained."""
POPULATION = 150_000


@dataclass
class Answers:
    items: Any
    labels: NDArray[np.int64]
    scores: NDArray[np.float64]


def drawn(
    random: np.random.Generator, n: int, classes: int, unequal: float, noise: float, scale: float, sharp: float
) -> tuple[Answers, Answers]:
    """Labels, a baseline that is right 96 to 98 times in 100, and a candidate: the baseline with noise."""
    share = np.exp(-unequal * np.arange(classes))
    labels = random.choice(classes, n, p=share / share.sum())
    logits = random.normal(0, 1, (n, classes))
    logits[np.arange(n), labels] += 3.2
    other = scale * sharp * (logits + noise * random.normal(size=(n, classes)))
    return Answers(np.arange(n), labels, sharp * logits), Answers(np.arange(n), labels, other)


def metrics(times: int, resamples: int) -> None:
    for n, classes, unequal, noise, scale, sharp in SETS:
        random = np.random.default_rng(1)
        names = tuple(map(str, range(classes)))
        large = drawn(random, POPULATION, classes, unequal, noise, scale, sharp)
        result = accuracy.compare("test", *large, names, 0.975)
        truth = {one.name: one.difference for one in bootstrap.compare(*large, resamples=None).at(0.975, result)}
        missed: Counter[tuple[str, float, str]] = Counter()
        reach: dict[str, float] = defaultdict(float)
        for _ in range(times):
            pair = drawn(random, n, classes, unequal, noise, scale, sharp)
            draws = bootstrap.compare(*pair, resamples=resamples)
            for level in (0.975, 0.95):
                for one in draws.at(level, accuracy.compare("test", *pair, names, level)):
                    assert one.lower is not None
                    assert one.upper is not None
                    missed[one.name, level, "upper"] += one.upper < truth[one.name]
                    missed[one.name, level, "lower"] += one.lower > truth[one.name]
                    reach[one.name] += (one.upper - one.difference) / times if level == 0.975 else 0
        kind = f"noise {noise}, scale {scale}, sharpness {sharp}"
        print(f"{n} images, {classes} classes (unequal by {unequal}), {kind}, {times} test sets")
        for name, title in METRICS.items():
            cells = [
                f"{100 * (1 - level):g} %: upper {100 * missed[name, level, 'upper'] / times:.1f}, "
                f"lower {100 * missed[name, level, 'lower'] / times:.1f}"
                for level in (0.975, 0.95)
            ]
            print(f"  {title:18} truth {truth[name]:6.2f}, bound + {reach[name]:.2f} points   {'   '.join(cells)}")


def groups(times: int) -> None:
    print("\nimages in groups, a drop equal to the margin, nominal 2.5 %: passes by Tango, and with the design effect")
    for count, fewest, most in GROUPS:
        of = f"{count:>4} groups of {fewest if fewest == most else f'{fewest} to {most}'}"
        for correlation in CORRELATIONS:
            for lost_share, gained_share in ((0.01, 0.001), (0.03, 0.02), (0.08, 0.05)):
                random = np.random.default_rng(3)  # so that each line can be had without the others
                seen = []
                for _ in range(times):
                    sizes = random.integers(fewest, most + 1, count)
                    lost = flips(random, sizes, lost_share, correlation)
                    gained = flips(random, sizes - lost, gained_share, correlation)
                    names = np.repeat(np.arange(count), sizes)
                    place = np.arange(len(names)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
                    effect = accuracy.design_effect(place < lost[names], place >= (sizes - gained)[names], names)
                    seen.append((lost.sum(), gained.sum(), len(names), effect))
                losses, gains, images, effects = (np.array(one) for one in zip(*seen, strict=True))
                margin = lost_share - gained_share * (1 - lost_share)  # only what is not lost can be gained
                passes = [decided(losses, gains, images, margin, 0.975, one).sum() for one in (1.0, effects)]
                said = " and ".join(f"{100 * one / times:.1f} %" for one in passes)
                print(
                    f"  {of}, correlation {correlation:<4g} "
                    f"lost {100 * lost_share:g} %, gained {100 * gained_share:g} %: {said}"
                )


def flips(random: np.random.Generator, sizes: NDArray[np.int64], share: float, correlation: float) -> NDArray[np.int64]:
    """Of groups of these sizes, how many images each loses or gains (beta-binomial)."""
    if not correlation:
        return random.binomial(sizes, share)
    spread = (1 - correlation) / correlation
    return random.binomial(sizes, random.beta(share * spread, (1 - share) * spread, len(sizes)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=400, help="test sets of each kind")
    parser.add_argument("--resamples", type=int, default=1_000, help="of each test set; the judge draws 10,000")
    options = parser.parse_args()
    metrics(options.times, options.resamples)
    groups(5 * options.times)


if __name__ == "__main__":
    main()
