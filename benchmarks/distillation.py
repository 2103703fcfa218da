"""What a teacher is worth: a student of at most half the teacher's size that learns from it, beside the same student
that learns alone for the same time.

For each seed a teacher is trained on a fixed subset of the training images, then two students: ``student=NAME``, and
``student=NAME:alone=true``, which gets the multiplications that the teacher's answers took as further epochs of its
own. Each begins with fresh weights. A seed is of everything that is drawn: val, weights, order, augmentation. The test
images are the same for all seeds, and choose nothing.

How seeds are pooled. Each test image is answered by both students of every seed, and its answers depend on each other:
an image that is hard is hard for all. So the pooled interval is the judge's own for images that come in groups, where
an image is the group of its answers; it is about other images, for the students that were trained here. What another
seed would give is another question: the second interval is Student's t over the seeds' differences, wide as it is for
three of them. Both are two-sided 95 %, and printed whichever sign they have.

A second start goes on where the first was stopped; students, teachers and answers that are there stay.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

import workbench
from conditions import conditions
from torchstone.config import Settings
from torchstone.core import console, files, seeding
from torchstone.core.errors import UserError
from torchstone.core.numbers import rounded_down, rounded_up
from torchstone.core.registry import readers
from torchstone.core.values import Artifact
from torchstone.core.verdict import AccuracyResult
from torchstone.data.sources import find_reader
from torchstone.evaluate.predict import Predictions
from torchstone.judge import accuracy
from torchstone.models import cost, store, zoo
from torchstone.stages.compress import build_all, plan_all
from torchstone.stages.find import baseline_of
from torchstone.stages.read import read
from torchstone.stages.train import trained

RECIPE = Path(__file__).parents[1] / "examples" / "recipes" / "airbench.toml"
OF_A_TEACHER = ("teacher", "method", "temperature", "share", "alpha", "beta")
"""Options of the step that a student without a teacher does not have."""

Made = TypeVar("Made")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is trained for each seed."""

    images: Path
    place: Path
    teacher: str
    recipe: str
    epochs: int | None
    taught: str
    alone: str


@dataclass(frozen=True, kw_only=True)
class Trained:
    """One seed: three models, their answers on the test images, the seconds that making each took."""

    seed: int
    teacher: Artifact
    student: Artifact
    answers: dict[str, Predictions]
    seconds: dict[str, float]


def subset(data: str, images: int, test: int | None, place: Path) -> Path:
    """A folder with ``images`` of the source's training images, as many of each class as of any other, and with its
    test images (``test`` of them). Always the same ones for the same source."""
    folder = place / f"images-{images}-{test or 'all'}"
    if folder.is_dir():
        return folder
    root, name = find_reader(data)
    reader = readers.get(name)
    listing = reader.listing(root)
    labels, parts = np.array(listing.labels, np.int64), np.array([part or "" for part in listing.parts])
    if not {"train", "test"} <= set(parts.tolist()):
        raise SystemExit(f"error: '{data}' has no training and test part of its own")
    with files.whole_directory(folder) as beside:
        for part, most in (("train", images), ("test", test)):
            rows = np.flatnonzero(parts == part)
            chosen = seeding.sample_rows(labels[rows], most or len(rows), f"distillation-{part}")
            for row in map(int, rows[chosen]):
                path = listing.paths[row]
                file = beside / part / listing.classes[labels[row]] / f"{row:06}{Path(path).suffix.lower()}"
                files.write_bytes(file, reader.image(root, path))
    return folder


def seconds_of(path: Path, name: str, make: Callable[[], Made]) -> tuple[Made, float]:
    """What ``make`` gives, and the seconds that it took when it was made: those of an earlier start, where one has
    noted them. Time that an interrupted start has spent on it is added."""
    noted = files.read_json(path) if path.exists() else {}
    row = noted.get(name, {"seconds": 0.0, "made": False})
    begin = time.monotonic()
    try:
        made = make()
        row = {"seconds": row["seconds"] + (0.0 if row["made"] else time.monotonic() - begin), "made": True}
    except BaseException:
        row = {"seconds": row["seconds"] + time.monotonic() - begin, "made": row["made"]}
        raise
    finally:
        files.write_json(path, {**noted, name: row})
    return made, row["seconds"]


