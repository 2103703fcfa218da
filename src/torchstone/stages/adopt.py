"""A model that somebody else made becomes an artifact and a bundle of ours."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from torchstone.core import artifact as artifacts
from torchstone.core import console, environment, files, tables
from torchstone.core.errors import ArtifactError, ConfigError, DataError
from torchstone.core.registry import readers
from torchstone.core.run import Run, slug
from torchstone.core.seeding import sample_rows
from torchstone.core.values import Artifact, MadeBy, RuntimeOptions
from torchstone.data import catalog as catalogs
from torchstone.data import declared as declarations
from torchstone.export import bundle
from torchstone.export.foreign import Described, back_end
from torchstone.runtimes import golden, open_artifact, parity
from torchstone.stages import suspect
from torchstone.stages.find import baseline_of
from torchstone.stages.read import Data, opened, prepare
from torchstone.stages.suspect import Trial

if TYPE_CHECKING:
    from numpy.typing import NDArray

CATALOG = "catalog.parquet"
TOLERANCE = {"onnx": golden.TOLERANCE["f32"], "tflite": golden.TOLERANCE["int8"]}
"""What golden logits may differ by elsewhere: a TensorFlow Lite file may compute in integers."""
VERSION = 1
"""Of what is made of a file: part of the artifact's key."""
BACKGROUND = "background"
"""A class that no image has: index 0 of TensorFlow's ImageNet models."""
SUMS_TO_ONE = 0.05
"""How far the scores of an image may be from 1 together and still be probabilities: quantised ones are rounded."""


