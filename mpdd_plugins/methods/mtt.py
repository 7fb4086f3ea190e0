"""Matching training trajectories: Cazenavette et al., CVPR 2022 (MTT).

With the constant memory of Cui et al., ICML 2023 (TESLA), and the flat experts of Du et al., CVPR 2023 (FTD): these are
trained by GSAM (``flat_radius``), and the running mean of the images is the result (``average``), not the images that
the iterations move; the mean leaves out the learned learning rate. FTD's settings at ipc 50 on CIFAR-10 are MTT's with
``lr_img=1000,step_size=0.01``.

The paper's symbols: theta*_t are an expert's weights after t epochs (``start``), theta*_{t+M} those M epochs later
(``target``), N the student's steps (``setting.steps``), alpha its learned learning rate (``step_size``).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from harness import (
    Architecture,
    Artifact,
    ArtifactRequest,
    DistilledSet,
    LabelKind,
    Network,
    Networks,
    PixelMethod,
    Problem,
    Recipe,
    Scratch,
    Step,
    Streams,
    Student,
    Task,
    UsageError,
    draws_globally,
    snapshot,
    train_expert,
    unroll_constantly,
    unroll_exactly,
)
from mpdd_plugins.augmentations.dsa import dsa_augmentation, own_strategy, per_image
from mpdd_plugins.published_settings.mtt import MTTOptions, departures, setting_for

# How the student's steps are differentiated, by the option ``unroll``.
UNROLL = {"exact": unroll_exactly, "constant": unroll_constantly}
SMALLEST_STEP = 1e-6
"""Smallest learned step size, since a student needs a positive learning rate; MTT's code has no such limit."""


