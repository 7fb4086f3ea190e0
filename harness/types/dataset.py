"""Base class of data sets, and what a data set can say about its images."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

from harness.types.names import Name
from harness.types.options import Options, option
from harness.types.problem import Shape, Split

SIX_ARCHITECTURES = ("mlp", "convnet", "lenet", "alexnet", "vgg11", "resnet18")
"""Architectures of the students in the model-pool paper's tables."""


@dataclass(frozen=True)
class RunDefaults:
    """The values that options of a run take on this data set if they are not set.

    Attributes:
        options: by component, defaults of its options that differ on this data set.
    """

    ipc: tuple[int, ...] = (1,)
    iterations: tuple[int, ...] = (100,)
    evaluators: tuple[str, ...] = ("plain", "kd")
    architectures: tuple[str, ...] = SIX_ARCHITECTURES
    students: int = 2
    distillations: int = 1
    options: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def of(self, component: str) -> dict[str, str]:
        """Return the options that a component takes on the data set unless they are typed."""
        return dict(self.options.get(component, {}))

    def complete(self, name: Name) -> Name:
        """Return the name of a component with the options that it takes on the data set unless they are typed."""
        return name.with_defaults(self.of(name.name))


@dataclass(frozen=True)
class Traits:
    """Properties of a data set that go beyond its images: normalisation, augmentations, run defaults.

    Attributes:
        normalize: the normalisation that goes with it, a name or ``auto``; None if unknown, and then it is computed.
        augmentations: by family of augmentation (``dc``, ``dsa``), the operations that suit it, joined by ``+``.
        defaults: the values of a run's options that are not set.
        like: the known data set whose published settings and numbers apply; None if there is none.
        like_in_training_alone: whether the test images are others than those of ``like``, so that its published
            accuracies do not apply.
        licence: identifier of the images' licence, as the Hugging Face hub lists them (``cc-by-4.0``); None if unknown.
    """

    normalize: str | None = "auto"
    augmentations: Mapping[str, str] = field(default_factory=dict)
    defaults: RunDefaults = field(default_factory=RunDefaults)
    like: str | None = None
    like_in_training_alone: bool = False
    licence: str | None = None


@dataclass(frozen=True)
class Outline:
    """Class names and image shape, as far as they are known before the images are read.

    Attributes:
        classes: class names; label i is ``classes[i]``.
        shape: channels, height, width of an image.
    """

    classes: tuple[str, ...]
    shape: Shape


@dataclass(frozen=True, eq=False)
class RawData:
    """Training and test split with the class names, as they are stored on disk."""

    train: Split
    test: Split
    classes: tuple[str, ...]


class DatasetOptions(Options):
    """Options that every data set takes."""

    normalize: str = option(
        "own",
        "mean and std: own (what goes with the set), auto (computed from the training images), or those of mnist, "
        "fashion-mnist, svhn, cifar10, cifar100, tinyimagenet, imagenet; frepo-zca: each channel standardised, then "
        "whitened; kip-zca: each image less its mean and of unit norm, then whitened",
        source="DC, utils.py; FRePo; KIP",
    )
    zca: bool = option(False, "whiten the pixels instead of normalising them", source="MTT")
    zca_eps: float = option(
        0.1, "regulariser of the whitening, added to the eigenvalues; of frepo-zca and kip-zca, relative to their mean",
        source="MTT; FRePo; KIP", gt=0,
    )  # fmt: skip


O = TypeVar("O", bound=DatasetOptions)  # noqa: E741


class Dataset(ABC, Generic[O]):
    """A source of real images: subclasses read them, the harness splits, normalises and caches them."""

    Options: ClassVar[type[Options]] = DatasetOptions
    version: ClassVar[int] = 1
    """A whole number from 1 on; increase it whenever the same files give other images or labels."""

    def __init__(self, options: O) -> None:
        self.options = options

    @abstractmethod
    def load(self, root: Path) -> RawData:
        """Read the images of both splits.

        Args:
            root: the folder that holds data sets (``DDBENCH_DATA``).

        Raises:
            DataError: files are missing or unusable; the message is one line that names the files and their place.
        """

    @property
    def traits(self) -> Traits:
        """Return the properties of the set beside its images."""
        return Traits()

    @property
    def outline(self) -> Outline | None:
        """Return class names and shape if they are known without the images; otherwise None."""
        return None

    def prepare(self, root: Path) -> None:
        """Download the files into ``root`` if that is possible."""

    def check_files(self, root: Path) -> None:
        """Check that files named by the options exist, without reading them; ``ddbench datasets show`` calls it.

        Raises:
            DataError: a file is missing; the message is one line that names it.
        """