def of_seed(seed: int, plan: Plan) -> Trained:
    """Teacher and students of one seed, and what they answer."""
    settings = Settings(
        data=str(plan.images), name=f"seed-{seed}", runs=plan.place, model=plan.teacher, recipe=plan.recipe,
        epochs=plan.epochs, seed=seed,
    )  # fmt: skip
    data = read(settings)
    spent = data.run.root / "seconds.json"
    teacher, seconds = seconds_of(spent, "teacher", lambda: trained(settings, data))
    base = baseline_of(teacher)
    candidates, took = {"teacher": base}, {"teacher": seconds}
    for name, text in (("taught", plan.taught), ("alone", plan.alone)):
        planned = plan_all([text])
        built, took[name] = seconds_of(spent, text, lambda planned=planned: build_all(planned, base, data, seed=seed))
        candidates[name] = built[0]
    answers = {name: workbench.answered(one, data) for name, one in candidates.items()}
    return Trained(seed=seed, teacher=teacher, student=candidates["taught"].artifact, answers=answers, seconds=took)


def pooled(seeds: list[Trained], classes: tuple[str, ...]) -> AccuracyResult:
    """Both students of all seeds; an image is the group of its answers."""
    images = len(seeds[0].answers["alone"])
    alone, taught = (joined([one.answers[name] for one in seeds]) for name in ("alone", "taught"))
    groups: NDArray[np.int64] = np.tile(np.arange(images), len(seeds))
    return accuracy.compare("test", alone, taught, classes, workbench.LEVEL, groups if len(seeds) > 1 else None)


def joined(answers: list[Predictions]) -> Predictions:
    """The answers of several models as if they were of one, model after model."""
    if any(list(one.items) != list(answers[0].items) for one in answers):
        raise SystemExit("error: the seeds have met other test images: was the source changed? name another --place")
    return Predictions(
        items=np.concatenate([one.items for one in answers]),
        labels=np.concatenate([one.labels for one in answers]),
        scores=np.concatenate([one.scores for one in answers]),
        header={},
    )


def over_seeds(gains: list[float]) -> tuple[float, float] | None:
    """Student's t: 95 % for the mean gain of other seeds; None for fewer than two."""
    if len(gains) < 2:
        return None
    from scipy.stats import t

    half = float(t.ppf(workbench.LEVEL, len(gains) - 1)) * statistics.stdev(gains) / math.sqrt(len(gains))
    return statistics.mean(gains) - half, statistics.mean(gains) + half


