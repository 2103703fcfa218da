"""The four plug-in contracts. A plug-in is one file; its stem is its name, and it holds one class of that name in
CamelCase (``int8.py``: ``Int8``), which the registry makes without arguments.

Every plug-in file imports without the packages it names in ``requires``: heavy imports live inside the methods.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict

from torchstone.core.values import Artifact, Finding, Format, RuntimeOptions

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
    """``train``, ``val`` or ``test`` (a source's only held-out part is its test), None where it has no split."""
    groups: Sequence[str | None] = ()
    """Images of one group (a patient, a video) are never separated. Empty: the source has none."""
    times: Sequence[str | None] = ()
    """When each image was taken, as ISO 8601. Empty: the source does not say."""
    boxes: Sequence[Box] = ()
    """For sources of boxes: what each item was cut from. Empty: items are whole pictures."""
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
    """What a step may see of the data. There is no test part; ``val`` is there for steps that declare ``needs_val``."""

    train: ImageSet
    calib: ImageSet
    val: ImageSet | None
    seed: int


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
    """True when the weights stay what they were (an export, another arithmetic): a rival that costs nothing."""
    Config: type[StepConfig] = StepConfig

    def requires_for(self, target: str | None) -> tuple[str, ...]:
        """Importable packages needed for this target."""
        return self.requires

    def check(self, config: Any, target: str | None) -> None:
        """Raise a ChainError for options that mean nothing for this target."""

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

    def open(self, artifact: Artifact, options: RuntimeOptions) -> Runner:
        """Load and compile; raises an ArtifactError when the runtime refuses the model or the options."""
        ...
