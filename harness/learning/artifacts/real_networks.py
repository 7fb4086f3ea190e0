"""Networks trained on the real data by a recipe, which any method or evaluator may ask for and all of them share."""

import contextlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn

from harness.compute.network_traits import draws_globally
from harness.errors import DDBenchError
from harness.learning.artifacts.experts import snapshot
from harness.learning.named_tensors import copies_under, tensors_under
from harness.learning.recipe import Augment, Recipe
from harness.learning.students import score
from harness.learning.training import train_classifier
from harness.learning.training_step import OptimizerState
from harness.types.artifact import Artifact, Scratch, SharedRequest
from harness.types.network import Architecture, Network
from harness.types.problem import Problem
from harness.types.seeds import Streams, global_rng_from

VERSION = 1
"""Version of the training, part of every key: to be increased whenever the same request gives other weights."""
_ROLE = "real-network"
_TRAINING = "training"
_NETWORK, _OPTIMIZER, _LOSSES = "network.", "optimizer.", "losses"


@dataclass(frozen=True)
class NamedAugment:
    """An augmentation with the name by which keys know it.

    Attributes:
        name: all that decides the augmentation, as text: its options, and a version if its numbers ever change
            (``"dsa color_crop_cutout"``). Requests whose augmentations have the same name and come from the same
            package share a network.
        build: returns the augmentation for a problem, on whose classes and shape it may depend.
    """

    name: str
    # Two lambdas are never equal, and the name is what counts.
    build: Callable[[Problem], Augment] = field(compare=False)

    @property
    def module(self) -> str:
        """The module that defines `build`."""
        # A partial object belongs to functools: what it calls is the author's.
        build = getattr(self.build, "func", self.build)
        return str(build.__module__)


@dataclass(frozen=True, kw_only=True)
class RealNetwork(SharedRequest):
    """A request for a network that is trained on all training images, with its weights after several epochs.

    A method returns it from ``needs``, an evaluator from ``artifact``. The harness trains the network, in float32 and
    with the cross-entropy, so that no component writes ``make_artifact`` for it. Its key depends on the training images
    and their preprocessing, the architecture, the recipe, the augmentation, the snapshots, the index and the seed, and
    not on who asks: components that ask for the same share one network. `trained_network` loads it.

    Requests for other snapshots of the same training are other artifacts, each trained by itself: name all
    epochs in one request.

    Attributes:
        architecture: the name of an architecture.
        recipe: how the network is trained; it counts epochs. Training ends with the last snapshot, though the schedule
            is that of all epochs.
        snapshots: epochs after which the weights are stored, from 0 (before any training) to the recipe's last; in
            ascending order, each once, whatever the order they are passed in. Empty for the last epoch alone.
        index: from 0 on; networks with other indices have other initial weights, batches and augmentations.
        augmentation: applied to each batch of images; None for none.

    Raises:
        ValueError: a value is outside its range, or the recipe counts steps or images.
    """

    architecture: str
    recipe: Recipe
    snapshots: tuple[int, ...] = ()
    index: int = 0
    augmentation: NamedAugment | None = None
    kind: str = field(default="real network", init=False)
    identity: Mapping[str, Any] = field(default_factory=dict, init=False)
    copies: int = field(default=1, init=False)
    work: float | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if not isinstance(self.architecture, str) or not self.architecture:
            raise ValueError(f"a real network is of a named architecture, not {self.architecture!r}: name one")
        if not self.recipe.counts_epochs:
            raise ValueError("a real network's recipe counts epochs, after which its weights are stored: set epochs")
        if not isinstance(self.index, Integral) or self.index < 0:
            raise ValueError(f"a real network's index is a whole number from 0 on, not {self.index!r}")
        if self.augmentation is not None and not self.augmentation.name.strip():
            raise ValueError("a real network's augmentation has a name, by which its key knows it: name it")
        object.__setattr__(self, "snapshots", _checked(self.snapshots, self.recipe.epochs))
        object.__setattr__(self, "copies", len(self.snapshots))
        object.__setattr__(self, "identity", self._identity())

    def _identity(self) -> dict[str, Any]:
        augmentation = self.augmentation
        # The package and not the module, so that an author may move the function.
        named = augmentation and [augmentation.name, augmentation.module.partition(".")[0]]
        return {
            "index": int(self.index),
            "recipe": self.recipe.identity(),
            "snapshots": list(self.snapshots),
            "augmentation": named,
            "version": VERSION,
        }

    def passes(self, problem: Problem) -> float:
        """Return the forward passes of one image while the network is trained and scored; a backward one is two."""
        images = len(problem.train)
        return 3.0 * self.snapshots[-1] * images + images + len(problem.score)


def _checked(snapshots: tuple[int, ...], epochs: int) -> tuple[int, ...]:
    """Return the epochs in ascending order, each once; the last one if there are none."""
    for epoch in snapshots:
        if not isinstance(epoch, Integral) or not 0 <= epoch <= epochs:
            remedy = f"ask for epochs from 0 to {epochs}"
            raise ValueError(
                f"snapshot {epoch!r} is not among the {epochs} epochs of a real network's recipe: {remedy}"
            )
    return tuple(sorted({int(epoch) for epoch in snapshots})) or (epochs,)


