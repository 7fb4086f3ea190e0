"""What the author of a data set subclasses."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

from harness.types.options import Options, option
from harness.types.problem import Shape, Split

SIX_ARCHITECTURES = ("mlp", "convnet", "lenet", "alexnet", "vgg11", "resnet18")
"""The students of the model-pool paper's tables."""


@dataclass(frozen=True)
class RunDefaults:
    """What a run means where its options are not given.

    Attributes:
        options: by component, options that take another default on this data set.
    """

    ipc: tuple[int, ...] = (1,)
    iterations: tuple[int, ...] = (100,)
    evaluators: tuple[str, ...] = ("plain", "kd")
    architectures: tuple[str, ...] = SIX_ARCHITECTURES
    students: int = 2
    distillations: int = 1
    options: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Traits:
    """What is known of a data set beside its images.

    Attributes:
        normalize: the normalisation that goes with it, a name or ``auto``; None if unknown, then it is computed.
        augmentations: by family of augmentation (``dc``, ``dsa``), the operations that suit it, joined by ``+``.
        defaults: what a run on it means.
        like: the known set whose published numbers apply, if any.
    """

    normalize: str | None = "auto"
    augmentations: Mapping[str, str] = field(default_factory=dict)
    defaults: RunDefaults = field(default_factory=RunDefaults)
    like: str | None = None


@dataclass(frozen=True)
class Outline:
    """What is known of a data set before its images are read.

    Attributes:
        classes: class names; label i is ``classes[i]``.
        shape: channels, height, width of an image.
    """

    classes: tuple[str, ...]
    shape: Shape


@dataclass(frozen=True, eq=False)
class RawData:
    """Training and test split with the class names, as they lie on disk."""

    train: Split
    test: Split
    classes: tuple[str, ...]


class DatasetOptions(Options):
    """Options that every data set takes."""

    normalize: str = option(
        "own",
        "mean and std: own (what goes with the set), auto (computed from the training images), or those of mnist, "
        "fashion-mnist, svhn, cifar10, cifar100, tinyimagenet",
        source="DC, utils.py",
    )
    zca: bool = option(False, "whiten the pixels instead of normalising them", source="MTT")
    zca_eps: float = option(0.1, "regulariser of the whitening, added to the eigenvalues", source="MTT", gt=0)


O = TypeVar("O", bound=DatasetOptions)  # noqa: E741


class Dataset(ABC, Generic[O]):
    """A source of real images. Subclasses read them; the harness splits, normalises and caches."""

    Options: ClassVar[type[Options]] = DatasetOptions
    version: ClassVar[int] = 1
    """Raised whenever the same files give other images or labels."""

    def __init__(self, options: O) -> None:
        self.options = options

    @abstractmethod
    def load(self, root: Path) -> RawData:
        """Read the images.

        Args:
            root: the folder where data sets live (``DDBENCH_DATA``).

        Raises:
            DataError: files are missing or unusable; one line that says where to put what.
        """

    @property
    def traits(self) -> Traits:
        """What is known of the set."""
        return Traits()

    @property
    def outline(self) -> Outline | None:
        """Class names and shape, if they are known without the images; None otherwise."""
        return None

    def prepare(self, root: Path) -> None:
        """Fetch the files into ``root``, where they can be fetched."""

    def check_files(self, root: Path) -> None:
        """Look whether files that the options name are there, without reading them: ``ddbench datasets show`` asks.

        Raises:
            DataError: one is missing; one line that says what is wanted.
        """
