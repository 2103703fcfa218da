"""The plug-in contracts. A plug-in is one file; its stem is its name, and it holds one class of that name in
CamelCase (``int8.py``: ``Int8``), which the registry makes without arguments.

Every plug-in file imports without the packages it names in ``requires``: heavy imports live inside the methods.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict

from torchstone.core.values import Artifact, Finding, Format, Preprocess, RuntimeOptions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Box(NamedTuple):
    """A rectangle that somebody drew on a picture, in pixels of the upright picture, exactly as annotated: it may
    reach out of the picture, or have no area."""

    picture: str
    """Path of the picture, for people: several boxes share it."""
    x0: float
    y0: float
    x1: float
    y1: float
    width: int
    """Pixels of the picture as the annotation gives them; 0: it does not."""
    height: int
    annotator: str | None = None


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What a reader found, by columns of equal length; nothing has been decoded yet."""

    classes: tuple[str, ...]
    paths: Sequence[str]
    """Unique. What stands behind one is read by ``Reader.image``: a file, a member of an archive, a cut-out box."""
    labels: Sequence[int]
    parts: Sequence[str | None]
    """``train``, ``val`` or ``test`` as the source says it, None where it has no split. What follows from these the
    catalog says (``data.catalog``)."""
    groups: Sequence[str | None] = ()
    """Images of one group (a patient, a video) are never separated. Empty: the source has none."""
    times: Sequence[str | None] = ()
    """When each image was taken, as ISO 8601. Empty: the source does not say."""
    boxes: Sequence[Box] = ()
    """For sources of boxes: what each item was cut from. Empty: items are whole pictures."""
    further: Mapping[str, Sequence[str | float | None]] = field(default_factory=dict)
    """Columns that only the source knows the meaning of (a scanner, a site): a verdict can be sliced by them."""
    files: Sequence[str] = ()
    """Files that all this was read from: when one changes, it is another source. Empty: each path below the root."""
    findings: tuple[Finding, ...] = ()


@runtime_checkable
class Reader(Protocol):
    """Finds the images of one kind of source. It keeps no state that ``image`` needs: another process can ask it."""

    requires: ClassVar[tuple[str, ...]]
    understands: ClassVar[str]
    """What it takes, as a phrase for 'understood: …'."""

    def accepts(self, root: str) -> bool:
        """Whether ``root`` (a path, or a reserved word such as ``digits``) is this kind of source. Raises a DataError
        for an archive that cannot be opened."""
        ...

    def listing(self, root: str) -> Listing:
        """What there is. Raises a DataError with a hint when there is nothing to learn from."""
        ...

    def image(self, root: str, path: str) -> bytes:
        """The encoded file behind one path of the listing; called from several threads at once. Raises a DataError or
        an OSError when it cannot be read."""
        ...


@runtime_checkable
class Check(Protocol):
    """Looks at one thing that can be wrong. What ``context`` is, the room says: a catalog, the machine, a history."""

    requires: ClassVar[tuple[str, ...]]

    def run(self, context: Any) -> list[Finding]:
        """What was noticed; an empty list when all is well."""
        ...


class StepConfig(BaseModel):
    """Base of a step's nested ``Config``: its options with their types, defaults and ranges."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ImageSet(Protocol):
    """The images of one part of a split, decoded once."""

    @property
    def items(self) -> Sequence[str]: ...

    @property
    def labels(self) -> NDArray[np.int64]: ...

    def __len__(self) -> int: ...

    def images(self, rows: slice | NDArray[np.intp]) -> NDArray[np.uint8]:
        """uint8[n, crop, crop, 3]: what evaluation, calibration and the server see."""
        ...

    def stored(self, rows: slice | NDArray[np.intp]) -> NDArray[np.uint8]:
        """uint8[n, s, s, 3] with s ≥ crop: the room that training's random crops have."""
        ...

    def encoded(self, row: int) -> bytes:
        """The original file of one image."""
        ...


