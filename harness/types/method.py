"""What the author of a distillation method subclasses."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from harness.types.artifact import Artifact, ArtifactRequest, Scratch
from harness.types.distilled import DistilledSet
from harness.types.network import Architecture, Network
from harness.types.options import Options
from harness.types.problem import Problem
from harness.types.seeds import Streams

O = TypeVar("O", bound=Options)  # noqa: E741


class Networks(Protocol):
    """The harness's side of a step: it draws from the pool, and hands out what was made before."""

    def draw(self) -> Network:
        """A freshly initialised network, in training mode, of an architecture drawn for this iteration."""
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
    """What a method is given when it is built.

    Attributes:
        problem: the real data.
        ipc: images per class of the distilled set, at least 1; 0 for a method that says ``uses_ipc = False``.
        streams: the random streams of this distillation.
        iterations: the total asked for. A method whose schedule depends on it sets ``uses_total``.
        precision: ``fp32``; ``tf32`` where a GPU may round the factors of all products; ``bf16`` where the method's
            heavy, noise-tolerant part may run in bfloat16.
    """

    problem: Problem
    ipc: int
    streams: Streams
    iterations: int
    precision: str = "fp32"

    def reduced_precision(self) -> AbstractContextManager[Any]:
        """A context for the part that tolerates noise: bfloat16 autocast under ``bf16``, nothing under another."""
        return torch.autocast(self.problem.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def distilled(self, images: Tensor, labels: Tensor, step_size: float | None = None) -> DistilledSet:
        """A set of this problem from learned images (network inputs) and labels, copied to the CPU."""
        images, labels = (tensor.detach().to("cpu", copy=True) for tensor in (images, labels))
        return DistilledSet(images, labels, self.problem.classes, self.problem.preprocessing, step_size)


class Method(ABC, Generic[O]):
    """A distillation method. One `step` is one outer iteration, exactly one update in the paper's count."""

    Options: ClassVar[type[Options]] = Options
    version: ClassVar[int] = 1
    """Raised whenever the same options give other numbers."""
    uses_pool: ClassVar[bool] = True
    """False where no network is drawn: a crossing with a pool is then not applicable."""
    uses_total: ClassVar[bool] = False
    """True where the schedule depends on the total of iterations: such a trajectory cannot be extended."""
    iterates: ClassVar[bool] = True
    """False where the set is chosen in one step: a number of iterations is then not applicable."""
    uses_ipc: ClassVar[bool] = True
    """False where the set's size is not asked for, as of all training data."""

    def __init__(self, task: Task, options: O) -> None:
        self.task = task
        self.options = options

    @abstractmethod
    def step(self, iteration: int, networks: Networks) -> Mapping[str, float]:
        """Do one outer iteration (counted from 0) and return scalars to log."""

    @abstractmethod
    def distilled(self) -> DistilledSet:
        """The distilled set as it stands, detached from any graph."""

    @abstractmethod
    def learned(self) -> Mapping[str, Tensor]:
        """The learned tensors by name; the harness watches that they stay finite. ``images`` is the set's pixels."""

    @abstractmethod
    def state(self) -> Mapping[str, Tensor]:
        """All that decides the steps to come, beside options and streams: learned tensors, optimiser buffers."""

    @abstractmethod
    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take up what `state` gave, bit for bit."""

    def needs(self, iteration: int, architecture: str | None) -> Sequence[ArtifactRequest]:
        """The artifacts that a step asks for when the pool draws ``architecture`` for it (None: without a pool).

        A function of its arguments, the task and the options alone: what a whole run needs is found out, told and made
        before it. The step gets them from ``networks.needed(network)``.
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
        """Make what `needs` asked for: whichever distillation asks, so from ``streams`` and not the task's.

        Args:
            request: one of those that `needs` gave.
            problem: the real data.
            architecture: the one that the request names.
            streams: the random streams of what distillations share.
            scratch: keeps what is done, so that a later try goes on from there.
        """
        raise TypeError(f"{type(self).__name__} asks for an artifact that it cannot make")

    def settings(self) -> Mapping[str, Any]:
        """As JSON, the values that options left to ``auto`` take on this problem: part of the key, and recorded.

        Only those that depend on more than options, ipc, the training images and the problem's augmentations.
        """
        return {}

    def notes(self) -> Sequence[str]:
        """What should be said beneath the table, such as a published setting that the run departs from."""
        return ()

    def work(self) -> float | None:
        """How many images pass forward through a network in one iteration (a backward pass counts as two), if known.

        Only for the estimate of time before a run.
        """
        return None