def trained_network(
    artifact: Artifact, problem: Problem, epoch: int | None = None, *, training: bool = False
) -> Network:
    """Return a new network with the weights of an artifact after an epoch, on the problem's device.

    Args:
        artifact: a real network (see `RealNetwork`), or an expert as `train_expert` stores it.
        problem: provides the shape of the images, the classes and the device.
        epoch: one of the request's snapshots; None for the last.
        training: whether it is in training mode, with parameters that require a gradient. Otherwise it is in
            evaluation mode, and its parameters require none, as those of a teacher.

    Raises:
        DDBenchError: the artifact does not hold weights after this epoch.
        TypeError: the artifact belongs to no architecture.
    """
    if artifact.architecture is None:
        raise TypeError("the artifact of a trained network has no architecture to build it with")
    held = sorted({int(name.partition(".")[0]) for name in artifact.tensors})
    epoch = held[-1] if epoch is None else epoch
    if epoch not in held:
        epochs = ", ".join(map(str, held))
        raise DDBenchError(f"no weights are stored after epoch {epoch}, only after {epochs}: add it to the snapshots")
    network = artifact.architecture.build(problem.shape, len(problem.classes), torch.Generator())
    network.load_state_dict(snapshot(artifact.tensors, epoch, torch.device("cpu")))
    return network.to(problem.device).train(training).requires_grad_(training)


def train_real_network(
    request: RealNetwork, problem: Problem, architecture: Architecture[Any], streams: Streams, scratch: Scratch
) -> Artifact:
    """Train a network as requested.

    Each finished epoch goes to ``scratch``, from which an interrupted training continues bit for bit.

    Args:
        request: recipe, snapshots, augmentation and index.
        problem: provides the training images, which alone decide the weights, and the scored ones.
        architecture: the architecture that the request names.
        streams: random streams of what distillations share.
        scratch: holds the epochs that an earlier attempt has finished.

    Returns:
        The weights and buffers after each epoch of the snapshots, on the CPU, as ``"EPOCH.NAME"``. The scalars describe
        the last of them: the mean training loss of its epoch (not of epoch 0), and the accuracies on the training
        images and on those that the problem scores, ``validation_accuracy`` or ``test_accuracy``. Nothing depends on
        these two, not even the key: they describe the network on the split of the run that made it.

    Raises:
        DDBenchError: a loss is not finite.
    """
    generator = streams.generator(_ROLE, 0, request.index)
    network = architecture.build(problem.shape, len(problem.classes), generator).to(problem.device)
    tensors, losses = _train(network, request, problem, streams, scratch)
    on_train, _ = score(network, replace(problem, score=problem.train))
    on_scored, _ = score(network, problem)
    loss = {"loss": losses[-1]} if losses else {}
    return Artifact(tensors, {**loss, "train_accuracy": on_train, f"{problem.score_on}_accuracy": on_scored})


def _train(
    network: nn.Module, request: RealNetwork, problem: Problem, streams: Streams, scratch: Scratch
) -> tuple[dict[str, Tensor], list[float]]:
    """Train up to the last snapshot, and return the snapshots and the mean loss of each epoch."""

    def draw(purpose: str, epoch: int) -> torch.Generator:
        return streams.generator(f"{_ROLE}-{purpose}", epoch, request.index)

    wanted, snapshots = request.snapshots, dict[str, Tensor]()
    if wanted[0] == 0:
        snapshots |= copies_under("0.", network.state_dict())
    images, labels = problem.train_inputs, problem.train.labels.to(problem.device)
    augment = request.augmentation.build(problem) if request.augmentation else None
    drops, optimizer = draws_globally(network, problem), OptimizerState()
    losses = _resume(network, optimizer, wanted, snapshots, scratch)
    for epoch in range(len(losses), wanted[-1]):
        # Dropout draws from the global generator, which is seeded here, so that an epoch does not depend on whether
        # those before it ran in this process.
        with global_rng_from(draw("dropout", epoch)) if drops else contextlib.nullcontext():
            (loss,) = train_classifier(
                network,
                images,
                labels,
                request.recipe,
                draw,
                augment=augment,
                state=optimizer,
                span=range(epoch, epoch + 1),
            )
        if not math.isfinite(loss):
            remedy = "a lower learning rate may help"
            raise DDBenchError(f"the loss of a network on the real data is {loss} in epoch {epoch + 1}: {remedy}")
        losses.append(loss)
        if len(losses) in wanted:
            taken = copies_under(f"{len(losses)}.", network.state_dict())
            snapshots |= taken
            scratch.put(f"snapshot-{len(losses)}", taken)
        # After the snapshot: whoever finds this part finds all snapshots up to its epoch.
        scratch.put(_TRAINING, _state(network, optimizer, losses))
    return snapshots, losses


def _resume(
    network: nn.Module,
    optimizer: OptimizerState,
    wanted: tuple[int, ...],
    snapshots: dict[str, Tensor],
    scratch: Scratch,
) -> list[float]:
    """Set network, optimiser and snapshots to where an earlier attempt ended, and return its losses of each epoch."""
    state = scratch.get(_TRAINING)
    losses: list[float] = state[_LOSSES].tolist() if state else []
    parts = [scratch.get(f"snapshot-{epoch}") for epoch in wanted if 0 < epoch <= len(losses)]
    if state is None or None in parts:  # a part may be damaged: the training starts again
        return []
    for part in parts:
        snapshots |= part or {}
    network.load_state_dict(tensors_under(_NETWORK, state))
    optimizer.tensors = tensors_under(_OPTIMIZER, state)
    return losses


def _state(network: nn.Module, optimizer: OptimizerState, losses: list[float]) -> dict[str, Tensor]:
    """Return all that decides the epochs to come, with the losses of those before."""
    own = {_LOSSES: torch.tensor(losses, dtype=torch.float64)}
    return {**own, **copies_under(_NETWORK, network.state_dict()), **copies_under(_OPTIMIZER, optimizer.tensors)}
