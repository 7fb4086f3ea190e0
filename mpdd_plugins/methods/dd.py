"""Dataset distillation: Wang, Zhu, Torralba and Efros, 2018 (DD).

The paper's symbols: theta_0 are a network's initial weights, x~ the learned images, of which each step of gradient
descent owns some, eta~ the learned step sizes. The steps are repeated ``epochs`` times with the same images, each time
at step sizes of their own: theta_{k+1} = theta_k - eta~_k grad l(x~_k, theta_k). The loss is that of real images
in theta after all steps (algorithm 1), and its gradient is exact.

A set carries its steps: the protocol ``dd`` of evaluators plays them on fresh networks, as the paper does; any other
protocol trains on the images as on those of any set.

Departures from the released code: initial weights are those of the pool's architectures, and not Xavier's; batch norm,
which its networks lack, uses the statistics of each batch, that of real images included; and the learning rate falls
after so many passes over the real images, counted in whole updates.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from harness import (
    DistilledSet,
    InitialImages,
    Network,
    Networks,
    Options,
    Recipe,
    Schedule,
    ScheduleStep,
    Step,
    Student,
    Task,
    TensorMethod,
    UsageError,
    draws_globally,
    gradient_in_slices,
    option,
    unroll_to_loss,
)

STEP_SIZES = {"mnist": 0.02, "cifar10": 0.001}
"""Published step sizes at the start, by data set."""
FOREVER = 2**31
"""Age at which a fixed network is replaced: never."""


class DDOptions(Options):
    """Options of `DD`."""

    init: Literal["noise", "real"] = option("noise", "initial images: standard normal, or real ones", source="DD")
    steps: int | None = option(
        None, "steps, each of which owns equally many images of each class; auto: one image of each class a step",
        source="DD, distill_steps: 10 at ipc 10", ge=1,
    )  # fmt: skip
    epochs: int = option(
        3, "how often the steps are repeated, each time at step sizes of their own", source="DD, distill_epochs", ge=1
    )
    step_size: float | None = option(
        None, "step sizes at the start; auto: 0.001 for CIFAR-10, otherwise 0.02", source="DD, distill_lr", gt=0
    )
    networks: Literal["unknown-init", "fixed-init"] = option(
        "unknown-init",
        "unknown-init: each update draws a fresh network; fixed-init: all take the first, from its first weights",
        source="DD, section 3.3",
    )
    draws: int = option(1, "fresh networks whose gradients an update averages", source="DD, n_nets", ge=1)
    batch_real: int = option(1024, "real images of an update, of all classes", source="DD", ge=1)
    lr_img: float = option(0.01, "learning rate of images and step sizes (Adam, beta1 0.5)", source="DD", gt=0)
    decay: float = option(0.5, "factor of that rate after each decay_epochs", source="DD, decay_factor", gt=0, le=1)
    decay_epochs: int = option(
        40, "passes over the real images after which the rate falls", source="DD, decay_epochs", ge=1
    )


class DD(TensorMethod[DDOptions]):
    """Learns images and step sizes such that few steps of gradient descent on them train a fresh network."""

    Options = DDOptions

    def __init__(self, task: Task, options: DDOptions) -> None:
        super().__init__(task, options)
        self.classes, device = len(task.problem.classes), task.problem.device
        self.steps = task.ipc if options.steps is None else options.steps
        if task.ipc % self.steps:
            fault = f"steps={self.steps} cannot own equally many of ipc {task.ipc} images of each class"
            raise UsageError(f"dd: {fault}: choose steps that divide ipc, or steps=auto")
        self.labels = torch.arange(self.classes, device=device).repeat_interleave(task.ipc)
        self.first_size = options.step_size or STEP_SIZES.get(str(task.problem.like), STEP_SIZES["mnist"])
        # eta~ = softplus(rho) is above 0 whatever rho is.
        raw = torch.full((options.epochs * self.steps,), math.log(math.expm1(self.first_size)), device=device)
        images = InitialImages(task.problem, task.ipc, options.init, task.streams).inputs(task.ipc)
        self.learn({"images": images, "raw_step_sizes": raw}, partial(torch.optim.Adam, betas=(0.5, 0.999)))

    @property
    def step_sizes(self) -> Tensor:
        """The step sizes eta~ in the order of all steps: (epochs * steps,)."""
        return functional.softplus(self.tensors["raw_step_sizes"])

    @property
    def owned(self) -> list[list[int]]:
        """The images that each step of an epoch owns, by their places in ``images``."""
        each = self.task.ipc // self.steps
        # Images lie class by class: a step owns `each` adjacent ones of every class.
        return [
            [label * self.task.ipc + step * each + place for label in range(self.classes) for place in range(each)]
            for step in range(self.steps)
        ]

    def step(self, iteration: int, networks: Networks) -> Mapping[str, float]:
        """Update images and step sizes by the loss of real images after all steps (DD, algorithm 1)."""
        options, images = self.options, self.tensors["images"]
        real, labels = self._real_batch(iteration)
        losses, of_images, of_rates = [], torch.zeros_like(images), torch.zeros_like(self.step_sizes)
        for draw in range(options.draws):
            answer = self.play(self._network(networks), real, labels, iteration, draw)
            losses.append(float(answer[0]))
            of_images += answer[1] / options.draws
            of_rates += answer[2] / options.draws
        images.grad = of_images
        raw = self.tensors["raw_step_sizes"]
        raw.grad = of_rates * raw.detach().sigmoid()  # the derivative of softplus
        falls = iteration // (options.decay_epochs * math.ceil(len(self.task.problem.train) / options.batch_real))
        self.set_rate(options.lr_img * options.decay**falls)
        self.optimizer.step()
        sizes = self.step_sizes.detach()
        return {"loss": sum(losses) / len(losses), "mean_step_size": float(sizes.mean())}

    def play(
        self, network: Network, real: Tensor, labels: Tensor, iteration: int = 0, draw: int = 0
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the loss of real images after all steps, and its gradients by images and step sizes.

        Args:
            network: the network before the first step; afterwards it has the weights after the last.
            real: real images (m, c, h, w).
            labels: their class indices (m,).
            iteration: the update, for the random numbers of dropout.
            draw: index of the network in it.
        """
        start = {name: weight.detach().clone() for name, weight in network.named_parameters() if weight.requires_grad}
        student = Student(network.train(), dict(network.named_buffers()), self.labels)

        def loss(weights: Mapping[str, Tensor]) -> tuple[Tensor, Sequence[Tensor]]:
            with torch.no_grad():
                for name, weight in network.named_parameters():
                    if name in weights:
                        weight.copy_(weights[name])
            for module in network.modules():
                # Running statistics would be those before the first step.
                module.train(isinstance(module, nn.modules.batchnorm._BatchNorm))
            gradient = gradient_in_slices(network, real, labels)
            with torch.no_grad():
                return functional.cross_entropy(network(real), labels), gradient

        played = unroll_to_loss(
            student, start, self.tensors["images"], self.step_sizes, self._steps(network, iteration, draw), loss
        )
        return played.loss, played.images, played.step_sizes

    def _network(self, networks: Networks) -> Network:
        if self.options.networks == "unknown-init":
            return networks.draw()
        # A network that lives on and never trains; playing changes weights in place, and so takes a copy.
        live = networks.live(1, steps=FOREVER, recipe=Recipe(), name="fixed")
        return copy.deepcopy(live[0].network)

    def _steps(self, network: Network, iteration: int, draw: int) -> list[Step]:
        drops = draws_globally(network, self.task.problem)
        number = self.task.streams.number
        return [
            Step(
                torch.tensor(own, device=self.labels.device),
                torch.clone,
                number("dropout", iteration, draw, place) if drops else None,
            )
            for place, own in enumerate(self.owned * self.options.epochs)
        ]

    def _real_batch(self, iteration: int) -> tuple[Tensor, Tensor]:
        """Return network inputs (m, c, h, w) of real images of any class, and their class indices (m,)."""
        problem = self.task.problem
        generator = self.task.streams.generator("real", iteration)
        index = torch.randperm(len(problem.train), generator=generator)[: self.options.batch_real]
        return problem.inputs_of(problem.pixels_of(index)), problem.train.labels[index].to(problem.device)

    @property
    def has_schedule(self) -> bool:
        """Whether its sets have a schedule: always."""
        return True

    def distilled(self) -> DistilledSet:
        """Return the present images with all steps in their order."""
        steps = [tuple(own) for own in self.owned * self.options.epochs]
        sizes = self.step_sizes.tolist()
        schedule = Schedule(tuple(ScheduleStep(size, own) for size, own in zip(sizes, steps, strict=True)))
        return self.task.distilled(self.tensors["images"], self.labels, schedule=schedule)

    def settings(self) -> Mapping[str, Any]:
        """Return the values of the options that were left to ``auto``."""
        return {"steps": self.steps, "step_size": self.first_size}

    def work(self) -> float:
        """Return the passes of one iteration: about twelve over the images of each step, four over real ones."""
        # Three for the step itself, and nine for the gradient of its gradient.
        each = 12 * self.options.epochs * len(self.labels) + 4 * self.options.batch_real
        return float(self.options.draws * each)
