"""Parts that do not hold the same kind of images."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from torchstone.audit import AuditContext, two_sample
from torchstone.core import seeding, tables
from torchstone.core.values import Finding
from torchstone.data.findings import ITEMS_NAMED, name_a_few
from torchstone.data.measure import COLUMNS
from torchstone.data.units import Units, look_alikes, units

if TYPE_CHECKING:
    from numpy.typing import NDArray

FEWEST = 50
"""Images of each part, after matching, below which nothing is said."""

MOST = 2_000
"""Images of each part that are compared: with 2,000 the AUC is known to ± 0.02."""

SIGNIFICANT = 0.01
MATTERS = 0.55
"""AUC that the lower bound has to exceed: large parts differ significantly in ways that matter to nobody."""

SHARES_MATTER = 0.1
"""Share of a part's images that would have to change class for both parts to have the same shares."""

TELLING = 0.1
"""Distance of a measure's own AUC from a half from which on the message names it."""

WORDS = {
    "luma_mean": ("darker", "brighter"),
    "luma_std": ("less contrast", "more contrast"),
    "sharpness": ("less sharp", "sharper"),
    "entropy": ("fewer grey levels", "more grey levels"),
    "pixels": ("smaller", "larger"),
    "aspect": ("narrower", "wider"),
    "bytes_per_pixel": ("compressed more", "compressed less"),
}
"""Measures that have a name for people: what a part is called whose values are lower, and higher."""


class Shift:
    """A classifier two-sample test (Lopez-Paz and Oquab 2017) between train and each held-out part, the source's own
    or the split's. Images are matched class by class, one of each picture or group, so that neither different class
    shares nor copies count; the shares are tested on their own. It compares the features of a frozen network where
    there are any, else measures of the pixels, and says which."""

    requires: ClassVar[tuple[str, ...]] = ()

    def run(self, context: AuditContext) -> list[Finding]:
        together = units(context.table, 0, "shift", look_alikes(context.catalog, context.table))
        labels = context.column("label").astype(np.intp)
        found = []
        for where, part_of in _arrangements(context):
            for held_out in ("val", "test"):
                pair = np.where(part_of == "train", 0, np.where(part_of == held_out, 1, -1))
                alone = _one_of_each(pair, together)
                found += _shares(context, labels[alone], pair[alone], where, held_out)
                rows = _matched(alone, labels[alone], pair[alone])
                if len(rows) >= 2 * FEWEST:
                    found += _content(context, rows, labels[rows], pair[rows], where, held_out)
        return found


def _arrangements(context: AuditContext) -> list[tuple[str, NDArray[np.object_]]]:
    """Names of the parts of each row: those that the source brings, and those that the split added."""
    own = np.array(context.table["part"].to_list(), object)
    own[own == np.array(None)] = "train"
    arrangements = []
    brought = set(own) - {"train"}
    if brought:
        arrangements.append(("the source's own parts", own))
    if context.split is not None:
        table, _ = tables.read(context.split.table)
        part_of = dict(zip(table["item"].to_list(), table["part"].to_list(), strict=True))
        made = np.array([part_of.get(item, "") for item in context.table["item"].to_list()], object)
        made[np.isin(own, list(brought))] = ""
        arrangements.append(("the split", made))
    return arrangements


def _one_of_each(pair: NDArray[np.intp], together: Units) -> NDArray[np.intp]:
    """Rows of the two parts, one of each unit, in the units' random order."""
    rows = np.flatnonzero(pair >= 0)
    rows = rows[np.argsort(together.turns[together.of_row[rows]], kind="stable")]
    return rows[np.sort(np.unique(together.of_row[rows], return_index=True)[1])]


def _matched(rows: NDArray[np.intp], labels: NDArray[np.intp], pair: NDArray[np.intp]) -> NDArray[np.intp]:
    """As many rows of each class from one part as from the other, at most ``MOST`` from each."""
    counts = np.stack([np.bincount(labels[pair == side], minlength=labels.max(initial=0) + 1) for side in (0, 1)])
    wanted = counts.min(0)
    if wanted.sum() > MOST:
        wanted = wanted * MOST // wanted.sum()
    chosen = [
        rows[(labels == label) & (pair == side)][: wanted[label]] for label in np.flatnonzero(wanted) for side in (0, 1)
    ]
    return np.concatenate(chosen) if chosen else rows[:0]


