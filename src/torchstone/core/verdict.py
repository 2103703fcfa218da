"""The judge's answer, as values: one row a candidate, one decision a criterion."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from torchstone.core.values import Budget, Metric, Outcome, Part, RuntimeOptions, Value

Criterion = Literal["drop", "speedup", "latency", "size"]
Proof = Literal["proven", "refuted", "open"]
Procedure = Literal["fixed-order", "holm"]


class AccuracyResult(Value):
    """Paired top-1 of candidate and baseline on the same images. Drops are in points; negative is a gain."""

    part: Part
    images: int
    baseline_top1: float = Field(description="per cent")
    top1: float = Field(description="per cent")
    lost: int = Field(description="images right in the baseline, wrong in the candidate")
    gained: int = Field(description="images wrong in the baseline, right in the candidate")
    drop: float
    drop_upper: float = Field(description="Tango's one-sided score bound at the row's level")
    drop_lower: float
    groups: int | None = Field(default=None, description="groups that the images come in; None: each is its own")
    design_effect: float = Field(
        default=1.0, description="images that count as one: what the counts are divided by, for the bounds"
    )
    keeps_99: Proof = Field(
        default="open", description="whether 99 % of the baseline's top-1 is kept, by the bounds of the drop"
    )
    agreement: float = Field(description="per cent of images on which both give the same class")


class MetricResult(Value):
    """One metric of candidate and baseline on the same images, in per cent and points. Bounds are one-sided, at the
    row's level: Tango's for top-1, those of the paired bootstrap for the others."""

    name: Metric
    baseline: float
    value: float
    difference: float = Field(description="points by which the candidate is worse; negative: it is better")
    lower: float | None = Field(default=None, description="None where nothing is claimed: on val")
    upper: float | None = None


class SliceResult(Value):
    """Top-1 of the test images that have something in common. The bounds of one column hold together."""

    column: str = Field(description="'class', or a column of the catalog")
    value: str
    images: int
    lost: int
    gained: int
    drop: float = Field(description="points of the slice's own top-1")
    drop_upper: float = Field(description="Tango's one-sided bound at 1 - α/k for the k slices of the column")
    level: float = Field(description="1 - α/k")


class SpeedResult(Value):
    """Paired speed against one rival: how many times faster, from the quartets of one session."""

    rival: str = Field(description="name of the rival candidate")
    rival_id: str
    quartets: int
    ratio: float = Field(description="median over the quartets")
    lower: float | None = Field(
        description="one-sided bound at the row's level; None: too few quartets, or no clean A/A control"
    )
    upper: float | None


class LatencyResult(Value):
    """Milliseconds of one call at batch 1, over the slots of the session."""

    median_ms: float
    lower_ms: float | None
    upper_ms: float | None


class CallTimes(Value):
    """Milliseconds of single calls. They describe a candidate and compare nothing."""

    threads: int
    batch: int
    kind: Literal["model", "prepare", "request"] = Field(
        description="model: pixels to logits; prepare: encoded image to pixels; request: both"
    )
    calls: int
    median_ms: float
    p99_ms: float
    p99_upper_ms: float | None = Field(description="one-sided bound at the row's level; None: too few calls")


class Portrait(Value):
    """What a candidate is like to run (``evaluate.portrait``)."""

    times: tuple[CallTimes, ...]
    peak_mb: float = Field(description="10⁶ bytes that its process held at most, libraries and images included")
    gzip_mb: float = Field(description="10⁶ bytes of the model's files as gzip packs them")

    def of(self, kind: str, threads: int, batch: int = 1) -> CallTimes | None:
        """The calls of one kind."""
        return next((one for one in self.times if (one.kind, one.threads, one.batch) == (kind, threads, batch)), None)

    @property
    def most_threads(self) -> int:
        return max(one.threads for one in self.times)


class Decision(Value):
    """One criterion of the budget, decided."""

    criterion: Criterion
    outcome: Outcome
    reason: str = Field(description="a sentence with the numbers, as printed")


class CandidateVerdict(Value):
    """One row of the table."""

    candidate_id: str
    slug: str
    name: str
    runtime: str
    options: RuntimeOptions
    free: bool
    shortlisted: bool
    size_mb: float
    level: float = Field(description="one-sided confidence of this row's bounds")
    accuracy: AccuracyResult | None = None
    metrics: tuple[MetricResult, ...] = Field(
        default=(),
        description="top-1, macro F1, AUROC, calibration error; what these images do not define is left out",
    )
    slices: tuple[SliceResult, ...] = Field(
        default=(), description="by column; within it, the largest drop first. Only of what met the test set"
    )
    speed: SpeedResult | None = Field(default=None, description="against the baseline")
    same_runtime: SpeedResult | None = Field(
        default=None, description="against the unchanged weights in the same runtime"
    )
    free_rival: SpeedResult | None = Field(
        default=None, description="against the verdict's free rival, whether that passes or not"
    )
    latency: LatencyResult | None = None
    portrait: Portrait | None = Field(default=None, description="of the baseline and of what met the test set")
    throughput: float | None = Field(default=None, description="images a second at batch 32, one session's median")
    decisions: tuple[Decision, ...] = ()
    outcome: Outcome | Literal["baseline", "not tested"]
    reason: str
    images_needed: int | None = Field(default=None, description="more test images that would probably decide it")


class Draws(Value):
    """How the paired bootstrap drew: what tells a number that differs from one that cannot be drawn again."""

    bit_generator: str = Field(description="of numpy")
    numpy: str = Field(description="its version")
    resamples: int
    stream: str = Field(description="digest of what a fixed seed gives: the same, the same numbers")


class ControlResult(Value):
    """The A/A control of the timing session: the baseline against itself."""

    quartets: int
    ratio: float
    interval95: tuple[float, float]
    interval999: tuple[float, float] | None = Field(description="None: too few quartets for this level")
    outcome: Literal["clean", "undecided", "void"]
    reason: str


class Verdict(Value):
    """What the judge says of these artifacts on this CPU; not of the recipes in general."""

    budget: Budget
    test_fingerprint: str
    test_images: int
    look: int = Field(
        description="how many times this test set has now been looked at; 1 is the first. Where the shortlist is empty "
        "nobody looked, and this is the last look before"
    )
    level: float = Field(
        description="one-sided confidence that this look may spend; without Holm's procedure, that of every bound"
    )
    procedure: Procedure = Field(
        default="fixed-order",
        description="fixed-order: each candidate at the full level, until the first that does not pass; holm: all of "
        "them, at levels split by Holm (1979)",
    )
    slices: tuple[str, ...] = Field(
        default=(), description="columns of the catalog that were asked for, beside 'class'"
    )
    control: ControlResult | None
    draws: Draws | None = Field(default=None, description="None: no bound was drawn")
    rows: tuple[CandidateVerdict, ...] = Field(description="the baseline first, then as measured")
    shortlist: tuple[str, ...] = Field(description="candidate ids in the order in which they met the test set")
    selection: Literal["val", "named"] = Field(
        default="val", description="how the shortlist came about: by val and screening, or named by the user"
    )
    free_rival: str | None = Field(
        default=None,
        description="id of the free candidate beside which the others were timed as well: by screening the fastest "
        "that looks as if it met the budget, of named ones the first",
    )
    winner: str | None = Field(default=None, description="candidate id")
    worth_compressing: bool | None = Field(
        default=None,
        description="True: the winner is a compression, proven 5 % faster than each free candidate that passed, and "
        "proven faster than the baseline or needed for the size. False: the winner is free, for no compression is "
        "proven 5 % faster; or a compression that is neither faster than the baseline nor needed. None: nothing "
        "passed, or a compression that is undecided or void may be faster, or the clock cannot tell",
    )
    sentence: str = Field(description="the answer in one sentence")
    evidence: dict[str, str] = Field(description="file below the run: sha256, for everything the numbers come from")

    @property
    def outcome(self) -> Outcome:
        """Of the run as a whole: pass if any passes, else void if any is, else undecided if any is, else fail."""
        outcomes = [row.outcome for row in self.rows if row.shortlisted]
        for known in ("pass", "void", "undecided"):
            if known in outcomes:
                return known
        return "fail"

    def metric(self, row: CandidateVerdict) -> MetricResult | None:
        """The row's result in the metric that the margin is about."""
        return next((one for one in row.metrics if one.name == self.budget.metric), None)

    def row(self, candidate_id: str) -> CandidateVerdict:
        return next(row for row in self.rows if row.candidate_id == candidate_id)