class MTT(PixelMethod[MTTOptions]):
    """Learns images such that N student steps from an expert snapshot end near the expert's weights M epochs later."""

    Options = MTTOptions
    check_options = "experts=2,train_epochs=3,steps=2,expert_epochs=1,max_start_epoch=2"

    def __init__(self, task: Task, options: MTTOptions) -> None:
        # What the user set is needed for `notes`; everything else reads the options with their published values.
        self.user_options, self.setting = options, setting_for(task, options)
        super().__init__(task, options.model_copy(update=asdict(self.setting)))
        if self.encoded and len(self.images) > self.ipc * self.classes and options.labels == "expert":
            fault = f"labels=expert gives each image a label of its own, but as={options.as_} stores several as one"
            raise UsageError(f"mtt: {fault}; use labels=hard")
        own = self.encoded.label_kind if self.encoded else None
        if own is not None and (options.labels == "expert" or own != "soft"):
            fault = f"as={options.as_} has {own} labels of its own, and mtt learns soft ones"
            raise UsageError(f"mtt: {fault} with labels=hard")
        # Only now it is known how many images the student trains on; of plain images, the setting stays the same.
        self.setting = setting_for(task, options, self.per_class)
        self.strategy = own_strategy(task.problem) if options.augment is None else options.augment
        self.step_size = torch.tensor(self.setting.step_size, device=self.images.device, requires_grad=True)
        self.step_optimizer = torch.optim.SGD([self.step_size], self.setting.lr_lr, momentum=options.momentum_img)
        self.soft_labels = torch.nn.functional.one_hot(self.labels, self.classes).float()
        # The running mean of what is learned, which is stored in its place; without one, what is learned.
        self.stored = dict(PixelMethod.learned(self))
        if options.average:
            self.stored = {name: tensor.detach().clone() for name, tensor in self.stored.items()}

    def step(self, iteration: int, networks: Networks) -> Mapping[str, float]:
        """Match one stretch of one expert's trajectory (MTT, algorithm 1)."""
        # Only the structure of the drawn network is used: its weights come from the expert.
        options, network = self.options, networks.draw()
        tensors, epoch = self._expert(network, networks, iteration), self._start_epoch(iteration)
        start, target = (
            snapshot(tensors, at, self.images.device) for at in (epoch, epoch + self.setting.expert_epochs)
        )
        if self.options.labels == "expert":
            self.soft_labels = self._predictions(network, target)
        student = self._student(network, start)
        names = [name for name, weight in network.named_parameters() if weight.requires_grad]
        loss, self.images.grad, self.step_size.grad = UNROLL[self.options.unroll](
            student,
            {name: start[name] for name in names},
            {name: target[name] for name in names},
            self.images,
            self.step_size,
            self._steps(network, iteration),
        )
        loss = loss + self._extra_loss(iteration, networks)
        self.optimizer.step()
        self.step_optimizer.step()
        with torch.no_grad():
            # In place: the optimiser holds this tensor.
            self.step_size.clamp_(min=SMALLEST_STEP)
            if options.average:
                for name, tensor in PixelMethod.learned(self).items():
                    self.stored[name].lerp_(tensor, 1 - options.average)
        return {"loss": float(loss), "step_size": float(self.step_size.detach()), "start_epoch": float(epoch)}

    def _expert(self, network: Network, networks: Networks, iteration: int) -> Mapping[str, Tensor]:
        """Return the weights after each epoch of the expert that is matched, of the network's architecture."""
        (expert,) = networks.needed(network)
        return expert.tensors

    def _extra_loss(self, iteration: int, networks: Networks) -> float:
        """Add the gradients of further terms of a variant's loss to those of the images; of MTT, there are none."""
        return 0.0

    def _start_epoch(self, iteration: int) -> int:
        generator = self.task.streams.generator("start-epoch", iteration)
        return int(torch.randint(self.setting.max_start_epoch, (), generator=generator))

    def _student(self, network: Network, start: Mapping[str, Tensor]) -> Student:
        """Return the student: the network's structure, with batch norm's statistics by the option ``statistics``."""
        network.train(self.options.statistics == "batch")
        buffers = {name: start[name] for name, _ in network.named_buffers()}
        return Student(network, buffers, self._labels())

    @property
    def label_kind(self) -> LabelKind:
        """The kind of labels of its sets: those of the experts and of a parametrisation are soft."""
        return "hard" if self.options.labels == "hard" and self.targets is None else "soft"

    def _labels(self) -> Tensor:
        if self.targets is not None:
            return self.targets
        return self.labels if self.options.labels == "hard" else self.soft_labels

    def _predictions(self, network: Network, weights: Mapping[str, Tensor]) -> Tensor:
        """Return the probabilities (n, classes) that a network of these weights predicts for the present images."""
        with torch.no_grad():
            logits: Tensor = functional_call(network.eval(), dict(weights), (self.images,))
        return logits.softmax(1)

    def _steps(self, network: Network, iteration: int) -> list[Step]:
        """Return the student's steps, with an augmentation each."""
        streams, batches = self.task.streams, self._batches(iteration, self.setting.steps)
        # Each step has an augmentation of its own. A network with dropout gets a seed for each step, because TESLA's
        # second pass has to repeat the first one exactly.
        drops = draws_globally(network, self.task.problem)
        return [
            Step(
                index,
                self._transform(len(index), iteration, number),
                streams.number("dropout", iteration, number) if drops else None,
            )
            for number, index in enumerate(batches)
        ]

    @property
    def _batch_total(self) -> int:
        """How many there are of what the student's batches are drawn from."""
        return len(self.images)

    def _batches(self, iteration: int, count: int) -> list[Tensor]:
        """Return the images of each step: all of them in a random order, reshuffled when they are used up."""
        batches: list[Tensor] = []
        while len(batches) < count:
            generator = self.task.streams.generator("batches", iteration, len(batches))
            order = torch.randperm(self._batch_total, generator=generator).to(self.images.device)
            batches += torch.split(order, self.setting.batch)
        return batches[:count]

    def _transform(self, count: int, iteration: int, number: int) -> Callable[[Tensor], Tensor]:
        if self.strategy == "none":
            return torch.clone  # differentiable, and never the images themselves
        generator = self.task.streams.generator("augment", iteration, number)
        return per_image(self.strategy, self.task.problem.shape, count, generator)

    @property
    def loads_weights(self) -> bool:
        """Always True: the weights are those of experts."""
        return True

    def needs(self, iteration: int, architecture: str | None) -> Sequence[ArtifactRequest]:
        """Request one expert of the architecture; all take their turn in random order before any is repeated."""
        # The order depends on the iteration alone, not on the pool's draws: pools see the same indices.
        round_, turn = divmod(iteration, self.options.experts)
        generator = self.task.streams.generator("experts", round_)
        index = int(torch.randperm(self.options.experts, generator=generator)[turn])
        identity = {"recipe": self._expert_recipe().identity(), "augment": self.strategy}
        passes = 6.0 if self.options.flat_radius else 3.0
        work = passes * self.options.train_epochs * len(self.task.problem.train)
        return [ArtifactRequest("expert", index, architecture, identity, self.options.train_epochs + 1, work)]

    def make_artifact(
        self,
        request: ArtifactRequest,
        problem: Problem,
        architecture: Architecture[Any] | None,
        streams: Streams,
        scratch: Scratch,
    ) -> Artifact:
        """Train an expert, with the student's augmentation."""
        if architecture is None:
            raise UsageError("mtt trains experts of the architectures that a pool draws, but there is no pool")
        network = architecture.build(
            problem.shape, len(problem.classes), streams.generator("expert-weights", request.index)
        ).to(problem.device)

        def draw(purpose: str, epoch: int) -> torch.Generator:
            return streams.generator(f"expert-{purpose}", epoch, request.index)

        augment = None if self.strategy == "none" else dsa_augmentation(self.strategy)
        tensors, losses = train_expert(network, problem, self._expert_recipe(), draw, scratch, augment)
        return Artifact(tensors, {"loss": losses[-1], "first_loss": losses[0]})

    def _expert_recipe(self) -> Recipe:
        options = self.options
        recipe = Recipe(options.train_epochs, options.lr_expert, "sgd", "constant", 0.0, 0.0, options.batch_expert)
        return replace(recipe, flat_radius=options.flat_radius, flat_gap=options.gap(self.ipc))

    def distilled(self) -> DistilledSet:
        """Return the present images, or their running mean, with their labels and the step size."""
        step_size = float(self.step_size.detach())
        if self.encoded:
            learned = self.soft_labels if self.options.labels == "expert" else None
            return self.encoded.distilled(self.task, step_size, learned, tensors=self.stored)
        return self.task.distilled(self.stored["images"], self._labels(), step_size)

    def learned(self) -> Mapping[str, Tensor]:
        """Return the images and the step size."""
        return {**super().learned(), "step_size": self.step_size}

    def state(self) -> Mapping[str, Tensor]:
        """Return images, step size and soft labels, with the momentum of both optimisers."""
        momentum = self.step_optimizer.state[self.step_size].get("momentum_buffer")
        own = {"step_size": self.step_size, "soft_labels": self.soft_labels}
        if self.options.average:
            own |= {f"mean.{name}": tensor for name, tensor in self.stored.items()}
        return {**super().state(), **own, **({} if momentum is None else {"step_momentum": momentum})}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Set all tensors to those that `state` returned."""
        super().restore(state)
        with torch.no_grad():
            self.step_size.copy_(state["step_size"])
        self.soft_labels = state["soft_labels"].clone()
        if self.options.average:
            for name, tensor in self.stored.items():
                tensor.copy_(state[f"mean.{name}"])
        momentum = state["step_momentum"].clone() if "step_momentum" in state else None
        self.step_optimizer.state[self.step_size]["momentum_buffer"] = momentum

    def settings(self) -> Mapping[str, Any]:
        """Return the values of the options that were left to ``auto``."""
        return asdict(self.setting)

    def notes(self) -> Sequence[str]:
        """Return how the run departs from the published setting, one line each."""
        return departures(self.task, self.user_options)

    def work(self) -> float:
        """Return the passes of one iteration: about nine over the batch of each step."""
        # Forward and backward are three; differentiating both makes nine.
        return 9.0 * self.setting.steps * self.setting.batch
