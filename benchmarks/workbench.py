"""What the measurements of compression share: photos in memory, a network nobody trained here, its chains, one timing
session of them all, and an answer as a table and as JSON.

Everything that counts is the product's own: the steps build the chains, the judge's session times them and its sign
test bounds them.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from printing import printed, written  # noqa: F401 - to be had from here, too
from torchstone.compress import build, chain
from torchstone.core import artifact as artifacts
from torchstone.core import console, files, seeding
from torchstone.core.contracts import ImageSet
from torchstone.core.errors import ChainError, DataError
from torchstone.core.numbers import rounded_down, rounded_up
from torchstone.core.run import Run, slug
from torchstone.core.values import Artifact, Candidate, Catalog, MadeBy, Part, Preprocess
from torchstone.core.verdict import AccuracyResult, ControlResult, SpeedResult
from torchstone.data.decode import FORMATS
from torchstone.data.preprocess import prepare
from torchstone.evaluate import predict, timing
from torchstone.evaluate.predict import Predictions
from torchstone.evaluate.timing import Comparison
from torchstone.judge import select, speed
from torchstone.runtimes import golden
from torchstone.stages.find import baseline_of
from torchstone.stages.judge import SESSIONS
from torchstone.stages.read import Data
from torchstone.train import stage
from torchstone.train.stage import TrainRequest

LEVEL = 0.975
"""One-sided confidence of every bound: what the judge's first look at a test set has."""
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


class Photos:
    """The pictures of some folders, decoded once into memory (contracts.ImageSet). A picture's label is the folder that
    it lies in; what cannot be decoded is left out."""

    def __init__(self, paths: Sequence[Path], preprocess: Preprocess) -> None:
        found = {path: pixels for path in paths if (pixels := _decoded(path, preprocess)) is not None}
        names = sorted({str(path.parent) for path in found})
        self._paths, self._pixels = list(found), np.stack(list(found.values()))
        self.items = [str(path) for path in found]
        self.labels: NDArray[np.int64] = np.array([names.index(str(path.parent)) for path in found], np.int64)

    def __len__(self) -> int:
        return len(self.labels)

    def images(self, rows: slice | NDArray[np.intp]) -> NDArray[np.uint8]:
        return self._pixels[rows]

    def stored(self, rows: slice | NDArray[np.intp]) -> NDArray[np.uint8]:
        return self._pixels[rows]

    def encoded(self, row: int) -> bytes:
        return self._paths[row].read_bytes()


def _decoded(path: Path, preprocess: Preprocess) -> NDArray[np.uint8] | None:
    try:
        return prepare(path.read_bytes(), preprocess)
    except DataError as error:
        console.say(f"left out: {path.name}: {error.message}")
        return None


