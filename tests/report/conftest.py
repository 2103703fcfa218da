"""A small run directory with real predictions: logistic regression on scikit-learn's digits, its weights rounded and
cut as the compression steps would do. The timings are drawn at random, and the bounds are normal approximations: the
report shows what is stored and does not judge."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from torchstone.core import environment, files, registry, seeding, tables
from torchstone.core.run import Run
from torchstone.core.values import (
    Artifact,
    Budget,
    Candidate,
    Catalog,
    Finding,
    Format,
    MadeBy,
    Metric,
    Outcome,
    Part,
    Preprocess,
    RuntimeOptions,
    Split,
)  # fmt: skip
from torchstone.core.verdict import (
    AccuracyResult,
    CandidateVerdict,
    ControlResult,
    Decision,
    LatencyResult,
    MetricResult,
    SliceResult,
    SpeedResult,
    Verdict,
)  # fmt: skip
from torchstone.report import wording

Floats = NDArray[np.float64]
Story = Literal["judged", "screened", "void"]

BASELINE = "train"
SECONDS = {"train": 61.0, "onnx": 2.5, "openvino": 3.25, "prune": 12.0, "finetune": 95.5, "int8": 7.75}
"""What each step is said to have taken; of the others it is not known."""
LEVEL, Z = 0.975, 1.96
QUARTETS = 24
PARTS: dict[Part, slice] = {
    "train": slice(0, 850), "calib": slice(850, 900), "val": slice(900, 1150), "test": slice(1150, 1797),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A candidate of the fixture: what happens to the weights, and how fast it is said to be."""

    name: str
    runtime: Literal["torch", "onnxruntime", "openvino"]
    ms: float
    keep: float = 1.0
    bits: int = 32
    free: bool = False
    shortlisted: bool = False


RECIPES = (
    Recipe(name="torch fp32", runtime="torch", ms=2.41),
    Recipe(name="onnx @onnxruntime", runtime="onnxruntime", ms=0.412, free=True, shortlisted=True),
    Recipe(name="openvino", runtime="openvino", ms=0.436, free=True),
    Recipe(name="bf16@openvino", runtime="openvino", ms=0.402, bits=9, free=True),
    Recipe(name="int8@onnxruntime", runtime="onnxruntime", ms=0.301, bits=8),
    Recipe(name="int8@openvino", runtime="openvino", ms=0.262, bits=7, shortlisted=True),
    Recipe(name="prune=0.3+finetune=2+int8@openvino", runtime="openvino", ms=0.204, keep=0.7, bits=7),
    Recipe(name="prune=0.5+finetune=2+int8@openvino", runtime="openvino", ms=0.171, keep=0.4, bits=5, shortlisted=True),
    Recipe(name="prune=0.8+int8@onnxruntime", runtime="onnxruntime", ms=0.139, keep=0.12, bits=4),
)