@dataclass(frozen=True, kw_only=True)
class StepContext:
    """What a step may see of the data. There is no test part; ``val`` is there for steps that ask for it
    (``Step.wants_val``)."""

    train: ImageSet
    calib: ImageSet
    val: ImageSet | None
    seed: int
    origin: Artifact
    """The model that the chain began with."""
    cache: Path
    """A folder for what several artifacts can share, such as a teacher's answers. What lies there may be deleted, and
    is made again."""
    at: Callable[[Preprocess], StepContext]
    """The same for a model that sees its images otherwise."""


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a step takes of the data: what its time goes with. Whether it takes val, ``Step.wants_val`` says."""

    epochs: int = 0
    """Passes over the training part, of the network that it is given or one made of it."""
    own_epochs: int = 0
    """The same of a network that has nothing in common with that one."""
    answers: int = 0
    """Passes in which a teacher answers for the training part, where its answers are not kept from before."""
    calibration: int = 0
    """Calibration images, at most."""


Place = Literal["shape", "training", "arithmetic"]
"""The places of a chain in their order: what the network is, what it learns, what it computes in."""


@runtime_checkable
class Step(Protocol):
    """Makes one artifact from another: a compression step and an exporter are the same kind of thing.

    A step's class inherits from this one, for the defaults.
    """

    version: ClassVar[int]
    """Raised when the same options give another result; part of the artifact's key."""
    accepts: ClassVar[tuple[Format, ...]]
    produces: ClassVar[Format | None] = None
    """None: the format that it was given."""
    targets: ClassVar[tuple[str, ...]] = ()
    """Runtimes it can build for with ``@target``, the default first; empty: it does the same for all of them."""
    requires: ClassVar[tuple[str, ...]] = ()
    """Importable packages that it always needs."""
    value_option: ClassVar[str | None] = None
    """The option that ``step=value`` sets."""
    needs_val: ClassVar[bool] = False
    resumes: ClassVar[bool] = False
    """True when an interrupted ``apply`` goes on from what it left in ``out_dir``."""
    final: ClassVar[bool] = False
    """True when it settles the arithmetic, so that no other step may follow."""
    free: ClassVar[bool] = False
    """True when the weights stay what they were (an export, another arithmetic): a rival that costs nothing. Where that
    depends on the options, ``is_free`` says."""
    integers: ClassVar[bool] = False
    """True when layers compute in integers, which CPUs without the instructions for it do less exactly."""
    place: ClassVar[Place | None] = None
    """Where a search over chains puts it; None: nowhere."""
    replaces: ClassVar[bool] = False
    """True when it makes another network, so that what the first one allows no longer matters."""
    Config: type[StepConfig] = StepConfig

    def requires_for(self, target: str | None) -> tuple[str, ...]:
        """Importable packages needed for this target."""
        return self.requires

    def check(self, config: Any, target: str | None) -> None:
        """Raise a ChainError for options that mean nothing for this target."""

    def fits(self, config: Any, origin: Artifact) -> None:
        """Raise a ChainError where the network that the chain began with cannot be had like that, as far as seconds
        tell: it is asked of all chains before any is begun."""

    def remark(self, config: Any, origin: Artifact, after: Sequence[str]) -> str | None:
        """What the user may not have meant, said before anything is built: ``after`` are the names of the steps that
        follow in the chain. None: nothing strange about it."""
        return None

    def ingredients(self, config: Any, origin: Artifact) -> dict[str, Any]:
        """What a result depends on beside the options and the model before it: part of the artifact's key. Another
        model, say, by its id; ``origin`` is the one that the chain began with. Raises a UserError where it is not to
        be had."""
        return {}

    def is_free(self, config: Any) -> bool:
        """Whether the weights stay what they were with these options."""
        return self.free

    def needs(self, config: Any) -> Needs:
        """What it takes of the data with these options."""
        return Needs()

    def ranges(self, artifact: Artifact) -> Mapping[str, Any] | None:
        """What a search over chains varies of it for this model: by option a range as TOML gives one,
        ``{"low": 0.1, "high": 0.5, "step": 0.1}``, a list of values, or one value that it always takes. None: it is
        drawn only where somebody asks for it."""
        return None

    def sketch(self, config: Any) -> str | None:
        """The chain that gives the network the same shape without the training, which takes seconds and says how fast
        it will be; empty where the shape stays. None: it trains nothing."""
        return None

    def wants_val(self, config: Any) -> bool:
        """Whether it makes choices with these options, for which it needs images that nothing else has seen."""
        return self.needs_val

    def apply(
        self, artifact: Artifact, context: StepContext, config: Any, target: str | None, out_dir: Path
    ) -> Artifact:
        """Write the new model's files into ``out_dir`` and return ``artifact`` with what changed about it.

        Raises a UserError with a hint when this model cannot be treated.
        """
        ...