@dataclass(frozen=True, kw_only=True)
class Adopted:
    """What came of an import."""

    artifact: Artifact
    run: Run
    trial: Trial | None
    quantisable: bool
    """Whether the run has images, split, to calibrate and to judge with."""


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Labelled images, encoded; labels are numbers of the model's classes. ``data``: their run, where they could be
    split; then they are those that are not for test."""

    contents: Sequence[bytes]
    names: Sequence[str]
    labels: NDArray[np.int64]
    data: Data | None


def adopt(
    model: Path,
    *,
    preprocess: str,
    labels: Path | None,
    samples: str | None,
    output: str | None,
    run: Run,
) -> Adopted:
    """Import ``model`` (ONNX or TensorFlow Lite) into ``run`` and write its bundle there.

    ``preprocess`` is a name or a TOML file (``data.declared``); ``labels`` a file with a name a line, or JSON;
    ``samples`` a source of labelled images, with which the declared preprocessing is tried against likely others, and
    which become the run's data where there are enough to split.
    """
    said = declarations.declared(preprocess)
    reader = back_end(model)
    described: Described = reader.describe(model, said.layout, output)
    seen = said.preprocess(described.side)
    console.say(f"{model.name}: {'; '.join(described.notes)}")
    with files.locked(run.root), tempfile.TemporaryDirectory(prefix="torchstone-") as scratch:
        draft = Artifact(
            id="", key="", format=described.format, files={}, architecture=slug(model.stem), classes=(),
            preprocess=seen, input=described.input.model_copy(update={"colour": said.colour}),
            output=described.output, made_by=MadeBy(step="import", version=VERSION), split_fingerprint="none",
        )  # fmt: skip
        raw = _raw(reader, model, draft, described, _names(labels), Path(scratch) / "raw")
        found = None if samples is None else _samples(samples, raw.classes, run)
        trial = None if found is None else suspect.trial(raw, found.contents, found.labels)
        if trial is not None and trial.warning:
            console.say(f"warning: {trial.warning}")
        made = _built(reader, model, raw, said, found, trial, run)
        bundle.write(baseline_of(made), None, run.bundle)
    return Adopted(artifact=made, run=run, trial=trial, quantisable=found is not None and found.data is not None)


def _raw(
    reader: Any, model: Path, draft: Artifact, described: Described, names: list[str] | None, directory: Path
) -> Artifact:
    """The file with what it gives found out: how many classes, probabilities or logits, many images at once."""
    directory.mkdir()
    if described.outputs is None:
        raise ArtifactError(
            f"'{model}' does not say how many scores it gives", hint="export it with the shape of its output"
        )
    classes, offset = _classes(names, described.outputs)
    output = described.output.model_copy(update={"class_offset": offset})
    first: Artifact = reader.adopted(model, draft.model_copy(update={"classes": classes, "output": output}), directory)
    scores = _scores(reader, model, first, described.outputs)
    if first.output.kind == "probabilities" or not _are_probabilities(scores):
        return first
    console.say("its scores sum to 1: they are taken as probabilities")
    pressed = first.model_copy(update={"output": first.output.model_copy(update={"kind": "probabilities"})})
    return reader.adopted(model, pressed, directory)


def _scores(reader: Any, model: Path, artifact: Artifact, outputs: int) -> NDArray[np.float32]:
    """All that it says of a few images; an ArtifactError where that depends on how many come at once, or is not what
    the file says as it came."""
    every = artifact.output.model_copy(update={"class_offset": 0, "kind": "logits"})
    runner = open_artifact(
        artifact.model_copy(update={"classes": tuple(map(str, range(outputs))), "output": every}),
        RuntimeOptions(batch=golden.IMAGES),
    )
    pixels = golden.prepared(golden.synthetic(artifact.preprocess.resize)[0], artifact.preprocess)
    try:
        together = runner(pixels)["logits"]
        alone = np.concatenate([runner(pixels[row : row + 1])["logits"] for row in range(len(pixels))])
    except Exception as error:  # each runtime has its own
        raise ArtifactError(
            f"'{model}' answers one image, and not {len(pixels)} at once: {' '.join(str(error).split())[:200]}",
            hint="export it for any batch size",
        ) from None
    if not np.isfinite(together).all():
        raise ArtifactError(f"'{model}' answers with numbers that are none", hint="is the preprocessing right?")
    if golden.difference(together, alone) > parity.HALVED:
        raise ArtifactError(
            f"'{model}' answers otherwise for several images at once than for each", hint="export it for any batch size"
        )
    there = reader.answered(model, artifact, pixels).reshape(together.shape)
    if golden.difference(together, there) > parity.HALVED:
        raise ArtifactError(
            f"'{model}' answers otherwise as it was read here: its scores differ by "
            f"{golden.difference(together, there):.1e} of the largest",
            hint="export it again, with a later opset and in float32",
        )
    console.say(f"as it was read here, its scores differ by {golden.difference(together, there):.0e} of the largest")
    return together


def _are_probabilities(scores: NDArray[np.float32]) -> bool:
    return bool((scores >= 0).all() and (np.abs(scores.sum(axis=1) - 1) < SUMS_TO_ONE).all())


def _names(path: Path | None) -> list[str] | None:
    """The names in a file: a line each, or a JSON list, or a JSON object from numbers to names."""
    if path is None:
        return None
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the labels '{path}' cannot be read: {error}") from None
    if path.suffix.lower() != ".json":
        return [line.strip() for line in text.splitlines() if line.strip()]
    try:
        content = json.loads(text)
        if isinstance(content, dict):
            content = [content[key] for key in sorted(content, key=int)]
        return [str(name) for name in content]
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"the labels '{path}' are neither a list nor an object of numbers and names: {error}"
        ) from None


def _classes(names: list[str] | None, outputs: int) -> tuple[tuple[str, ...], int]:
    """The classes of so many outputs, and the index of the first. A ConfigError where there are too few or too many."""
    if names is None:
        return tuple(map(str, range(outputs))), 0
    if names and names[0].lower() == BACKGROUND:
        names = names[1:]
    offset = outputs - len(names)
    if offset not in (0, 1):
        raise ConfigError(
            f"there are {len(names):,} labels for {outputs:,} outputs",
            hint=f"a name for each; '{BACKGROUND}' as the first one may be left out",
        )
    if offset:
        console.say(f"one more output than labels: the first, '{BACKGROUND}', is left out")
    often = {name for name, count in Counter(names).items() if count > 1}
    if often:
        console.say(f"several classes are called {', '.join(sorted(often))}: their numbers are added")
    return tuple(f"{name} ({number})" if name in often else name for number, name in enumerate(names)), offset


def _samples(source: str, classes: tuple[str, ...], run: Run) -> Samples:
    """The labelled images of ``source``, in the run where they can be split; else all of them, and no run's data."""
    with tempfile.TemporaryDirectory(prefix="torchstone-") as scratch:
        place = Path(scratch) / "data"
        numbers = catalogs.numbers_among(catalogs.read(source, place, empty_classes=True).classes, classes, source)
        try:
            before = prepare(source, run.data, seed=0, test_fraction=0.2, by="quota")[0]
        except DataError as error:
            console.say(f"the samples are not split, so nothing can be calibrated or judged here: {error.message}")
            catalog, data, table = catalogs.relabelled(place, classes, numbers), None, tables.read(place / CATALOG)[0]
        else:
            catalog = catalogs.relabelled(run.data, classes, catalogs.numbers_among(before.classes, classes, source))
            environment.here().save(run.environment)
            data = opened(run)
            parts = tables.read(data.split.table, ["item", "part"])[0]
            kept = {item for item, part in parts.iter_rows() if part not in ("test", None)}
            table = tables.read(catalog.table)[0]
            table = table.filter([item in kept for item in table["item"]])
        labels = table["label"].to_numpy().astype(np.int64)
        rows = sample_rows(labels, suspect.SAMPLES, "import")
        paths = [str(table["path"][int(row)]) for row in rows]
        reader = readers.ready(catalog.reader)
        contents = [reader.image(catalog.root, path) for path in paths]
    return Samples(contents=contents, names=paths, labels=labels[rows], data=data)