@cache
def digits(classes: int) -> tuple[Floats, NDArray[np.int64]]:
    """float64[1797, 64] in 0..1 and labels; more than ten classes are made by cutting each digit into several."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    pieces = -(-classes // 10)
    piece = np.argsort(np.argsort(images @ np.arange(64))) * pieces // len(images)
    return images / 16, np.minimum(labels * pieces + piece, classes - 1)


@cache
def regression(classes: int) -> tuple[Floats, Floats, dict[str, list[float]]]:
    """Weights[classes, 64], biases[classes] and the history of their training, by stochastic gradient descent."""
    from sklearn.linear_model import SGDClassifier
    from sklearn.metrics import log_loss

    images, labels = digits(classes)
    model = SGDClassifier(loss="log_loss", alpha=1e-4, learning_rate="constant", eta0=0.05, random_state=0)
    history: dict[str, list[float]] = {name: [] for name in ("train_loss", "val_loss", "val_top1")}
    parts: tuple[tuple[str, Part], ...] = (("train_loss", "train"), ("val_loss", "val"))
    for _ in range(12 if classes <= 10 else 2):
        model.partial_fit(images[PARTS["train"]], labels[PARTS["train"]], classes=np.arange(classes))
        for name, part in parts:
            chances = model.predict_proba(images[PARTS[part]])
            history[name].append(float(log_loss(labels[PARTS[part]], chances, labels=np.arange(classes))))
        history["val_top1"].append(100 * float(model.score(images[PARTS["val"]], labels[PARTS["val"]])))
    return np.asarray(model.coef_), np.asarray(model.intercept_), history


def weights_of(recipe: Recipe, classes: int) -> tuple[Floats, Floats]:
    weights, biases, _ = regression(classes)
    threshold = np.quantile(np.abs(weights), 1 - recipe.keep) if recipe.keep < 1 else 0.0
    weights = np.where(np.abs(weights) >= threshold, weights, 0.0)
    if recipe.bits < 32:
        step = np.abs(weights).max() / 2 ** (recipe.bits - 1)
        weights = np.rint(weights / step) * step
    return weights, biases


@dataclass(kw_only=True)
class Builder:
    """Writes one run directory."""

    run: Run
    names: tuple[str, ...]
    budget: Budget
    story: Story
    trained: bool
    recipes: tuple[Recipe, ...]
    origin: Artifact | None = None
    """The baseline's, which is built first."""
    ratios: dict[str, Floats] = field(default_factory=dict)
    """Every candidate's quartets against the baseline, sorted."""

    def build(self) -> Run:
        split = self.data()
        candidates = [self.candidate(recipe, split) for recipe in self.recipes]
        self.run.save_candidates(candidates)
        for candidate, recipe in zip(candidates, self.recipes, strict=True):
            for part in ("val", "test"):
                if part == "val" or self.tested(recipe) or recipe is self.recipes[0]:
                    self.predictions(candidate, recipe, part, split)
            self.timings(candidate, candidates[0], recipe)
        environment.here().save(self.run.environment)
        self.verdict(candidates, split).save(self.run.verdict)
        return self.run

    def tested(self, recipe: Recipe) -> bool:
        return recipe.shortlisted and self.story != "screened"

    def data(self) -> Split:
        _, labels = digits(len(self.names))
        items = [f"{index:04d}.png" for index in range(len(labels))]
        columns: dict[str, Any] = {"item": items, "path": items, "label": labels.astype(np.int32)}
        tables.write(self.run.data / "catalog.parquet", tables.frame(columns))
        Catalog(
            root="digits", reader="digits", classes=self.names, images=len(items), fingerprint="f" * 64,
            table=Path("catalog.parquet"),
        ).save(self.run.data / "catalog.json")  # fmt: skip
        sizes: dict[Part, int] = {part: rows.stop - rows.start for part, rows in PARTS.items()}
        split = Split(
            seed=0, sizes=sizes, fingerprint="5" * 64, test_fingerprint="7e57" * 16, table=Path("split.parquet")
        )
        split.save(self.run.data / "split.json")
        parts = [part for item in range(len(items)) for part, rows in PARTS.items() if rows.start <= item < rows.stop]
        tables.write(self.run.data / "split.parquet", tables.frame({"item": items, "part": parts}))
        findings = [
            Finding(check="converted", severity="info", message="12 images are grey and were read as RGB"),
            Finding(
                check="near-duplicates", severity="warning", message="'0012.png' and '0931.png' are nearly the same",
                hint="keep one of them", items=("0012.png", "0931.png"),
            ),
        ]  # fmt: skip
        files.write_json(self.run.findings, [finding.model_dump(mode="json") for finding in findings])
        return split

    def candidate(self, recipe: Recipe, split: Split) -> Candidate:
        weights, biases = weights_of(recipe, len(self.names))
        content = np.concatenate([weights.ravel(), biases]).astype(np.float32).tobytes()
        content = content[: round(len(content) * min(1.0, recipe.bits / 32 * (0.4 + 0.6 * recipe.keep)))] * 40
        form: Format = (
            "torch" if recipe.runtime == "torch" else "onnx" if recipe.runtime == "onnxruntime" else "openvino"
        )
        if recipe is self.recipes[0]:
            artifact = self.origin = self.artifact(BASELINE, "torch", content, split, None)
        else:
            assert self.origin
            artifact = self.origin
            *before, _ = accumulate(recipe.name.split("+"), "{}+{}".format)
            for chain in before:
                artifact = self.artifact(chain, "torch", content, split, artifact)
            artifact = self.artifact(recipe.name, form, content, split, artifact)
        place = artifact.directory
        if self.trained and recipe is self.recipes[0]:
            history = regression(len(self.names))[2]
            epochs = len(history["val_top1"])
            columns = {"epoch": list(range(1, epochs + 1)), **history, "lr": [0.05] * epochs, "seconds": [1.3] * epochs}
            tables.write(place / "history.parquet", tables.frame(columns), {"best_epoch": epochs})
        return Candidate(
            name=recipe.name, artifact=artifact, runtime=recipe.runtime, options=RuntimeOptions(threads=2),
            free=recipe.free,
        )  # fmt: skip

    def artifact(self, chain: str, form: Format, content: bytes, split: Split, parent: Artifact | None) -> Artifact:
        """Stored as if ``chain``'s last step had made it."""
        name, _, value = chain.rpartition("+")[2].partition("@")[0].strip().partition("=")
        option = registry.steps.get(name).value_option if value else None
        place = self.run.artifacts / files.digest(chain)[:16]
        files.write_bytes(place / "model.bin", content)
        artifact = Artifact(
            id=files.digest(chain), key=place.name, directory=place, format=form,
            files={"model.bin": files.sha256(place / "model.bin")}, architecture="logistic regression",
            classes=self.names, preprocess=Preprocess(decoder_version="12", resize=8, crop=8),
            made_by=MadeBy(step=name, version=1, config={option: float(value)} if option else {}),
            parent=parent.id if parent else None, chain=chain if parent else "",
            notes=(f"{name}: half of the channels left",) if name == "prune" else parent.notes if parent else (),
            seconds=SECONDS.get(name), split_fingerprint=split.fingerprint,
        )  # fmt: skip
        artifact.save(place / "artifact.json")
        return artifact

    def predictions(self, candidate: Candidate, recipe: Recipe, part: Part, split: Split) -> None:
        images, labels = digits(len(self.names))
        weights, biases = weights_of(recipe, len(self.names))
        rows = PARTS[part]
        table = tables.frame(
            {
                "item": [f"{index:04d}.png" for index in range(rows.start, rows.stop)],
                "label": labels[rows].astype(np.int32),
                "scores": (images[rows] @ weights.T + biases).astype(np.float32),
            }
        )
        header = {
            "candidate_id": candidate.id, "split_fingerprint": split.fingerprint, "part": part, "kind": "logits",
            "seconds": 0.1, "threads": 2, "batch": 32,
        }  # fmt: skip
        tables.write(self.run.predictions(candidate, part), table, header)

    def timings(self, candidate: Candidate, baseline: Candidate, recipe: Recipe) -> None:
        """ABBA quartets; a candidate's session against the baseline, the baseline's against itself."""
        draw = seeding.generator(0, recipe.name)
        rows: list[dict[str, Any]] = []
        phase = "judged" if self.tested(recipe) or candidate is baseline else "screening"
        for quartet in range(QUARTETS if phase == "judged" else 8):
            load = math.exp(draw.normal(0, 0.03))
            order = str(draw.choice(["ABBA", "BAAB"]))
            for slot, letter in enumerate(order):
                ms = (recipe.ms if letter == "A" else self.recipes[0].ms) * load * math.exp(draw.normal(0, 0.012))
                rows.append(
                    {
                        "phase": phase, "session": "s1", "rival": baseline.id, "quartet": quartet, "order": order,
                        "slot": slot, "side": "candidate" if letter == "A" else "rival", "batch": 1, "ms": ms,
                        "calls": 40, "at": 0.4 * quartet + 0.05 * slot,
                    }
                )  # fmt: skip
        logs = np.log([row["ms"] for row in rows]).reshape(-1, 4)
        own = np.array([row["side"] == "candidate" for row in rows]).reshape(-1, 4)
        self.ratios[recipe.name] = np.sort(np.exp(np.where(own, -logs, logs).sum(axis=1) / 2))
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        tables.write(self.run.timings(candidate), tables.frame(columns), {"slot_ms": 50})

    def verdict(self, candidates: list[Candidate], split: Split) -> Verdict:
        rows = [
            self.row(candidate, candidates, recipe) for candidate, recipe in zip(candidates, self.recipes, strict=True)
        ]
        shortlist = tuple(row.candidate_id for row in rows if row.shortlisted)
        passed = [row for row in rows if row.outcome == "pass" and row.latency]
        winner = min(passed, key=lambda row: row.latency.median_ms if row.latency else math.inf, default=None)
        void = self.story == "void"
        spread = (0.87, 0.93) if void else (0.991, 1.006)
        return Verdict(
            budget=self.budget, test_fingerprint=split.test_fingerprint, test_images=split.sizes["test"], look=1,
            level=LEVEL, rows=tuple(rows), shortlist=shortlist, winner=winner.candidate_id if winner else None,
            control=ControlResult(
                quartets=QUARTETS, ratio=sum(spread) / 2, interval95=spread,
                interval999=(spread[0] - 0.01, spread[1] + 0.01), outcome="void" if void else "clean",
                reason="another process was busy" if void else "the baseline timed against itself comes out equal",
            ),
            worth_compressing=True if winner else None,
            sentence=f"{winner.name} is {winner.speed.ratio:.1f}× as fast as {candidates[0].name} and loses at most "
            f"{winner.accuracy.drop_upper:.1f} points of top-1." if winner and winner.speed and winner.accuracy
            else "No candidate has been shown to keep to the budget.",
            evidence={
                path.relative_to(self.run.root).as_posix(): files.sha256(path)
                for path in sorted((self.run.root / "evidence").rglob("*.parquet"))
            },
        )  # fmt: skip

    def row(self, candidate: Candidate, candidates: list[Candidate], recipe: Recipe) -> CandidateVerdict:
        baseline = candidate is candidates[0]
        tested = self.tested(recipe)
        accuracy = self.accuracy(recipe, "test" if tested or (baseline and self.story != "screened") else "val")
        ratios = self.ratios[recipe.name]
        ratio, lower, upper = (
            float(np.median(ratios)),
            float(ratios[len(ratios) // 4]),
            float(ratios[-len(ratios) // 4]),
        )
        speed = SpeedResult(
            rival=candidates[0].name, rival_id=candidates[0].id, quartets=QUARTETS if tested else 8, ratio=ratio,
            lower=lower if tested else None, upper=upper if tested else None,
        )  # fmt: skip
        same = next(other for other in self.recipes if other.runtime == recipe.runtime)
        metrics = self.metrics(recipe, accuracy, tested)
        measured = next(one for one in metrics if one.name == self.budget.metric)
        decisions = self.decisions(measured, lower, upper) if tested else ()
        outcome: Any = "baseline" if baseline else "not tested"
        if tested:
            outcomes = [decision.outcome for decision in decisions]
            outcome = next((known for known in ("void", "fail", "undecided") if known in outcomes), "pass")
        return CandidateVerdict(
            candidate_id=candidate.id, slug=candidate.slug, name=candidate.name, runtime=candidate.runtime,
            options=candidate.options, free=candidate.free, shortlisted=tested, level=0.975,
            metrics=metrics,
            slices=(
                SliceResult(
                    column="class", value=self.names[8], images=40, lost=2, gained=0, drop=5.0, drop_upper=17.3,
                    level=0.9975,
                ),
            ) if tested else (),
            size_mb=candidate.artifact.size_mb,
            accuracy=accuracy, speed=None if baseline else speed,
            same_runtime=None if baseline or same is recipe else SpeedResult(
                rival=same.name, rival_id=files.digest(same.name), quartets=QUARTETS, ratio=same.ms / recipe.ms,
                lower=0.97 * same.ms / recipe.ms, upper=1.03 * same.ms / recipe.ms,
            ),
            latency=LatencyResult(median_ms=recipe.ms, lower_ms=0.97 * recipe.ms, upper_ms=1.04 * recipe.ms),
            throughput=1900 / recipe.ms, decisions=decisions, outcome=outcome,
            reason="all others are compared with it" if baseline
            else "; ".join(decision.reason for decision in decisions) or "slower on val than what was shortlisted",
            images_needed=1850 if outcome == "undecided" else None,
        )  # fmt: skip

    def accuracy(self, recipe: Recipe, part: Part) -> AccuracyResult:
        images, labels = digits(len(self.names))
        truth, pixels = labels[PARTS[part]], images[PARTS[part]]
        right = []
        for model in (self.recipes[0], recipe):
            weights, biases = weights_of(model, len(self.names))
            right.append((pixels @ weights.T + biases).argmax(axis=1) == truth)
        lost, gained = int((right[0] & ~right[1]).sum()), int((~right[0] & right[1]).sum())
        drop, reach = 100 * (lost - gained) / len(truth), 100 * Z * math.sqrt(lost + gained + 1) / len(truth)
        return AccuracyResult(
            part=part, images=len(truth), baseline_top1=100 * right[0].mean(), top1=100 * right[1].mean(), lost=lost,
            gained=gained, drop=drop, drop_upper=drop + reach, drop_lower=drop - reach,
            agreement=100 - 100 * (lost + gained) / len(truth),
        )  # fmt: skip

    def metrics(self, recipe: Recipe, accuracy: AccuracyResult, tested: bool) -> tuple[MetricResult, ...]:
        """Top-1 and macro F1 as they are, AUROC as it might be; bounded where the test set was met."""
        from sklearn.metrics import f1_score

        images, labels = (one[PARTS[accuracy.part]] for one in digits(len(self.names)))
        scores = []
        for model in (self.recipes[0], recipe):
            weights, biases = weights_of(model, len(self.names))
            answers = (images @ weights.T + biases).argmax(axis=1)
            scores.append(100 * float(f1_score(labels, answers, average="macro")))
        before, now = scores
        reach = 1.1 * (accuracy.drop_upper - accuracy.drop)
        found = [
            (accuracy.baseline_top1, accuracy.top1, accuracy.drop_lower, accuracy.drop_upper),
            (before, now, before - now - reach, before - now + reach),
            (99.5, 99.25, -0.2, 0.71),
        ]
        names: tuple[Metric, ...] = ("top1", "macro_f1", "auroc")
        return tuple(
            MetricResult(
                name=name, baseline=was, value=value, difference=was - value, lower=low if tested else None,
                upper=high if tested else None,
            )
            for name, (was, value, low, high) in zip(names, found, strict=True)
        )  # fmt: skip

    def decisions(self, measured: MetricResult, lower: float, upper: float) -> tuple[Decision, ...]:
        def decide(kept: bool, broken: bool) -> Outcome:
            return "void" if self.story == "void" else "pass" if kept else "fail" if broken else "undecided"

        margin, most, least = self.budget.max_drop, measured.upper, measured.lower
        assert most is not None
        assert least is not None
        found = [
            Decision(
                criterion="drop", outcome=decide(most <= margin, least > margin),
                reason=f"loses at most {wording.at_most(most)} points, {margin:g} are allowed",
            )
        ]  # fmt: skip
        if self.budget.min_speedup:
            found.append(
                Decision(
                    criterion="speedup",
                    outcome=decide(lower >= self.budget.min_speedup, upper < self.budget.min_speedup),
                    reason=f"at least {wording.times_at_least(lower)} as fast, {self.budget.min_speedup:g}× asked",
                )
            )
        return tuple(found)


MakeRun = Callable[..., Run]


@pytest.fixture(scope="session")
def make_run(tmp_path_factory: pytest.TempPathFactory) -> MakeRun:
    """Builds a run directory: ``make_run(names=…, budget=…, story=…, trained=…, recipes=…)``."""

    def make(
        *,
        names: tuple[str, ...] = tuple("0123456789"),
        budget: Budget | None = None,
        story: Story = "judged",
        trained: bool = True,
        recipes: tuple[Recipe, ...] = RECIPES,
    ) -> Run:
        run = Run(tmp_path_factory.mktemp("runs") / "digits-lenet5")
        budget = budget or Budget(max_drop=2.0, min_speedup=4.0)
        return Builder(run=run, names=names, budget=budget, story=story, trained=trained, recipes=recipes).build()

    return make