class Runner(Protocol):
    """A model that is loaded and warm. Not safe to call from several threads at once."""

    def __call__(self, batch: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]]:
        """uint8[N, H, W, 3] → ``{"logits": float32[N, C]}``, for any N ≥ 1."""
        ...


@runtime_checkable
class Runtime(Protocol):
    """Opens artifacts of the formats it knows."""

    formats: ClassVar[tuple[Format, ...]]
    """The formats it opens, its native one first."""
    precisions: ClassVar[tuple[str, ...]]
    requires: ClassVar[tuple[str, ...]]
    fixed_batch: ClassVar[bool]
    """True where a model is compiled for exactly ``options.batch`` images, and another number of them costs padding."""

    def open(self, artifact: Artifact, options: RuntimeOptions) -> Runner:
        """Load and compile; raises an ArtifactError when the runtime refuses the model or the options."""
        ...


@dataclass(frozen=True, kw_only=True)
class Operator:
    """One operator of a model as a runtime executes it."""

    name: str
    """As the runtime calls it; unique within the model."""
    layer: str
    """Path of the module that it came from, ``layer1.0.conv1``; empty where that is not known."""
    kind: str
    """What it computes, in the runtime's own words: ``Conv``, ``Convolution``, ``convolution``."""
    ms: float
    """Of one call, as it typically is."""
    macs: int
    """Multiply-accumulate operations of one call; 0 for what is neither a convolution nor a matrix product."""
    bytes: int
    """What it has to read and write at the least: inputs, weights and outputs, each once."""
    precision: str
    """``f32``, ``bf16``, ``f16`` or ``int8``: the arithmetic that it runs in."""


@runtime_checkable
class Profiler(Protocol):
    """Runs a model operator by operator; its name is that of the runtime."""

    requires: ClassVar[tuple[str, ...]]

    def profile(
        self, artifact: Artifact, options: RuntimeOptions, pixels: NDArray[np.uint8], calls: int
    ) -> list[Operator]:
        """The operators in the order of execution, each with its typical time in ``calls`` calls on ``pixels``,
        uint8[batch, H, W, 3], after one that is not counted. Raises as ``Runtime.open``."""
        ...


@dataclass(frozen=True, kw_only=True)
class TrackedTraining:
    """What a tracker is told of a training when it begins, or goes on."""

    project: str
    name: str
    """For people; it can be told apart from all others."""
    home: Path
    """A folder for what trackers keep on this machine, shared by all trainings. It exists."""
    known_as: str | None
    """``Track.id`` of the attempt that this one continues; None: it is a new training."""
    first_step: int
    """What has this number or a higher one comes now, again if the earlier attempt had come further."""
    options: Mapping[str, str | int | float | bool]
    """Hyper-parameters, by name."""


class Track:
    """One open training of a tracker. A tool that has no place for one of these does nothing with it. Steps are
    counted from 0; everything of one epoch has the number of its last step."""

    id: str
    """By which the same training is found again."""
    where: str = ""
    """What to type, or open, to look at it."""

    def scalars(self, rows: Sequence[tuple[int, Mapping[str, float]]]) -> None:
        """Finite numbers by name, in the order of their steps."""

    def weights(self, step: int, layers: Mapping[str, NDArray[np.float32]]) -> None:
        """The values of each layer's weights, flat."""

    def pictures(self, step: int, name: str, pictures: NDArray[np.uint8], captions: Sequence[str]) -> None:
        """uint8[n, h, w, 3], and a line on each."""

    def graph(self, network: Any, example: Any) -> None:
        """A module in evaluation mode that may be taken apart, and an input of it."""

    def embedding(
        self, step: int, vectors: NDArray[np.float32], captions: Sequence[str], pictures: NDArray[np.uint8]
    ) -> None:
        """float32[n, d]: where the network puts images; a line on each, and uint8[n, h, w, 3]."""

    def flush(self) -> None:
        """What was said so far must outlive this process."""

    def close(self, outcome: Mapping[str, float], *, finished: bool) -> None:
        """The training came to its end with this result; or, not ``finished``, it was stopped or failed, and may be
        opened again."""


@runtime_checkable
class Tracker(Protocol):
    """Shows trainings in a tool outside of torchstone. What it raises ends the tracking, never the training."""

    requires: ClassVar[tuple[str, ...]]

    def open(self, training: TrackedTraining) -> Track:
        """Begin to track, or go on with what ``known_as`` names."""
        ...
