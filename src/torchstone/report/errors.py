"""The section on errors: the confusion matrix or the worst pairs, recall by class, the worst mistakes as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torchstone.core import registry
from torchstone.core.errors import ArtifactError, UserError
from torchstone.core.run import Run
from torchstone.core.values import Candidate, Catalog, Part, Preprocess
from torchstone.core.verdict import CandidateVerdict, Verdict
from torchstone.report import mistakes, pictures
from torchstone.report.mistakes import Comparison, Confusion, Mistake, Recall

MATRIX_CLASSES = 12
"""A confusion matrix of more classes cannot be read on a telephone; the most confused pairs can."""
RECALL_ROWS = 12
PAIRS, PAIRS_BESIDE_MATRIX = 12, 5
PICTURES = 24


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell of the confusion matrix; ``share`` of the row's images, 0..1."""

    images: int
    share: float
    right: bool


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A mistake and its image as a data URI (None: the image could not be read when the report was written)."""

    mistake: Mistake
    uri: str | None
    pixelated: bool


@dataclass(frozen=True, kw_only=True)
class Errors:
    """What the template shows of one model's errors."""

    name: str
    part: Part
    against_baseline: bool
    images: int
    wrong: int
    lost: int
    gained: int
    matrix: list[list[Cell]]
    pairs: list[Confusion]
    recalls: list[Recall]
    recall_floor: float
    classes_with_images: int
    pictures: list[Picture]
    note: str | None

    def position(self, recall: float) -> float:
        """Where a recall lies on the scale from ``recall_floor`` to 100, per cent."""
        return 100 * (recall - self.recall_floor) / (100 - self.recall_floor)


def errors_of(run: Run, candidates: Sequence[Candidate], catalog: Catalog, verdict: Verdict) -> Errors | None:
    """The errors of the chosen candidate, or where none was chosen of the one that came nearest; None without
    predictions."""
    comparison = _comparison(run, candidates, verdict)
    return None if comparison is None else shown(comparison, catalog, candidates[0].artifact.preprocess)


def shown(comparison: Comparison, catalog: Catalog, preprocess: Preprocess) -> Errors:
    """What the template shows of this comparison, its pictures as ``preprocess`` makes them."""
    classes = len(catalog.classes)
    subject, baseline = comparison.subject, comparison.baseline
    recalls = mistakes.recalls(comparison, classes)
    lowest = min((min(recall.subject, recall.baseline) for recall in recalls[:RECALL_ROWS]), default=0.0)
    found, note = pictures_of(mistakes.worst(comparison, PICTURES), catalog, preprocess)
    return Errors(
        name=comparison.name,
        part=comparison.part,
        against_baseline=subject is not baseline,
        images=len(subject.items),
        wrong=int((~subject.right).sum()),
        lost=int((baseline.right & ~subject.right).sum()),
        gained=int((~baseline.right & subject.right).sum()),
        matrix=_matrix(comparison, classes) if classes <= MATRIX_CLASSES else [],
        pairs=mistakes.confusions(comparison, classes, PAIRS_BESIDE_MATRIX if classes <= MATRIX_CLASSES else PAIRS),
        recalls=recalls[:RECALL_ROWS],
        recall_floor=10 * (min(lowest, 89.9) // 10),
        classes_with_images=len(recalls),
        pictures=found,
        note=note,
    )


def _comparison(run: Run, candidates: Sequence[Candidate], verdict: Verdict) -> Comparison | None:
    """The first model of interest whose predictions are stored, beside the baseline on the same part."""
    found = (comparison_of(run, candidates, row, verdict) for row in _of_interest(verdict))
    return next((one for one in found if one is not None), None)


def comparison_of(
    run: Run, candidates: Sequence[Candidate], row: CandidateVerdict, verdict: Verdict
) -> Comparison | None:
    """What the candidate of this row answered, beside the baseline, on the part that the row is about; None where that
    is not stored."""
    from torchstone.evaluate import predict

    by_id = {candidate.id: candidate for candidate in candidates}
    subject, baseline = by_id.get(row.candidate_id), by_id.get(verdict.rows[0].candidate_id)
    if row.accuracy is None or subject is None or baseline is None:
        return None
    part = row.accuracy.part
    try:
        base = mistakes.answers(predict.load(run.predictions(baseline, part)))
        if subject is baseline:
            return Comparison(name=row.name, part=part, subject=base, baseline=base)
        own = mistakes.answers(predict.load(run.predictions(subject, part)), base.items)
    except (ArtifactError, KeyError):
        return None
    return Comparison(name=row.name, part=part, subject=own, baseline=base)


def _of_interest(verdict: Verdict) -> list[CandidateVerdict]:
    """The winner, the shortlist in its order, what was screened, the baseline."""
    rank = {candidate_id: place for place, candidate_id in enumerate(verdict.shortlist, start=1)}

    def order(row: CandidateVerdict) -> tuple[int, float]:
        if row.candidate_id == verdict.winner:
            return 0, 0.0
        if row.candidate_id in rank:
            return 1, rank[row.candidate_id]
        return (3, 0.0) if row.outcome == "baseline" else (2, row.accuracy.drop if row.accuracy else 100.0)

    return sorted(verdict.rows, key=order)


def _matrix(comparison: Comparison, classes: int) -> list[list[Cell]]:
    counts, _ = mistakes.matrices(comparison, classes)
    return [
        [
            Cell(images=int(cell), share=float(cell / max(1, row.sum())), right=given == predicted)
            for predicted, cell in enumerate(row)
        ]
        for given, row in enumerate(counts)
    ]


def pictures_of(worst: list[Mistake], catalog: Catalog, preprocess: Preprocess) -> tuple[list[Picture], str | None]:
    """The images of these mistakes, and a note when some could not be read (a data set that was moved)."""
    from torchstone.core import tables
    from torchstone.data.preprocess import decode

    if not worst:
        return [], None
    shown: list[Picture] = []
    note = None
    try:
        table, _ = tables.read(catalog.table)
        wanted = table.filter(table["item"].is_in([mistake.item for mistake in worst]))
        paths: dict[str, str] = dict(zip(wanted["item"].to_list(), wanted["path"].to_list(), strict=True))
        reader = registry.readers.ready(catalog.reader)
    except UserError as error:
        return [Picture(mistake=mistake, uri=None, pixelated=False) for mistake in worst], error.message
    for mistake in worst:
        uri, pixelated = None, False
        try:
            pixels = decode(reader.image(catalog.root, paths[mistake.item]), preprocess)
            uri, pixelated = pictures.data_uri(pixels), max(pixels.shape[:2]) <= 64
        except (UserError, OSError, KeyError) as error:
            note = note or f"Some images could not be read again: {error}"
        shown.append(Picture(mistake=mistake, uri=uri, pixelated=pixelated))
    return shown, note