def _content(
    context: AuditContext, rows: NDArray[np.intp], labels: NDArray[np.intp], pair: NDArray[np.intp],
    where: str, held_out: str,
) -> list[Finding]:  # fmt: skip
    measures = _measures(context, rows)
    if context.features is not None:
        compared, vectors = context.features.name, np.asarray(context.features.vectors[rows])
    else:
        compared, vectors = "measures of the pixels", _ranks(np.stack(list(measures.values()), axis=1))
    told = two_sample.tell_apart(vectors, labels, pair, f"{where} {held_out}")
    if told.p > SIGNIFICANT or told.low <= MATTERS:
        return []
    aucs = {name: two_sample.auc(values[pair == 1], values[pair == 0]) for name, values in measures.items()}
    by_size = sorted(aucs, key=lambda name: -abs(aucs[name] - 0.5))
    words = [WORDS[name][aucs[name] > 0.5] for name in by_size if name in WORDS and abs(aucs[name] - 0.5) >= TELLING]
    looks = f"; its images are {name_a_few(words)}" if words else ""
    order = np.argsort(-told.scores, kind="stable")
    return [
        Finding(
            check="shift",
            severity="warning",
            message=f"{held_out} of {where} does not look like train: by {compared}, a linear classifier tells which "
            f"of the two an image of the same class is from with an AUC of {told.auc:.2f} ({told.low:.2f} to "
            f"{told.high:.2f}; 0.5 is guessing){looks}",
            hint="what is measured on it says little about images like those of train; were they taken or stored in "
            "another way?",
            items=context.items(rows[order[pair[order] == 1]][:ITEMS_NAMED]),
            evidence={
                "where": where,
                "parts": ["train", held_out],
                "compared": compared,
                "auc": round(told.auc, 4),
                "interval": [round(told.low, 4), round(told.high, 4)],
                "p": told.p,
                "images_of_each": len(rows) // 2,
                "measures": {name: round(aucs[name], 3) for name in by_size[:5]},
            },
        )
    ]


def _measures(context: AuditContext, rows: NDArray[np.intp]) -> dict[str, NDArray[np.float64]]:
    """What the catalog knows of the images' pixels and files, float64[rows] each."""
    width, height, size = (context.column(name)[rows].astype(np.float64) for name in ("width", "height", "bytes"))
    measured = {name: context.column(name)[rows].astype(np.float64) for name in COLUMNS}
    pixels = np.maximum(width * height, 1)
    return {**measured, "pixels": pixels, "aspect": width / np.maximum(height, 1), "bytes_per_pixel": size / pixels}


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """Each column's ranks on -0.5..0.5, equal values in the middle of theirs: no column counts more for its unit."""
    return np.stack([two_sample.midranks(column) / len(column) - 0.5 for column in values.T], axis=1).astype(np.float32)


def _shares(
    context: AuditContext, labels: NDArray[np.intp], pair: NDArray[np.intp], where: str, held_out: str
) -> list[Finding]:
    """Whether the classes are shared out differently: a permutation test of χ², by the hypergeometric distribution."""
    classes = context.catalog.classes
    train, other = (np.bincount(labels[pair == side], minlength=len(classes)) for side in (0, 1))
    if min(train.sum(), other.sum()) < FEWEST:
        return []
    both = train + other
    expected = both[both > 0] * other.sum() / both.sum()
    drawn = seeding.generator(0, "shares", where, held_out).multivariate_hypergeometric(
        both, int(other.sum()), size=two_sample.PERMUTATIONS, method="marginals"
    )
    statistic = (((np.vstack([other, drawn])[:, both > 0] - expected) ** 2) / expected).sum(1)
    p = float(1 + np.count_nonzero(statistic[1:] >= statistic[0])) / (1 + two_sample.PERMUTATIONS)
    of_train, of_other = train / train.sum(), other / other.sum()
    moved = float(np.abs(of_train - of_other).sum() / 2)
    if p > SIGNIFICANT or moved < SHARES_MATTER:
        return []
    most = np.argsort(-np.abs(of_train - of_other), kind="stable")
    named = [f"{classes[label]} ({100 * of_train[label]:.0f} % and {100 * of_other[label]:.0f} %)" for label in most]
    return [
        Finding(
            check="shift",
            severity="warning",
            message=f"the classes are shared out differently in train and {held_out} of {where}: {name_a_few(named)}",
            hint="accuracy over all images depends on these shares: look at the recall of each class",
            evidence={
                "where": where,
                "parts": ["train", held_out],
                "compared": "class shares",
                "would_have_to_change_class": round(moved, 4),
                "p": p,
            },
        )
    ]
