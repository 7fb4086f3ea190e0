"""Base class of parametrisations: what a distilled set stores, and how training images are decoded from it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Literal, TypeVar

import torch
from torch import Tensor

from harness.errors import DataError
from harness.types.data.labels import LabelKind
from harness.types.options import Options
from harness.types.problem import Problem, Shape
from harness.types.seeds import Streams

O = TypeVar("O", bound=Options)  # noqa: E741
PIXEL_TOLERANCE = 1e-3
"""How far pixels may lie outside of [0, 1] because of rounding."""


@dataclass(frozen=True)
class InitialImages:
    """The images from which a parametrisation initialises its tensors.

    Attributes:
        problem: the real data.
        ipc: images per class that the set stores.
        kind: ``real`` images, or ``noise``.
        streams: the random streams of the distillation.
    """

    problem: Problem
    ipc: int
    kind: Literal["noise", "real"]
    streams: Streams

    def inputs(self, per_class: int) -> Tensor:
        """Return network inputs (classes * per_class, c, h, w), class by class: real images, or standard normal.

        A class that has fewer real images gives all that it has.
        """
        problem, classes = self.problem, len(self.problem.classes)
        if self.kind == "real":
            draws = (self.streams.generator("init", 0, label) for label in range(classes))
            return torch.cat([problem.real_batch(label, per_class, draw) for label, draw in enumerate(draws)])
        # Drawn on the CPU and then moved, so that the images start equal on every device.
        shape = (classes * per_class, *problem.shape)
        return torch.randn(shape, generator=self.streams.generator("init", 0)).to(problem.device)

    def pixels(self, per_class: int) -> Tensor:
        """Return images (classes * per_class, c, h, w) in [0, 1], class by class: real images, or normalised noise.

        A class that has fewer real images repeats them.
        """
        here = self.problem.resident
        if self.kind == "noise":
            return here.preprocessing.invert(self.inputs(per_class)).clamp(0, 1)
        chosen = []
        for label, members in enumerate(self.problem.of_class):
            order = torch.randperm(len(members), generator=self.streams.generator("init", 0, label))
            chosen.append(members[order[torch.arange(per_class) % len(members)]])
        return self.problem.pixels_of(torch.cat(chosen)).to(torch.float32).div_(255.0)


class Parametrisation(ABC, Generic[O]):
    """What is learned and stored in place of plain images, and how it becomes labelled training images.

    It holds options and no tensors: the tensors are passed to it by name. ``images`` (n, ...) is always among them and
    has a row for each stored image, of which a set has ipc for each class; its rows may have any shape. Others may have
    any name and shape, such as the weights of a decoder that all images share, or learned labels. One that has labels
    of its own declares their kind by `label_kind`.
    """

    Options: ClassVar[type[Options]] = Options
    version: ClassVar[int] = 1
    """A whole number from 1 on; increase it whenever the same options give other numbers."""
    decodes_to: ClassVar[Literal["pixels", "inputs"]] = "pixels"
    """What `decode` returns: pixels in [0, 1], which are then preprocessed, or network inputs."""

    def __init__(self, options: O) -> None:
        self.options = options

    @property
    def label_kind(self) -> LabelKind | None:
        """The kind of the labels that `decode` returns; None, by default, if they are the stored ones.

        A parametrisation whose tensors hold learned labels returns ``soft`` or ``regression``. At the start of a
        distillation, the largest value of each label is at the class of its image.
        """
        return None

    @abstractmethod
    def initial(self, start: InitialImages) -> Mapping[str, Tensor]:
        """Return the tensors at the start of a distillation; ``images`` has ``start.ipc`` rows a class, in order."""

    @abstractmethod
    def decode(self, tensors: Mapping[str, Tensor], labels: Tensor, shape: Shape) -> tuple[Tensor, Tensor]:
        """Return training images (m, *shape) and their labels (m, ...), as a differentiable function of the tensors.

        It draws no random numbers: what is drawn at random in a paper is enumerated, so that every image is there.

        Args:
            tensors: the tensors by name.
            labels: a label for each row of ``images``: class indices, class weights or real values; always class
                indices if the parametrisation has labels of its own.
            shape: channels, height and width of a training image.
        """

    def constrain(self, tensors: Mapping[str, Tensor]) -> None:
        """Change the tensors in place after an update, such as clamping them to [0, 1]; by default, change nothing."""

    def check(self, tensors: Mapping[str, Tensor], shape: Shape) -> None:
        """Raise `DataError` if the tensors of a file cannot be decoded to images of that shape; by default, never."""

    def storage_bits(self, tensors: Mapping[str, Tensor], labels: Tensor) -> int:
        """Return the bits that a set takes: by default all tensors, and labels unless they are class indices."""
        # Class indices cost nothing beside plain images either, whose order says their class.
        stored = [*tensors.values(), *([labels] if labels.is_floating_point() else [])]
        return sum(8 * tensor.element_size() * tensor.numel() for tensor in stored)


@dataclass(frozen=True, eq=False)
class Encoding:
    """A parametrisation that a set is stored by; of which a file holds the name, the options and the tensors.

    Attributes:
        parametrisation: the component.
        name: the name by which it is registered.
        provider: the distribution that registered it.
        shape: channels, height and width of a training image.
        tensors: the stored tensors by name, without ``images``.
    """

    parametrisation: Parametrisation[Any]
    name: str
    provider: str
    shape: Shape
    tensors: Mapping[str, Tensor] = field(default_factory=dict)

    def all_tensors(self, images: Tensor) -> dict[str, Tensor]:
        """Return all stored tensors by name."""
        return {"images": images, **self.tensors}

    def decode(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the parametrisation decodes of stored images and labels.

        Raises:
            DataError: it decodes to images of another shape, or to no label for each.
        """
        decoded, targets = self.parametrisation.decode(self.all_tensors(images), labels, self.shape)
        if tuple(decoded.shape[1:]) != self.shape or len(targets) != len(decoded):
            form = f"images {tuple(decoded.shape)} with labels {tuple(targets.shape)}"
            raise DataError(f"the parametrisation {self.name!r} decodes to {form}, not to images of {self.shape}")
        return decoded, targets

    def check(self, images: Tensor) -> None:
        """Check that the stored tensors can be decoded.

        Raises:
            DataError: a tensor has values that are not finite, or does not fit the parametrisation.
        """
        for name, tensor in self.tensors.items():
            if name == "images" or not isinstance(tensor, Tensor) or not bool(torch.isfinite(tensor).all()):
                raise DataError(f"the tensor {name!r} of its parametrisation is not a tensor of finite numbers")
        self.parametrisation.check(self.all_tensors(images), self.shape)

    def storage_bits(self, images: Tensor, labels: Tensor) -> int:
        """Return the number of bits that the set stores."""
        return self.parametrisation.storage_bits(self.all_tensors(images), labels)

    def description(self) -> dict[str, Any]:
        """Return the encoding as JSON, without its tensors."""
        options = self.parametrisation.options.as_json()
        return {"name": self.name, "provider": self.provider, "options": options, "shape": list(self.shape)}


@dataclass(frozen=True, eq=False)
class StoredEncoding:
    """An encoding as a file describes it: nothing of the parametrisation's code is loaded yet.

    Attributes:
        name: the name by which the parametrisation is registered.
        provider: the distribution that registers it.
        options: all of its options, as JSON.
        shape: channels, height and width of a training image; None if it is that of a stored image.
        tensors: the stored tensors by name, without ``images``.
    """

    name: str
    provider: str
    options: Mapping[str, Any]
    shape: Shape | None = None
    tensors: Mapping[str, Tensor] = field(default_factory=dict)


def check_pixels(images: Tensor) -> None:
    """Check that images are pixels in [0, 1], up to rounding.

    Raises:
        DataError: a value lies outside.
    """
    low, high = float(images.min()), float(images.max())
    if low < -PIXEL_TOLERANCE or high > 1 + PIXEL_TOLERANCE:
        raise DataError(f"its images should be pixels in [0, 1], but go from {low:g} to {high:g}")