def pictures(folders: Sequence[Path], count: int | None = None) -> list[Path]:
    """The picture files below these folders; of more than ``count``, that many, as evenly over the folders that they
    lie in as can be. Always the same ones."""
    found = sorted(path for folder in folders for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not found:
        raise SystemExit(f"error: no pictures ({', '.join(FORMATS)}) below {', '.join(map(str, folders))}")
    names = sorted({path.parent for path in found})
    labels = np.array([names.index(path.parent) for path in found], np.int64)
    return [found[row] for row in seeding.sample_rows(labels, count or len(found), "benchmark")]


def cut_out(directory: Path, count: int, side: int = 256) -> Path:
    """``count`` pieces of the two photos that come with scikit-learn, as JPEG files in a folder for each: real textures
    where no folder of photos is named."""
    from sklearn.datasets import load_sample_images

    for name, photo in zip(("china", "flower"), load_sample_images().images, strict=True):
        draws = np.random.default_rng(0)
        for number in range(count // 2):
            top, left = (int(draws.integers(0, size - side)) for size in photo.shape[:2])
            buffer = io.BytesIO()
            Image.fromarray(photo[top : top + side, left : left + side]).save(buffer, "JPEG", quality=90)
            files.write_bytes(directory / name / f"{number:03}.jpg", buffer.getvalue())
    return directory


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A network, the photos that its chains are made with, and the run that holds what was made: a second start finds
    it there."""

    run: Run
    baseline: Candidate
    train: tuple[Path, ...]
    threads: int

    def built(self, text: str) -> Candidate | None:
        """The candidate of a chain; None, and why, where this machine or network cannot have it. A final step that
        chooses by val, such as int8:max_drop, is a ChainError: val are the very photos here that it calibrates on."""
        planned = chain.plan(text)
        for one in planned.steps:
            if one.step.final and one.step.wants_val(one.config):
                raise ChainError(
                    f"'{one}' of '{text}' chooses by val, and there are no photos here but those it calibrates on",
                    hint="measure it on a run: torchstone compress RUN CHAIN",
                )
        try:
            return build.candidate(planned, self.baseline.artifact, self._sets, self.run, seed=0, threads=self.threads)
        except ChainError as error:
            console.say(f"left out: '{text}': {error.message}")
            return None

    def _sets(self, preprocess: Preprocess) -> Mapping[Part, ImageSet]:
        seen = _photos(self.train, preprocess.model_dump_json())
        return {"train": seen, "val": seen, "calib": seen}


def untrained(request: TrainRequest, run: Run, train: Sequence[Path], *, classes: int, threads: int) -> Bench:
    """The network of ``request`` as its training would begin: with random weights or, by ``request.weights``, with
    those that it was given. ``train`` are the photos of which its chains are made."""
    names = tuple(f"class {number}" for number in range(classes))
    architecture = stage.architecture_of(request)
    preprocess = stage.preprocess_for(request, architecture)
    source = files.digest([[path.name, path.stat().st_size] for path in train])
    catalog = Catalog(
        root="photos", reader="photos", classes=names, images=len(train), fingerprint=source, table=Path()
    )
    key = artifacts.key_of(
        {"request": request.model_dump(mode="json"), "classes": classes, "photos": source}, stage.PACKAGES
    )

    def make(directory: Path) -> Artifact:
        model, _ = stage.untrained(request, catalog)
        draft = Artifact(
            id="", key=key, format="torch", files={}, architecture=architecture,
            architecture_options={"channels": request.channels, "small_input": request.small_input},
            classes=names, preprocess=preprocess, split_fingerprint=source,
            made_by=MadeBy(step="train", version=stage.VERSION, config=request.model_dump(mode="json")),
        )  # fmt: skip
        photos = _photos(tuple(train), preprocess.model_dump_json())
        made = stage.save_torch(model, draft, photos, directory)
        golden.seal(Candidate(name="torch", artifact=made, runtime="torch"), photos)
        return made

    made = artifacts.build(run.artifacts / f"{slug(architecture.rpartition(':')[2])}-{key[:10]}", make)
    return Bench(run=run, baseline=baseline_of(made, threads), train=tuple(train), threads=threads)


@cache
def _photos(paths: tuple[Path, ...], preprocess: str) -> Photos:
    """``preprocess`` as JSON, which can be a key."""
    return Photos(paths, Preprocess.model_validate_json(preprocess))


def answered(candidate: Candidate, data: Data) -> Predictions:
    """What it answers on the test images, as the judge asks it; the answers stay."""
    images = data.sets(candidate.artifact, "test")["test"]
    return predict.predict(candidate, data.split, "test", images, data.run.predictions(candidate, "test"))


def lost(result: AccuracyResult) -> str:
    """'0.25 (0.61)': the points lost, and at most."""
    return f"{result.drop:z.2f} ({rounded_up(result.drop_upper, 2):z.2f})"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One candidate of a session. ``beside`` maps the name of each rival to the speed against it."""

    name: str
    ms: float
    size_mb: float
    beside: dict[str, SpeedResult]
    notes: tuple[str, ...]

    def faster(self, rival: str) -> str:
        """'5.61× (5.48–5.70)', as far as it was timed and bounded."""
        found = self.beside.get(rival)
        if found is None:
            return "—"
        if found.lower is None or found.upper is None:
            return f"{found.ratio:.2f}×"
        return f"{found.ratio:.2f}× ({rounded_down(found.lower, 2):.2f}–{rounded_up(found.upper, 2):.2f})"


@dataclass(frozen=True, kw_only=True)
class Session:
    """What one timing session found; ``control`` is the baseline against itself."""

    rows: tuple[Row, ...]
    baseline_ms: float
    control: ControlResult | None
    sessions: int
    header: dict[str, Any]

    @property
    def clean(self) -> bool:
        return self.control is not None and self.control.outcome == "clean"

    @property
    def said(self) -> str:
        """A line about what the clock was worth."""
        if self.control is None:
            return "too few quartets for bounds: a rehearsal"
        return f"session {self.sessions} of at most {SESSIONS}: {self.control.reason}"


def timed(
    baseline: Candidate,
    candidates: Sequence[Candidate],
    pixels: NDArray[np.uint8] | Mapping[int, NDArray[np.uint8]],
    quartets: int,
    rivals: Sequence[tuple[Candidate, Candidate]] = (),
) -> Session:
    """Each candidate against the baseline, against the unchanged weights in its own runtime and, of ``rivals``, against
    its second, in one session; held again while the clock cannot be trusted."""
    pairs = [Comparison(one, baseline) for one in candidates]
    for one in candidates:
        same = select.same_runtime_rival([baseline, *candidates], one)
        pairs += [Comparison(one, same)] if same is not None and same.id != baseline.id else []
    pairs += [Comparison(*pair) for pair in rivals]
    number = 0
    while True:
        number += 1
        held = timing.session(pairs, control=baseline, quartets=quartets, phase="judged", pixels=pixels)
        control = speed.control(speed.quartets(held.tables[baseline.id], "judged", baseline.id))
        found = Session(
            rows=tuple(_row(one, held, pairs) for one in candidates),
            baseline_ms=_ms(held.tables[baseline.id]),
            control=control,
            sessions=number,
            header=held.header,
        )
        if control is None or found.clean or number == SESSIONS:
            return found
        console.say(found.said)


def _row(candidate: Candidate, held: timing.Session, pairs: Sequence[Comparison]) -> Row:
    table = held.tables[candidate.id]
    beside = {}
    for pair in pairs:
        if pair.candidate.id == candidate.id:
            measured = speed.quartets(table, "judged", pair.rival.id)
            found = speed.compare(measured, pair.rival.name, pair.rival.id, LEVEL)
            assert found is not None
            beside[pair.rival.name] = found
    artifact = candidate.artifact
    return Row(name=candidate.name, ms=_ms(table), size_mb=artifact.size_mb, beside=beside, notes=artifact.notes)


def _ms(table: Any) -> float:
    own = [ms for ms, side in zip(table["ms"].to_list(), table["side"].to_list(), strict=True) if side == "candidate"]
    return float(np.median(own))
