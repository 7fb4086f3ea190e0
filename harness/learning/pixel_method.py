"""Base classes of methods that learn images: plain or by a parametrisation, or together with other tensors."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeVar

import pydantic
import torch
from torch import Tensor

from harness.errors import UsageError
from harness.learning.batchnorm import freeze_statistics
from harness.plugins.discovery import plugins
from harness.plugins.registry import Resolved
from harness.plugins.stored_sets import KIND, open_encoding
from harness.types.data.labels import LabelKind, class_indices
from harness.types.data.schedule import Schedule
from harness.types.distilled import DistilledSet
from harness.types.method import ImageGradient, Method, Task
from harness.types.network import Network
from harness.types.options import Options, option
from harness.types.parametrisation import Encoding, InitialImages, Parametrisation

PLAIN = "pixels"
"""The parametrisation that stores what students train on."""


class PixelOptions(Options):
    """Options of methods that learn images; a method may change the defaults."""

    as_: str = option(PLAIN, "what is learned and stored: a parametrisation", source="IDC")

    init: Literal["noise", "real"] = option("noise", "initial images: standard normal, or real ones", source="DC")
    lr_img: float = option(0.1, "learning rate of the images", source="DC", gt=0)
    momentum_img: float = option(0.5, "momentum of the images", source="DC, main.py", ge=0, lt=1)

    @pydantic.field_validator("as_")
    @classmethod
    def _shortest_name(cls, name: str | None) -> str | None:
        """Return the name without options at their defaults, so that one parametrisation has one key."""
        try:
            return name if name in (None, PLAIN) else str(plugins().registry.resolve(KIND, name))
        except UsageError as error:
            raise ValueError(str(error)) from None

    def parametrisation(self) -> Resolved[Parametrisation[Any]] | None:
        """Return the parametrisation of the set; None for plain images.

        Of a method that leaves ``as`` to ``auto``, only the options that it has resolved for a task can say.
        """
        return None if self.as_ == PLAIN else plugins().registry.resolve(KIND, self.as_)

    def as_json(self) -> dict[str, Any]:
        """Return every option with its value, without ``as`` for plain images.

        Their cells keep the keys that they had before there were parametrisations.
        """
        values = super().as_json()
        return {key: value for key, value in values.items() if (key, value) != ("as", PLAIN)}


class EncodedImages:
    """The learned tensors of a parametrisation, and the training images that they decode to.

    Attributes:
        tensors: the learned tensors by name, leaves that require their gradients.
        images: network inputs (classes * per_class, c, h, w), decoded from the tensors, class by class. It is a leaf,
            so that a method can treat it as plain images; `EncodedSGD` refreshes it in place.
        labels: class indices of ``images``; of labels that the parametrisation has, the largest at its start.
        targets: the labels (classes * per_class, classes) that the parametrisation has of its own, in the order of
            ``images``, a leaf that is refreshed in the same way: a method that sets its gradient learns labels. None
            if the parametrisation has none.
    """

    def __init__(self, encoding: Encoding, start: InitialImages) -> None:
        self._encoding, self._problem = encoding, start.problem
        initial = encoding.parametrisation.initial(start)
        # A copy: a parametrisation may hand out a tensor of the problem's, which updates would change.
        self.tensors = {name: tensor.detach().clone().requires_grad_() for name, tensor in initial.items()}
        classes, device = len(start.problem.classes), start.problem.device
        self._stored_labels = torch.arange(classes, device=device).repeat_interleave(start.ipc)
        with torch.no_grad():
            inputs, targets = self._decode()
        labels = class_indices(targets)
        counts = torch.bincount(labels, minlength=classes).tolist()
        if len(set(counts)) > 1:
            raise UsageError(f"the parametrisation {encoding.name!r} decodes {counts} images of the classes, unequally")
        # Methods take the images of a class as a slice, but a parametrisation returns them in any order.
        order = torch.argsort(labels, stable=True)
        self._order = None if bool((order == torch.arange(len(order), device=device)).all()) else order
        self.images, self.labels = self._sorted(inputs).clone().requires_grad_(), self._sorted(labels)
        has_own = self.label_kind is not None
        self.targets = self._sorted(targets).detach().clone().requires_grad_() if has_own else None

    @property
    def label_kind(self) -> LabelKind | None:
        """The kind of labels that the parametrisation has of its own; None if it has none."""
        return self._encoding.parametrisation.label_kind

    @property
    def _leaves(self) -> list[Tensor]:
        """What is decoded: the images, and labels if the parametrisation has its own."""
        return [self.images] if self.targets is None else [self.images, self.targets]

    def _decoded_leaves(self) -> list[Tensor]:
        """Return what is decoded, as a function of the tensors, in the order of ``images``."""
        return [self._sorted(rows) for rows in self._decode()[: len(self._leaves)]]

    def _decode(self) -> tuple[Tensor, Tensor]:
        """Return all training images as network inputs, and their labels, as the parametrisation orders them."""
        pixels, labels = replace(self._encoding, tensors=self._beside()).decode(
            self.tensors["images"], self._stored_labels
        )
        is_pixels = self._encoding.parametrisation.decodes_to == "pixels"
        return self._problem.resident.preprocessing.apply(pixels) if is_pixels else pixels, labels

    def _beside(self) -> dict[str, Tensor]:
        return {name: tensor for name, tensor in self.tensors.items() if name != "images"}

    def _sorted(self, rows: Tensor) -> Tensor:
        return rows if self._order is None else rows[self._order]

    def pull_back(self) -> None:
        """Set the gradients of the tensors to those that ``images`` and ``targets`` imply, by the chain rule."""
        gradients = [leaf.grad for leaf in self._leaves]
        if all(gradient is None for gradient in gradients):
            return
        # Decoded again rather than with a graph that lives across the step: methods run `images` through many graphs
        # of their own, in several threads, and a shared one would be freed by the first of them.
        with torch.enable_grad():
            decoded = self._decoded_leaves()
        known = [(rows, gradient) for rows, gradient in zip(decoded, gradients, strict=True) if gradient is not None]
        outputs, outer = zip(*known, strict=True)
        results = torch.autograd.grad(outputs, list(self.tensors.values()), outer, allow_unused=True)
        for tensor, pulled in zip(self.tensors.values(), results, strict=True):
            tensor.grad = pulled

    def forget_gradients(self) -> None:
        """Forget the gradients of ``images`` and ``targets``."""
        for leaf in self._leaves:
            leaf.grad = None

    def refresh(self) -> None:
        """Decode again after the tensors have changed, in place: methods hold these very leaves."""
        with torch.no_grad():
            for leaf, rows in zip(self._leaves, self._decoded_leaves(), strict=True):
                leaf.copy_(rows)

    def constrain(self) -> None:
        """Bring the tensors back into their range after an update."""
        with torch.no_grad():
            self._encoding.parametrisation.constrain(self.tensors)

    def distilled(
        self,
        task: Task,
        step_size: float | None = None,
        labels: Tensor | None = None,
        schedule: Schedule | None = None,
        tensors: Mapping[str, Tensor] | None = None,
    ) -> DistilledSet:
        """Return the set that is stored: the tensors, and a label for each stored image.

        Args:
            task: the task, which copies the tensors to the CPU.
            step_size: the learning rate for students, if one was learned.
            labels: labels of ``images``, if as many images are decoded as are stored; None for the classes.
            schedule: ordered steps that own their ``images``; None if there are none.
            tensors: others of the same names and shapes that are stored, such as means of these; None for these.
        """
        whole = self.tensors if tensors is None else tensors
        beside = {name: tensor for name, tensor in whole.items() if name != "images"}
        encoding = replace(self._encoding, tensors=beside)
        stored = self._stored_labels if labels is None else labels
        if labels is not None and self._order is not None:
            stored = torch.empty_like(labels)
            stored[self._order] = labels
        if schedule is not None and self._order is not None:
            schedule = schedule.renumbered(self._order.tolist())
        return task.distilled(whole["images"], stored, step_size, encoding, schedule=schedule)


class ImageSGD(torch.optim.SGD):
    """SGD with momentum on images, whose gradient can be watched.

    Attributes:
        watch: sums up the gradients of the images; None if nobody watches.
    """

    watch: ImageGradient | None = None

    def __init__(self, images: Tensor, learned: Sequence[Tensor], lr: float, momentum: float) -> None:
        super().__init__(list(learned), lr, momentum=momentum)
        self._images = images

    def start_watching(self) -> ImageGradient:
        """Return what sums up the gradients of the images from now on."""
        # A hook, for a `step` that calls that of its base class would run everybody's hooks twice.
        if self.watch is None:
            self.register_step_pre_hook(lambda *_: self.report_gradient())
        self.watch = ImageGradient()
        return self.watch

    def report_gradient(self) -> None:
        """Pass the images' present gradient to whoever watches; for methods with an optimiser of their own."""
        if self.watch is not None and self._images.grad is not None:
            self.watch.add(self._images.grad)


