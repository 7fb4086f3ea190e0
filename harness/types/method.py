"""Base class of distillation methods, and what a method receives."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from harness.errors import PluginError
from harness.types.artifact import Artifact, ArtifactRequest, Scratch
from harness.types.data.labels import LABEL_KINDS, LabelKind, listed
from harness.types.data.schedule import Schedule
from harness.types.distilled import DistilledSet
from harness.types.network import Architecture, Network
from harness.types.options import Options
from harness.types.parametrisation import Encoding
from harness.types.problem import Problem
from harness.types.seeds import Streams

O = TypeVar("O", bound=Options)  # noqa: E741


class LiveNetwork(Protocol):
    """One of the networks that `Networks.live` returns: a place for a network, which is replaced when it is old.

    Attributes:
        network: the present network, on the problem's device. At the beginning of each iteration, and after `train`, it
            is in training mode and its parameters require gradients as its architecture has built them.
        age: steps that it was trained for, from 0 to the lifetime.
    """

    network: Network
    age: int

    @property
    def architecture(self) -> str:
        """The name of the network's architecture, with options."""
        ...

    @property
    def lifetime(self) -> int:
        """The age, in steps, at which the network is replaced."""
        ...

    def train(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        steps: int = 1,
        loss: Callable[[Any], Tensor] = ...,
        augment: Any = None,  # noqa: ANN401
        reduced: Callable[[], AbstractContextManager[Any]] = ...,
    ) -> list[float]:
        """Take the next steps of the recipe; an old network is replaced instead, by `renew`.

        Adjacent calls do what `harness.train_classifier` does in a single call for the whole life, with the schedule
        and the optimiser's momentum going on. Each step takes ``recipe.batch`` images, shuffled in each epoch.

        Args:
            images: network inputs (n, c, h, w), on the device.
            labels: their labels (n, ...), as the loss takes them.
            steps: number of steps, at least 1; fewer if the network's life ends before.
            loss: a `harness.Loss`; cross-entropy by default.
            augment: a `harness.Augment`; None for none.
            reduced: context in which the network runs, such as ``task.reduced_precision``.

        Returns:
            Mean training losses, as `harness.train_classifier` returns them; empty if the network was replaced.
        """
        ...

    def renew(self) -> None:
        """Replace the network by a fresh one: the pool draws its architecture, a draw of this iteration like others."""
        ...


class LiveNetworks(Protocol):
    """The set of networks that `Networks.live` returns: a sequence from which a step chooses."""

    def choose(self) -> LiveNetwork:
        """Return one of the networks, drawn uniformly from the distillation's random stream of choices."""
        ...

    def __getitem__(self, index: int, /) -> LiveNetwork: ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[LiveNetwork]: ...


class Networks(Protocol):
    """The source of a step's networks: it draws from the pool, and returns artifacts that were made before."""

    def draw(self) -> Network:
        """Return a freshly initialised network, in training mode, of an architecture drawn for this iteration."""
        ...

    def draw_together(self) -> Sequence[Network]:
        """Return the fresh networks that the pool wants matched in this step; a single one of most pools.

        A method that calls it sets ``draws_together``, and updates by what `combine` makes of the networks' gradients.
        """
        ...

    def combine(self, gradients: Sequence[Tensor]) -> Tensor:
        """Return the gradient of an update from those of each network drawn together; of a single one, its own."""
        ...

    def live(
        self,
        count: int,
        *,
        steps: int,
        recipe: Any,  # noqa: ANN401
        staggered: bool = False,
        name: str = "networks",
    ) -> LiveNetworks:
        """Return networks that live on from iteration to iteration (FRePo, Zhou et al., NeurIPS 2022).

        Ask for them in every step. The first call draws them from the pool; weights, optimisers and ages are part of
        the trajectory's state beside `Method.state`, so that a run that stops and goes on has the same ones.

        Args:
            count: number of networks, at least 1.
            steps: age in steps at which a network is replaced by a fresh draw, at least 1.
            recipe: a `harness.Recipe`; its length is replaced by ``steps``, over which its schedule runs.
            staggered: whether network i begins at the age i * steps // count, so that they are replaced in turn.
            name: distinguishes several sets of a method.

        Raises:
            PluginError: the method declares no pool, or asks for other networks than in an earlier step.
        """
        ...

    def needed(self, network: Network | None) -> Sequence[Artifact]:
        """Return the artifacts that the method's `needs` asks for at this iteration.

        Args:
            network: one that was drawn at this iteration, for whose architecture `needs` is asked; None asks without
                an architecture, as a method without a pool does.
        """
        ...


