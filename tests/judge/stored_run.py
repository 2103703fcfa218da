"""A run directory as the stages leave it, filled with answers and times whose truth is known.

The predictions and timings have the columns and headers of ``evaluate.predict`` and ``evaluate.timing`` and are read
back through them; what a model would have answered, and how long it would have taken, is set by the test.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from torchstone.core import files, tables
from torchstone.core.run import Run
from torchstone.core.values import Artifact, Candidate, MadeBy, Part, Preprocess, RuntimeOptions, Split
from torchstone.evaluate.timing import COLUMNS
from torchstone.judge import select
from torchstone.judge.select import Shortlist

CLASSES = tuple(f"class{number}" for number in range(10))
SIZES: dict[Part, int] = {"train": 2000, "val": 400, "calib": 100, "test": 800}
TOP1 = 0.94


@dataclass
class Model:
    """What a candidate is made to be: ms a call, and images lost and gained against the baseline, by part."""

    ms: float
    lost: dict[Part, int]
    gained: dict[Part, int]


@dataclass
class World:
    """A run under construction."""

    run: Run
    split: Split
    candidates: list[Candidate] = field(default_factory=list)
    models: dict[str, Model] = field(default_factory=dict)

    def add(
        self,
        name: str,
        *,
        ms: float,
        runtime: str = "onnxruntime",
        free: bool = False,
        lost: tuple[int, int] = (0, 0),
        gained: tuple[int, int] = (0, 0),
        kilobytes: int = 188,
        precision: str = "f32",
    ) -> str:
        """A candidate that loses and gains so many images of (val, test); its id. The first one is the baseline."""
        content = np.random.default_rng(files.digest(name).encode()[0]).bytes(kilobytes * 1000) + name.encode()
        directory = self.run.artifacts / files.digest(name)[:12]
        files.write_bytes(directory / "model.onnx", content)
        digest = files.sha256(directory / "model.onnx")
        artifact = Artifact(
            id=files.digest([digest]),
            key=directory.name,
            directory=directory,
            format="onnx",
            files={"model.onnx": digest},
            architecture="lenet5",
            classes=CLASSES,
            preprocess=Preprocess(decoder_version="12", resize=32, crop=32),
            made_by=MadeBy(step="onnx", version=1),
            chain=name,
            split_fingerprint=self.split.fingerprint,
        )
        artifact.save(directory / "artifact.json")
        options = RuntimeOptions.model_validate({"precision": precision})
        candidate = Candidate(name=name, artifact=artifact, runtime=runtime, options=options, free=free)
        self.candidates.append(candidate)
        self.models[candidate.id] = Model(ms, {"val": lost[0], "test": lost[1]}, {"val": gained[0], "test": gained[1]})
        self.run.save_candidates(self.candidates)
        self.predict(candidate, "val")
        return candidate.id

    def candidate(self, candidate_id: str) -> Candidate:
        return next(one for one in self.candidates if one.id == candidate_id)

    def predict(self, candidate: Candidate, part: Part) -> None:
        """Store the answers: the baseline's, with as many images flipped as the model loses and gains."""
        count, model = SIZES[part], self.models[candidate.id]
        random = np.random.default_rng([7, len(part)])
        labels = random.integers(0, len(CLASSES), count)
        right = np.arange(count) < round(TOP1 * count)
        random.shuffle(right)
        still_right = right.copy()
        still_right[np.flatnonzero(right)[: model.lost[part]]] = False
        still_right[np.flatnonzero(~right)[: model.gained[part]]] = True
        answered = np.where(still_right, labels, (labels + 1) % len(CLASSES))
        scores = random.normal(0, 1, (count, len(CLASSES))).astype(np.float32)
        scores[np.arange(count), answered] = 9 + random.random(count, np.float32)
        table = tables.frame(
            {
                "item": [item_of(part, number) for number in range(count)],
                "label": labels.astype(np.int32),
                "scores": scores,
            }
        )
        header = {
            "candidate_id": candidate.id,
            "split_fingerprint": self.split.fingerprint,
            "part": part,
            "kind": "logits",
            "seconds": 1.0,
            "threads": 1,
            "batch": 32,
        }
        tables.write(self.run.predictions(candidate, part), table, header)

    def time(
        self,
        phase: str,
        quartets: int,
        *,
        pairs: Sequence[tuple[Candidate, Candidate]] = (),
        noise: float = 0.01,
        second_process: float = 1.0,
        session: str = "",
        controlled: bool = True,
    ) -> None:
        """One session: every candidate against the baseline, the given ``pairs``, and the A/A control, which one for
        screening has where it is ``controlled``."""
        baseline = self.candidates[0]
        for number, candidate in enumerate(self.candidates):
            rivals = [baseline.id, *(rival.id for one, rival in pairs if one.id == candidate.id)]
            rows = []
            if number == 0 and not controlled:
                rivals = []
            for rival in dict.fromkeys(rivals):
                random = np.random.default_rng([number, len(phase), len(rows)])
                truth = {"candidate": self.models[candidate.id].ms, "rival": self.models[rival].ms}
                if rival == candidate.id:
                    truth["rival"] *= second_process
                for quartet in range(quartets):
                    order = ("ABBA", "BAAB")[random.integers(2)]
                    for slot, letter in enumerate(order):
                        side = "candidate" if letter == "A" else "rival"
                        ms = truth[side] * float(np.exp(random.normal(0, noise)))
                        rows.append(
                            (phase, session or phase, rival, quartet, order, slot, side, 1, ms, 9, 0.1 * len(rows))
                        )
            truth_ms = 20 * self.models[candidate.id].ms
            rows += [(phase, session or phase, None, k, None, 0, "candidate", 32, truth_ms, 3, 60.0) for k in range(5)]
            if self.run.timings(candidate).exists():
                rows = [row for row in self.timings(candidate) if row[0] != phase] + rows
            self.write_timings(candidate, rows)

    def judged(self, shortlist: Shortlist, quartets: int = 16, **session: Any) -> None:
        """The judged session: against the baseline, the same runtime's unchanged weights and the free rival."""
        pairs = []
        for one in (candidate for candidate in self.candidates[1:] if candidate.id in shortlist.order):
            rivals = [select.same_runtime_rival(self.candidates, one)]
            rivals += [rival for rival in self.candidates if rival.id == shortlist.free_rival]
            pairs += [(one, rival) for rival in rivals if rival is not None and rival.id != one.id]
        self.time("judged", quartets, pairs=pairs, **session)

    def timings(self, candidate: Candidate) -> list[tuple]:
        """The stored rows, in the order of ``COLUMNS``."""
        return tables.read(self.run.timings(candidate))[0].rows()

    def write_timings(self, candidate: Candidate, rows: Sequence[Sequence]) -> None:
        path = self.run.timings(candidate)
        columns = {name: [row[number] for row in rows] for number, name in enumerate(COLUMNS)}
        tables.write(path, tables.frame(columns, {"rival": str, "order": str}), {"cpu": "a test"})

    def copy(self, root: Path) -> World:
        """The same run elsewhere, read from its files."""
        run = Run(root / self.run.root.name)
        shutil.copytree(self.run.root, run.root)
        return World(run, run.split(), run.load_candidates(), copy.deepcopy(self.models))


def empty_world(root: Path) -> World:
    run = Run(root / "runs" / "demo")
    table = tables.frame({"item": ["a"], "part": ["test"]})
    tables.write(run.data / "split.parquet", table)
    split = Split(
        seed=0, sizes=SIZES, fingerprint="f" * 64, test_fingerprint="e" * 64, table=run.data / "split.parquet"
    )
    split.save(run.data / "split.json")
    write_catalog(run)
    return World(run, split)


def write_catalog(run: Run, groups: int = 0) -> None:
    """The columns of the catalog that the judge reads; with ``groups``, so many images at a time are one group."""
    items = [item_of(part, number) for part in ("val", "test") for number in range(SIZES[part])]
    columns = {
        "item": items,
        "group": [f"patient {number // groups}" if groups else None for number in range(len(items))],
        "width": np.arange(len(items)) % 97,
        "format": np.where(np.arange(len(items)) % 50 == 7, "png", "jpeg").tolist(),
    }
    tables.write(run.catalog_table, tables.frame(columns, {"group": str}))


def item_of(part: Part, number: int) -> str:
    return f"{part}/{number:05}.png"