class EncodedSGD(ImageSGD):
    """SGD with momentum on the tensors of a parametrisation, from the gradient of the decoded images.

    A method sets ``images.grad`` and calls `step`, as with plain images.
    """

    def __init__(self, encoded: EncodedImages, lr: float, momentum: float) -> None:
        super().__init__(encoded.images, list(encoded.tensors.values()), lr, momentum)
        self._encoded = encoded

    def start_watching(self) -> ImageGradient:
        """Return what sums up the gradients of the decoded images from now on."""
        self.watch = ImageGradient()
        return self.watch

    def step(self, closure: Callable[[], float] | None = None) -> Any:  # noqa: ANN401
        """Pull the images' gradient back to the tensors, update and constrain these, and decode the images again."""
        self.report_gradient()
        self._encoded.pull_back()
        answer = super().step(closure)
        self._encoded.constrain()
        self._encoded.refresh()
        return answer

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of the tensors, and of the images and labels that they come from."""
        super().zero_grad(set_to_none)
        self._encoded.forget_gradients()


O = TypeVar("O", bound=Options)  # noqa: E741


class TensorMethod(Method[O]):
    """Learns tensors by any optimiser, whose memory is part of the state.

    A subclass calls `learn` in its ``__init__``, and defines `step`, which sets the gradients of the tensors and calls
    ``optimizer.step()``.

    Attributes:
        tensors: the learned tensors by name, leaves that require their gradients; ``images`` are the set's images.
        optimizer: the optimiser of the tensors.
    """

    tensors: dict[str, Tensor]
    optimizer: torch.optim.Optimizer

    def learn(self, tensors: Mapping[str, Tensor], optimizer: Callable[[Sequence[Any]], torch.optim.Optimizer]) -> None:
        """Start to learn tensors.

        Args:
            tensors: their initial values by name, which are copied.
            optimizer: returns an optimiser of a list of tensors.
        """
        self.tensors = {name: tensor.detach().clone().requires_grad_() for name, tensor in tensors.items()}
        self.optimizer = optimizer(list(self.tensors.values()))

    def set_rate(self, rate: float) -> None:
        """Set the learning rate of the next steps."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def learned(self) -> Mapping[str, Tensor]:
        """Return the learned tensors."""
        return self.tensors

    def state(self) -> Mapping[str, Tensor]:
        """Return the learned tensors and what the optimiser remembers of each, as ``NAME.KIND``."""
        remembered = {
            f"{name}.{kind}": value
            for name, tensor in self.tensors.items()
            for kind, value in self.optimizer.state[tensor].items()
        }
        return {**self.tensors, **remembered}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Set the tensors and what the optimiser remembers to those that `state` returned."""
        entries: dict[int, dict[str, Tensor]] = {}
        for index, (name, tensor) in enumerate(self.tensors.items()):
            with torch.no_grad():
                tensor.copy_(state[name])
            memory = {key: value for key, value in state.items() if key.startswith(f"{name}.")}
            entries[index] = {key.removeprefix(f"{name}."): value.clone() for key, value in memory.items()}
        # By the optimiser itself, which knows where its step counters have to be.
        whole = self.optimizer.state_dict()
        self.optimizer.load_state_dict({**whole, "state": {index: entry for index, entry in entries.items() if entry}})


P = TypeVar("P", bound=PixelOptions)


class PixelMethod(Method[P]):
    """Learns images by SGD with momentum: network inputs, or the tensors of the parametrisation that ``as`` names.

    A subclass defines `step`, which sets ``images.grad`` and calls ``optimizer.step()``.

    Attributes:
        classes: number of classes.
        ipc: stored images per class.
        per_class: training images per class; more than ``ipc`` if several are decoded from a stored one.
        labels: class indices (classes * per_class,), class by class: 0, ..., 0, 1, ..., 1, ...
        targets: labels (classes * per_class, classes) that the parametrisation has of its own, a leaf that requires
            its gradient; None if it has none. A method that trains on labels takes these, and sets ``targets.grad``.
        images: network inputs (classes * per_class, c, h, w), a leaf that requires its gradient.
        encoded: the tensors that ``images`` are decoded from; None for plain images.
        optimizer: SGD on ``images``, or on the tensors that they are decoded from, at the rate ``lr_img`` with the
            momentum ``momentum_img``.
    """

    def __init__(self, task: Task, options: P) -> None:
        super().__init__(task, options)
        self.classes, self.ipc = len(task.problem.classes), task.ipc
        start = InitialImages(task.problem, task.ipc, options.init, task.streams)
        self.encoded: EncodedImages | None = None
        self.targets: Tensor | None = None
        self.optimizer: ImageSGD
        if options.as_ == PLAIN:
            self.labels = torch.arange(self.classes, device=task.problem.device).repeat_interleave(self.ipc)
            self.images = start.inputs(self.ipc).requires_grad_()
            self.optimizer = ImageSGD(self.images, [self.images], options.lr_img, options.momentum_img)
        else:
            self.encoded = EncodedImages(open_encoding(options.as_, task.problem.shape), start)
            self.labels, self.images, self.targets = self.encoded.labels, self.encoded.images, self.encoded.targets
            self.optimizer = EncodedSGD(self.encoded, options.lr_img, options.momentum_img)
        self.per_class = len(self.labels) // self.classes

    @property
    def label_kind(self) -> LabelKind | None:
        """The kind of labels that the parametrisation has of its own; None if it has none."""
        return self.encoded.label_kind if self.encoded else None

    def mine(self, label: int) -> slice:
        """Return the slice of ``images`` (and of ``labels``) that belongs to a class."""
        return slice(label * self.per_class, (label + 1) * self.per_class)

    def real(self, label: int, count: int, role: str, *index: int) -> Tensor:
        """Return real images (count, c, h, w) of a class; all of the class if it has fewer.

        They are drawn by `Problem.real_batch` from the stream of ``role``, ``index`` and the class.
        """
        return self.task.problem.real_batch(label, count, self.task.streams.generator(role, *index, label))

    def fix_batch_norm(self, network: Network, per_class: int, *index: int) -> None:
        """Make a network's batch norm use statistics of real images of all classes, until it trains again.

        On batches of a single class it would normalise by the statistics of that class. Nothing is drawn if the network
        has no batch norm.

        Args:
            network: changed in place.
            per_class: number of real images of each class.
            index: where in the run this is, which the draw depends on.
        """
        batches = (self.real(label, per_class, "statistics", *index) for label in range(self.classes))
        freeze_statistics(network, lambda: torch.cat(list(batches)))

    def watch_images(self) -> ImageGradient:
        """Return an object to which ``optimizer.step()`` adds ``images.grad`` from now on."""
        return self.optimizer.start_watching()

    def distilled(self) -> DistilledSet:
        """Return the present images with hard labels, as they are stored."""
        return self.encoded.distilled(self.task) if self.encoded else self.task.distilled(self.images, self.labels)

    def learned(self) -> Mapping[str, Tensor]:
        """Return the images, or the tensors that they are decoded from."""
        return self.encoded.tensors if self.encoded else {"images": self.images}

    def state(self) -> Mapping[str, Tensor]:
        """Return what is learned and its momentum, from which `restore` continues bit for bit."""
        tensors = PixelMethod.learned(self)
        # SGD has no momentum buffer before its first step.
        buffers = {name: self.optimizer.state[tensor].get("momentum_buffer") for name, tensor in tensors.items()}
        momenta = {_momentum(name): buffer for name, buffer in buffers.items() if buffer is not None}
        return {**tensors, **momenta}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Set what is learned and its momentum to those that `state` returned."""
        for name, tensor in PixelMethod.learned(self).items():
            # copy_ and not assignment: the optimiser and the graph hold this very leaf.
            with torch.no_grad():
                tensor.copy_(state[name])
            buffer = state.get(_momentum(name))
            self.optimizer.state[tensor]["momentum_buffer"] = None if buffer is None else buffer.clone()
        if self.encoded:
            self.encoded.refresh()


def _momentum(name: str) -> str:
    """Return the name of a tensor's momentum in a state."""
    return "momentum" if name == "images" else f"momentum.{name}"