@dataclass(frozen=True)
class Task:
    """The task of a method: the real data, the size of the set, the random streams.

    Attributes:
        problem: the real data.
        ipc: images per class of the distilled set, at least 1; 0 for a method with ``uses_ipc = False``.
        streams: the random streams of this distillation.
        iterations: the total that was asked for; a method whose schedule depends on it sets ``uses_total``.
        precision: ``fp32``; ``tf32``: a GPU may round the factors of all products; ``bf16``: the method's heavy,
            noise-tolerant part may run in bfloat16.
    """

    problem: Problem
    ipc: int
    streams: Streams
    iterations: int
    precision: str = "fp32"

    def reduced_precision(self) -> AbstractContextManager[Any]:
        """Return a context for the part that tolerates noise: bfloat16 autocast under ``bf16``, otherwise no change."""
        return torch.autocast(self.problem.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def distilled(
        self,
        images: Tensor,
        labels: Tensor,
        step_size: float | None = None,
        encoding: Encoding | None = None,
        *,
        label_kind: LabelKind | None = None,
        schedule: Schedule | None = None,
    ) -> DistilledSet:
        """Build a set of this problem from learned images and labels, copied to the CPU.

        Args:
            images: network inputs; with an encoding, what it decodes.
            labels: class indices, class weights or real values.
            step_size: the learning rate for students, if one was learned.
            encoding: how the images are stored, with the tensors beside them; None for plain images.
            label_kind: ``regression`` for real values; None for indices and weights, whose type says what they are.
            schedule: ordered steps with the training images that each owns; None if there are none.
        """
        # A copy even on the CPU: later steps change the method's own tensors in place.
        images, labels = (tensor.detach().to("cpu", copy=True) for tensor in (images, labels))
        if encoding is not None:
            copies = {name: tensor.detach().to("cpu", copy=True) for name, tensor in encoding.tensors.items()}
            encoding = replace(encoding, tensors=copies)
        problem = self.problem
        return DistilledSet(
            images,
            labels,
            problem.classes,
            problem.preprocessing,
            step_size,
            encoding=encoding,
            label_kind=label_kind,
            schedule=schedule,
        )


@dataclass
class ImageGradient:
    """The gradient of a step by the training images, summed over the step's updates.

    Attributes:
        total: (n, c, h, w), of the images as students train on them; None before the first update.
    """

    total: Tensor | None = None

    def add(self, gradient: Tensor) -> None:
        """Add the gradient of an update, which is copied."""
        gradient = gradient.detach()
        self.total = gradient.clone() if self.total is None else self.total + gradient


class Method(ABC, Generic[O]):
    """A distillation method. One `step` is one outer iteration, exactly one update in the paper's count."""

    Options: ClassVar[type[Options]] = Options
    version: ClassVar[int] = 1
    """A whole number from 1 on; increase it whenever the same options give other numbers."""
    uses_pool: ClassVar[bool] = True
    """Whether it draws networks; if not, a crossing with a pool is not applicable."""
    uses_total: ClassVar[bool] = False
    """Whether its schedule depends on the total of iterations; if so, a trajectory cannot be extended."""
    iterates: ClassVar[bool] = True
    """Whether it iterates; if not, it chooses the set in one step, and a number of iterations is not applicable."""
    uses_ipc: ClassVar[bool] = True
    """Whether the set's size is asked for; not so for all training data."""
    draws_together: ClassVar[bool] = False
    """Whether a step takes several networks at once by `Networks.draw_together`, as some pools ask."""
    spreads_classes: ClassVar[bool] = False
    """Whether its steps match classes by `harness.match_classes`, which the processes of a job share."""
    check_draws: ClassVar[str] = ""
    """An architecture that it does not refuse, by which the contract kit checks it; empty for any."""
    check_options: ClassVar[str] = ""
    """Options, ``"steps=2,batch=8"``, by which the contract kit checks it where its defaults would take minutes."""

    def __init__(self, task: Task, options: O) -> None:
        self.task = task
        self.options = options

    @property
    def label_kind(self) -> LabelKind | None:
        """The kind of labels of its sets, by which evaluators that do not take it are refused before any work.

        None, by default, if it is not known before: indices or class weights. A method whose sets have labels of
        ``regression`` has to return that.
        """
        return None

    @property
    def has_schedule(self) -> bool:
        """Whether its sets have a schedule, which some protocols need; by default, not."""
        return False

    @property
    def draws(self) -> int:
        """How many networks a step draws, as far as `needs` depends on them; by default, one."""
        return 1

    @property
    def loads_weights(self) -> bool:
        """Whether it replaces drawn networks' weights, so that pools which decide these are not applicable."""
        return False

    def refusal(self, network: Network) -> str | None:
        """Return why it cannot use networks of an architecture that the pool may draw, or None if it can.

        Such a crossing with a pool is not applicable, which a line says before any work.

        Args:
            network: a network of the architecture, without memory for its weights.
        """
        return None

    def pool_refusal(self, architectures: Sequence[str]) -> str | None:
        """Return why it cannot use a pool that draws these architectures, by name, or None if it can; as `refusal`."""
        return None

    def watch_images(self) -> ImageGradient | None:
        """Return an object to which every update from now on adds its gradient by the training images.

        Pools that watch gradients need it. None, by default, if the method has no such gradient: then these pools are
        not applicable, which a line says before any work.
        """
        return None

    @abstractmethod
    def step(self, iteration: int, networks: Networks) -> Mapping[str, float]:
        """Do one outer iteration (counted from 0) and return scalars to log."""

    @abstractmethod
    def distilled(self) -> DistilledSet:
        """Return the current distilled set, detached from any graph."""

    @abstractmethod
    def learned(self) -> Mapping[str, Tensor]:
        """Return the learned tensors by name, which must stay finite; ``images`` are the set's pixels."""

    @abstractmethod
    def state(self) -> Mapping[str, Tensor]:
        """Return all that decides the steps to come, beside options and streams: learned tensors, optimiser buffers."""

    @abstractmethod
    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state` returned, bit for bit."""

    def needs(self, iteration: int, architecture: str | None) -> Sequence[ArtifactRequest]:
        """Return the artifacts that a step requests when the pool draws ``architecture`` (None: without a pool).

        It is a function of its arguments, the task and the options alone: what a whole run needs is computed, estimated
        and made before it. The step gets the artifacts from ``networks.needed(network)``.

        A network trained on the real data is requested by `harness.RealNetwork`, and made by the harness; any other
        artifact by `make_artifact`.
        """
        return ()

    def make_artifact(
        self,
        request: ArtifactRequest,
        problem: Problem,
        architecture: Architecture[Any] | None,
        streams: Streams,
        scratch: Scratch,
    ) -> Artifact:
        """Make what `needs` requested, from ``streams`` and not the task's: distillations share it.

        Args:
            request: one of the requests of `needs`.
            problem: the real data.
            architecture: the architecture that the request names.
            streams: the random streams of artifacts that distillations share.
            scratch: stores finished parts, so that a later attempt can resume.
        """
        raise TypeError(f"{type(self).__name__} asks for an artifact that it cannot make")

    def settings(self) -> Mapping[str, Any]:
        """Return the values that options set to ``auto`` take on this problem, as JSON: part of the key, and recorded.

        Only those that depend on more than options, ipc, the training images and the problem's augmentations.
        """
        return {}

    def notes(self) -> Sequence[str]:
        """Return lines to print beneath the table, such as a published setting that the run departs from."""
        return ()

    def work(self) -> float | None:
        """Return the forward passes of one image in one iteration (a backward pass counts as two), or None.

        Only for the estimate of time before a run.
        """
        return None


def declared_kind(method: Method[Any]) -> LabelKind | None:
    """Return the kind of labels that a method declares for its sets; None if it declares none.

    Raises:
        PluginError: it declares something else.
    """
    kind = method.label_kind
    if kind is not None and kind not in LABEL_KINDS:
        who = getattr(method, "ddbench_name", type(method).__name__)
        raise PluginError(f"{who}: label_kind is {kind!r:.80}, which is not {listed(LABEL_KINDS)} or None")
    return kind


def check_declared(distilled: DistilledSet, method: Method[Any], what: str) -> None:
    """Check that a set has the kind of labels and the schedule that its method declares, by which runs are planned.

    Args:
        distilled: what the method returned.
        method: the method.
        what: the code and its method, for the message.

    Raises:
        PluginError: it has others.
    """
    declared, kind = declared_kind(method), distilled.label_kind
    # A method that declares nothing gives indices or weights, as all did before there were kinds to declare.
    if kind != declared and (declared is not None or kind == "regression"):
        raise PluginError(f"{what} gives {kind} labels, but its method declares label_kind {declared!r}")
    if (distilled.schedule is not None) != bool(method.has_schedule):
        gives = "no schedule" if distilled.schedule is None else "a schedule"
        raise PluginError(f"{what} gives {gives}, but its method declares has_schedule = {method.has_schedule!r}")
