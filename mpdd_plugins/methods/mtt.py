"""Matching training trajectories: Cazenavette et al., CVPR 2022 (MTT).

With the constant memory of Cui et al., ICML 2023 (TESLA).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from harness import (
    Architecture,
    Artifact,
    ArtifactRequest,
    DistilledSet,
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
from mpdd_plugins.methods.mtt_settings import MTTOptions, departures, setting_for

UNROLL = {"exact": unroll_exactly, "constant": unroll_constantly}
SMALLEST_STEP = 1e-6
"""The learned step size never falls below this: a student needs a positive learning rate."""


class MTT(PixelMethod[MTTOptions]):
    """Learns images on which a student, from an expert's weights, comes in N steps where the expert was M epochs on."""

    Options = MTTOptions

    def __init__(self, task: Task, options: MTTOptions) -> None:
        self.given, self.setting = options, setting_for(task, options)
        super().__init__(task, options.model_copy(update=asdict(self.setting)))
        self.strategy = own_strategy(task.problem) if options.augment is None else options.augment
        self.step_size = torch.tensor(self.setting.step_size, device=self.images.device, requires_grad=True)
        self.step_optimizer = torch.optim.SGD([self.step_size], self.setting.lr_lr, momentum=options.momentum_img)
        self.soft_labels = torch.nn.functional.one_hot(self.labels, self.classes).float()

    def step(self, iteration: int, networks: Networks) -> Mapping[str, float]:
        """Match one stretch of one expert's trajectory (algorithm 1 of the paper)."""
        network = networks.draw()
        (expert,) = networks.needed(network)
        epoch = self._start_epoch(iteration)
        start, target = (
            snapshot(expert.tensors, at, self.images.device) for at in (epoch, epoch + self.setting.expert_epochs)
        )
        if self.options.labels == "expert":
            self.soft_labels = self._told_by(network, target)
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
        self.optimizer.step()
        self.step_optimizer.step()
        with torch.no_grad():
            self.step_size.clamp_(min=SMALLEST_STEP)
        return {"loss": float(loss), "step_size": float(self.step_size.detach()), "start_epoch": float(epoch)}

    def _start_epoch(self, iteration: int) -> int:
        generator = self.task.streams.generator("start-epoch", iteration)
        return int(torch.randint(self.setting.max_start_epoch, (), generator=generator))

    def _student(self, network: Network, start: Mapping[str, Tensor]) -> Student:
        """The network, whose batch norm uses what ``statistics`` says."""
        network.train(self.options.statistics == "batch")
        buffers = {name: start[name] for name, _ in network.named_buffers()}
        return Student(network, buffers, self._labels())

    def _labels(self) -> Tensor:
        return self.labels if self.options.labels == "hard" else self.soft_labels

    def _told_by(self, network: Network, weights: Mapping[str, Tensor]) -> Tensor:
        with torch.no_grad():
            logits: Tensor = functional_call(network.eval(), dict(weights), (self.images,))
        return logits.softmax(1)

    def _steps(self, network: Network, iteration: int) -> list[Step]:
        """Batches of the student: all images in a new order, batch by batch, and again; each augmented anew."""
        streams, size, count = self.task.streams, self.setting.batch, self.setting.steps
        order: list[Tensor] = []
        while len(order) < count:
            generator = streams.generator("batches", iteration, len(order))
            order += torch.split(torch.randperm(len(self.images), generator=generator).to(self.images.device), size)
        drops = draws_globally(network, self.task.problem)
        return [
            Step(
                index,
                self._transform(len(index), iteration, number),
                streams.number("dropout", iteration, number) if drops else None,
            )
            for number, index in enumerate(order[:count])
        ]

    def _transform(self, count: int, iteration: int, number: int) -> Callable[[Tensor], Tensor]:
        if self.strategy == "none":
            return torch.clone
        generator = self.task.streams.generator("augment", iteration, number)
        return per_image(self.strategy, self.task.problem.shape, count, generator)

    def needs(self, iteration: int, architecture: str | None) -> Sequence[ArtifactRequest]:
        """One expert: all take their turn in a new order before one comes again, whatever the pool draws."""
        round_, turn = divmod(iteration, self.options.experts)
        generator = self.task.streams.generator("experts", round_)
        index = int(torch.randperm(self.options.experts, generator=generator)[turn])
        identity = {"recipe": asdict(self._expert_recipe()), "augment": self.strategy}
        work = 3.0 * self.options.train_epochs * len(self.task.problem.train)
        return [ArtifactRequest("expert", index, architecture, identity, self.options.train_epochs + 1, work)]

    def make_artifact(
        self,
        request: ArtifactRequest,
        problem: Problem,
        architecture: Architecture[Any] | None,
        streams: Streams,
        scratch: Scratch,
    ) -> Artifact:
        """Train an expert, augmented as the student is."""
        if architecture is None:
            raise UsageError("mtt trains experts of the architectures that a pool draws, and there is no pool")
        network = architecture.build(
            problem.shape, len(problem.classes), streams.generator("expert-weights", request.index)
        ).to(problem.device)

        def draw(purpose: str, epoch: int) -> torch.Generator:
            return streams.generator(f"expert-{purpose}", epoch, request.index)

        augment = None if self.strategy == "none" else dsa_augmentation(self.strategy)
        tensors, losses = train_expert(network, problem, self._expert_recipe(), draw, scratch, augment)
        return Artifact(tensors, {"loss": losses[-1], "first_loss": losses[0]})

    def _expert_recipe(self) -> Recipe:
        given = self.options
        return Recipe(given.train_epochs, given.lr_expert, "sgd", "constant", 0.0, 0.0, given.batch_expert)

    def distilled(self) -> DistilledSet:
        """The images as they stand, their labels, and the step size."""
        return self.task.distilled(self.images, self._labels(), float(self.step_size.detach()))

    def learned(self) -> Mapping[str, Tensor]:
        """Images and step size."""
        return {**super().learned(), "step_size": self.step_size}

    def state(self) -> Mapping[str, Tensor]:
        """Images, step size and soft labels, with momentum."""
        momentum = self.step_optimizer.state[self.step_size].get("momentum_buffer")
        own = {"step_size": self.step_size, "soft_labels": self.soft_labels}
        return {**super().state(), **own, **({} if momentum is None else {"step_momentum": momentum})}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take up all of them."""
        super().restore(state)
        with torch.no_grad():
            self.step_size.copy_(state["step_size"])
        self.soft_labels = state["soft_labels"].clone()
        momentum = state["step_momentum"].clone() if "step_momentum" in state else None
        self.step_optimizer.state[self.step_size]["momentum_buffer"] = momentum

    def settings(self) -> Mapping[str, Any]:
        """What the options left to ``auto`` became."""
        return asdict(self.setting)

    def notes(self) -> Sequence[str]:
        """Where the published setting was departed from."""
        return departures(self.task, self.given)

    def work(self) -> float:
        """About nine passes over the batch of each step: forward, backward, and both differentiated."""
        return 9.0 * self.setting.steps * self.setting.batch