def show(plan: Plan, seeds: list[Trained], json: Path) -> None:
    classes = seeds[0].teacher.classes
    crop = seeds[0].teacher.preprocess.crop
    sizes = {
        name: cost.cost_of(store.load_network(one), zoo.input_like(crop, one.preprocess.channels))
        for name, one in (("teacher", seeds[0].teacher), ("student", seeds[0].student))
    }
    share = sizes["student"].parameters / sizes["teacher"].parameters
    print(
        f"\nteacher {plan.teacher}: {sizes['teacher'].parameters:,} parameters, {sizes['teacher'].macs:,} MACs; "
        f"student {seeds[0].student.architecture}: {sizes['student'].parameters:,} ({100 * share:.0f} %), "
        f"{sizes['student'].macs:,}; {crop} pixels\ntaught: {plan.taught}\nalone: {plan.alone}\n"
    )
    rows, gains, found = [], [], []
    for one in seeds:
        result = accuracy.compare("test", one.answers["alone"], one.answers["taught"], classes, workbench.LEVEL)
        teacher = accuracy.compare("test", one.answers["teacher"], one.answers["taught"], classes, workbench.LEVEL)
        gains.append(-result.drop)
        found.append({"seed": one.seed, "teacher_top1": teacher.baseline_top1, **result.model_dump(mode="json")})
        rows.append([
            f"seed {one.seed}", f"{teacher.baseline_top1:.2f}", f"{result.top1:.2f}", f"{result.baseline_top1:.2f}",
            interval(result), *(f"{one.seconds[name]:.0f}" for name in ("teacher", "taught", "alone")),
        ])  # fmt: skip
    whole = pooled(seeds, classes)
    rows.append(["all seeds", "", f"{whole.top1:.2f}", f"{whole.baseline_top1:.2f}", interval(whole), "", "", ""])
    columns = ("", "teacher", "taught", "alone", "taught − alone, points", "teacher s", "taught s", "alone s")
    workbench.printed(f"top-1 on {len(seeds[0].answers['alone']):,} test images, per cent", columns, rows)
    others = over_seeds(gains)
    print(f"\nwith a teacher, these {len(seeds)} students answer {sentence(whole)}")
    if others is not None:
        print(f"mean gain over further seeds: {statistics.mean(gains):+.2f} points, {between(*others)}")
    workbench.written(
        json, plan={name: str(value) for name, value in asdict(plan).items()}, seeds=found,
        seconds=[one.seconds for one in seeds], pooled=whole.model_dump(mode="json"), over_seeds=others,
        parameters={name: one.parameters for name, one in sizes.items()},
        macs={name: one.macs for name, one in sizes.items()},
    )  # fmt: skip


def interval(result: AccuracyResult) -> str:
    """The gain of the taught student over the one that learnt alone, with its bounds."""
    return f"{-result.drop:+.2f} ({between(-result.drop_upper, -result.drop_lower)})"


def between(low: float, high: float) -> str:
    """Both ends, as they may be printed."""
    return f"{rounded_down(low, 2):+z.2f} to {rounded_up(high, 2):+z.2f}"


def sentence(result: AccuracyResult) -> str:
    gained, low, high = -result.drop, -result.drop_upper, -result.drop_lower
    what = f"{abs(gained):.2f} points {'more' if gained >= 0 else 'fewer'} right (95 %: {between(low, high)})"
    if low > 0:
        return f"{what}: the teacher is worth more than its time"
    return f"{what}: its time is worth more than the teacher" if high < 0 else f"{what}: no difference is shown"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="a folder of images of about 32 pixels, such as CIFAR-10's")
    parser.add_argument("--images", type=int, default=4_000, help="of the training images")
    parser.add_argument("--test-images", type=int, help="of the test images; by default all of them")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--teacher", default="airbench_wide")
    parser.add_argument("--recipe", default=str(RECIPE), help="of the teacher")
    parser.add_argument("--epochs", type=int, help="of the teacher; by default as the recipe says")
    parser.add_argument("--student", default="airbench", help="a network of the zoo")
    parser.add_argument("--options", default="epochs=16,views=4", help="of the step 'student', for the taught one")
    parser.add_argument("--place", type=Path, default=Path("runs") / "distillation", help="where the runs are kept")
    parser.add_argument("--json", type=Path, default=Path("distillation.json"))
    given = parser.parse_args()
    print(conditions())
    taught = f"student={given.student}:{given.options}"
    kept = [option for option in given.options.split(",") if option.partition("=")[0] not in OF_A_TEACHER]
    alone = f"student={given.student}:{','.join([*kept, 'alone=true'])}"
    try:
        given.place.mkdir(parents=True, exist_ok=True)
        plan = Plan(
            images=subset(given.data, given.images, given.test_images, given.place),
            place=given.place, teacher=given.teacher, recipe=given.recipe, epochs=given.epochs,
            taught=taught, alone=alone,
        )  # fmt: skip
        seeds = []
        for seed in range(given.seeds):
            console.say(f"seed {seed}")
            seeds.append(of_seed(seed, plan))
        show(plan, seeds, given.json)
    except UserError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
