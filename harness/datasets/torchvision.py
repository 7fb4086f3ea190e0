"""Torchvision's data sets: read from the data root, downloaded only on request."""

import inspect
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import torch

from harness.datasets import known_classes
from harness.datasets.traits import KNOWN_TRAITS
from harness.errors import DataError
from harness.plugins.registry import stdout_to_stderr
from harness.types.dataset import Dataset, DatasetOptions, Outline, RawData, Traits
from harness.types.problem import Split

_IDX_FILES = tuple(
    f"{part}-ubyte.gz" for part in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
)


class _Torchvision(Dataset[DatasetOptions]):
    """A class of `torchvision.datasets`.

    Attributes:
        name: the name of the set, the key of its traits.
        source: the name of its class in torchvision.
        archives: the files that torchvision downloads to ``folder`` below the data root and unpacks.
        classes: class names that replace torchvision's; None to use torchvision's.
        known: class names and shape, which need no images.
    """

    name: ClassVar[str]
    source: ClassVar[str]
    archives: ClassVar[tuple[str, ...]]
    folder: ClassVar[str] = "."
    classes: ClassVar[tuple[str, ...] | None] = None
    known: ClassVar[Outline]

    @property
    def traits(self) -> Traits:
        """The traits of the set in the DC code base."""
        return KNOWN_TRAITS[self.name]

    @property
    def outline(self) -> Outline:
        """The outline of the set, which never changes."""
        return self.known

    def load(self, root: Path) -> RawData:
        """Read both splits; nothing is downloaded."""
        dataset = self._dataset()
        try:
            train, test = (_read(dataset, root, part, download=False) for part in ("train", "test"))
        except Exception as error:  # missing and damaged files are met in many ways
            raise DataError(
                f"{self.name} is missing or damaged in {root}: run `ddbench prepare {self.name}`, without a network "
                f"after putting {', '.join(self.archives)} into {root / self.folder}{_reason(error)}"
            ) from error
        return RawData(_split(train), _split(test), self.classes or tuple(train.classes))

    def prepare(self, root: Path) -> None:
        """Download the missing files and unpack them."""
        dataset = self._dataset()
        try:
            for part in ("train", "test"):
                _read(dataset, root, part, download=True)
        except Exception as error:
            raise DataError(
                f"{self.name} cannot be fetched: put {', '.join(self.archives)} into {root / self.folder} "
                f"and run `ddbench prepare {self.name}` again{_reason(error)}"
            ) from error

    def _dataset(self) -> Callable[..., Any]:
        import torchvision

        dataset: Callable[..., Any] = getattr(torchvision.datasets, self.source)
        return dataset


class CIFAR10(_Torchvision):
    """CIFAR-10: 50,000 training and 10,000 test images of 32x32 in 10 classes."""

    name, source, archives = "cifar10", "CIFAR10", ("cifar-10-python.tar.gz",)
    known = Outline(known_classes.CIFAR10, (3, 32, 32))


class CIFAR100(_Torchvision):
    """CIFAR-100: 50,000 training and 10,000 test images of 32x32 in 100 classes."""

    name, source, archives = "cifar100", "CIFAR100", ("cifar-100-python.tar.gz",)
    known = Outline(known_classes.CIFAR100, (3, 32, 32))


class MNIST(_Torchvision):
    """MNIST: 60,000 training and 10,000 test digits of 28x28, grey."""

    name, source, archives, folder, classes = "mnist", "MNIST", _IDX_FILES, "MNIST/raw", known_classes.DIGITS
    known = Outline(known_classes.DIGITS, (1, 28, 28))


class FashionMNIST(_Torchvision):
    """Fashion-MNIST: 60,000 training and 10,000 test pieces of clothing of 28x28, grey."""

    name, source, archives, folder = "fashion-mnist", "FashionMNIST", _IDX_FILES, "FashionMNIST/raw"
    known = Outline(known_classes.FASHION_MNIST, (1, 28, 28))


class SVHN(_Torchvision):
    """SVHN, cropped digits: 73,257 training and 26,032 test images of 32x32, without the extra ones."""

    name, source, archives = "svhn", "SVHN", ("train_32x32.mat", "test_32x32.mat")
    classes = known_classes.DIGITS
    known = Outline(known_classes.DIGITS, (3, 32, 32))


def _read(dataset: Callable[..., Any], root: Path, part: str, *, download: bool) -> Any:  # noqa: ANN401
    # SVHN takes ``split``, all others ``train``.
    which = {"split": part} if "split" in inspect.signature(dataset).parameters else {"train": part == "train"}
    with stdout_to_stderr(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"dtype\(\): align")  # NumPy 2.4.0 to 2.4.4, of pickles as old as CIFAR's
        return dataset(root, download=download, **which)


def _split(dataset: Any) -> Split:  # noqa: ANN401
    """Convert CIFAR's arrays (n, h, w, c) and lists, MNIST's tensors (n, h, w) or SVHN's arrays (n, c, h, w)."""
    images = torch.as_tensor(dataset.data)
    if images.ndim == 3:
        images = images.unsqueeze(1)
    elif images.shape[1] != 3:
        images = images.permute(0, 3, 1, 2)
    labels = dataset.labels if hasattr(dataset, "labels") else dataset.targets
    return Split(images.contiguous(), torch.as_tensor(labels).long())


def _reason(error: Exception) -> str:
    """Return the reason in brackets, on one line; empty if torchvision only says that a file is missing."""
    lines = str(error).strip().splitlines()
    if not lines or "You can use download=True" in lines[0]:
        return ""
    return f" ({' '.join(lines)})"