def _built(
    reader: Any, model: Path, raw: Artifact, said: declarations.Declared, samples: Samples | None,
    trial: Trial | None, run: Run,
) -> Artifact:  # fmt: skip
    """The artifact below ``run.artifacts``: preprocessing inside where the format allows it, proven against the file as
    it came."""
    options = {
        "file": files.sha256(model), "declared": said.model_dump(mode="json", exclude={"schema_version"}),
        "output": raw.output.name, "seed": 0,
    }  # fmt: skip
    split = "none" if samples is None or samples.data is None else samples.data.split.fingerprint
    key = files.digest({**options, "classes": list(raw.classes), "version": VERSION, "split": split})
    if samples is None:
        contents, names = golden.synthetic(raw.preprocess.resize)
    else:
        rows = [int(row) for row in sample_rows(samples.labels, golden.IMAGES, "golden")]
        contents, names = [samples.contents[row] for row in rows], [samples.names[row] for row in rows]
    golden.write(raw.directory, contents, names, raw.preprocess, open_artifact(raw), TOLERANCE[raw.format])

    def make(directory: Path) -> Artifact:
        made: Artifact = reader.baked(raw, directory)
        made = parity.proven(raw, made, "imported, its preprocessing inside")
        if samples is None:
            made = artifacts.noted(made, "its golden images are synthetic: it came without samples")
        if trial is not None and trial.warning:
            made = made.model_copy(update={"notes": (*made.notes, trial.warning)})
        made = made.model_copy(
            update={
                "key": key,
                "made_by": MadeBy(step="import", version=VERSION, config=options),
                "split_fingerprint": split,
            }
        )
        golden.write(directory, contents, names, made.preprocess, open_artifact(made), TOLERANCE[raw.format])
        return made

    return artifacts.build(run.artifacts / f"import-{key[:10]}", make)
