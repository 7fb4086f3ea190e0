"""Dataset condensation with gradient matching: Zhao, Mopuri, Bilen, ICLR 2021 (DC)."""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from harness import (
    DISTANCES,
    DistilledSet,
    Method,
    Network,
    Networks,
    Options,
    Recipe,
    Task,
    draws_globally,
    freeze_statistics,
    gradient_in_slices,
    gradient_of,
    option,
    side_by_side,
    train_classifier,
)

LOOPS = {1: (1, 1), 10: (10, 50), 20: (20, 25), 30: (30, 20), 40: (40, 15), 50: (50, 10)}
"""Outer and inner loops by images per class, as published."""


class DCOptions(Options):
    """Options of DC."""

    init: Literal["noise", "real"] = option("noise", "initial images: standard normal, or real ones", source="DC")
    lr_img: float = option(0.1, "learning rate of the images; 0.01 suits an MLP or a ResNet", source="DC", gt=0)
    momentum_img: float = option(0.5, "momentum of the images", source="DC, main.py", ge=0, lt=1)
    lr_net: float = option(0.01, "learning rate of the network between outer steps", source="DC", gt=0)
    batch_real: int = option(256, "real images of each class a step", source="DC", ge=1)
    batch_train: int = option(256, "synthetic images a step when the network trains", source="DC", ge=1)
    batch_statistics: int = option(16, "real images of each class that batch norm is fixed by", source="DC", ge=1)
    outer: int | None = option(None, "image updates a network; auto: by ipc", source="DC, utils.py", ge=1)
    inner: int | None = option(None, "epochs of the network between them; auto: by ipc", source="DC, utils.py", ge=0)
    distance: Literal["layerwise", "mse", "cosine"] = option("layerwise", "between gradients", source="DC, eq. 9")

    def loops(self, ipc: int) -> tuple[int, int]:
        """Outer and inner loops: the published ones; for another ipc at most 50 outer, and 500 epochs in all."""
        outer, inner = LOOPS.get(ipc) or (min(ipc, 50), 0)
        outer = self.outer or outer
        inner = inner or max(1, 500 // outer)
        return outer, inner if self.inner is None else self.inner


class DC(Method[DCOptions]):
    """Learns images whose gradients, on a network at several points of its training, are those of real images."""

    Options = DCOptions

    def __init__(self, task: Task, options: DCOptions) -> None:
        super().__init__(task, options)
        self.classes, self.ipc = len(task.problem.classes), task.ipc
        self.labels = torch.arange(self.classes, device=task.problem.device).repeat_interleave(self.ipc)
        self.images = self._initial().requires_grad_()
        self.optimizer = torch.optim.SGD([self.images], options.lr_img, momentum=options.momentum_img)
        self.distance = DISTANCES[options.distance]
        self.workers: int | None = None

    def step(self, iteration: int, networks: Networks) -> Mapping[str, float]:
        """Match gradients along the training of one fresh network (algorithm 1 of the paper)."""
        network = networks.draw()
        self.workers = 1 if draws_globally(network, self.task.problem) else None
        outer, inner = self.options.loops(self.ipc)
        total = 0.0
        for round_ in range(outer):
            self._freeze(network, iteration, round_)
            total += self._match(network, iteration, round_)
            self.optimizer.step()
            if round_ < outer - 1:
                self._train(network, inner, iteration, round_)
        return {"loss": total / (self.classes * outer)}

    def _match(self, network: Network, iteration: int, round_: int) -> float:
        """Set the images' gradient: that of the sum over classes, of which each is matched on its own."""

        def match(label: int) -> tuple[float, Tensor]:
            real = self._real(label, self.options.batch_real, "real", iteration, round_)
            with self.task.reduced_precision():
                target = gradient_in_slices(network, real, self.labels.new_full((len(real),), label))
            mine = slice(label * self.ipc, (label + 1) * self.ipc)
            synthetic = self.images[mine].detach().requires_grad_()
            loss = self.distance(gradient_of(network, synthetic, self.labels[mine], differentiable=True), target)
            (gradient,) = torch.autograd.grad(loss, synthetic)
            return loss.item(), gradient

        matched = list(side_by_side(match, range(self.classes), self.images.device, self.workers))
        self.images.grad = torch.cat([gradient for _, gradient in matched])
        return sum(loss for loss, _ in matched)

    def _freeze(self, network: Network, iteration: int, round_: int) -> None:
        count = self.options.batch_statistics
        batches = (self._real(label, count, "statistics", iteration, round_) for label in range(self.classes))
        freeze_statistics(network, lambda: torch.cat(list(batches)))

    def _train(self, network: Network, epochs: int, iteration: int, round_: int) -> None:
        recipe = Recipe(epochs, self.options.lr_net, "sgd", "constant", 0.0, 0.0, self.options.batch_train)

        def draw(purpose: str, epoch: int) -> torch.Generator:
            return self.task.streams.generator(f"inner-{purpose}", iteration, round_, epoch)

        train_classifier(network, self.images.detach(), self.labels, recipe, draw)

    def _real(self, label: int, count: int, role: str, iteration: int, round_: int) -> Tensor:
        generator = self.task.streams.generator(role, iteration, round_, label)
        return self.task.problem.real_batch(label, count, generator)

    def _initial(self) -> Tensor:
        problem, streams = self.task.problem, self.task.streams
        if self.options.init == "real":
            draws = (
                problem.real_batch(label, self.ipc, streams.generator("init", 0, label))
                for label in range(self.classes)
            )
            return torch.cat(list(draws))
        shape = (self.classes * self.ipc, *problem.shape)
        return torch.randn(shape, generator=streams.generator("init", 0)).to(problem.device)

    def distilled(self) -> DistilledSet:
        """The images as they stand, with hard labels, class by class."""
        return self.task.distilled(self.images, self.labels)

    def learned(self) -> Mapping[str, Tensor]:
        """Only the images are learned."""
        return {"images": self.images}

    def state(self) -> Mapping[str, Tensor]:
        """Images and their momentum."""
        momentum = self.optimizer.state[self.images].get("momentum_buffer")
        return {"images": self.images} | ({} if momentum is None else {"momentum": momentum})

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take up images and momentum."""
        with torch.no_grad():
            self.images.copy_(state["images"])
        self.optimizer.state[self.images]["momentum_buffer"] = (
            state["momentum"].clone() if "momentum" in state else None
        )

    def work(self) -> float:
        """Three passes over real images; about nine over synthetic ones, whose gradient is differentiated."""
        outer, inner = self.options.loops(self.ipc)
        synthetic = self.classes * self.ipc
        return (
            outer * (3 * self.classes * self.options.batch_real + 9 * synthetic) + (outer - 1) * inner * 3 * synthetic
        )
