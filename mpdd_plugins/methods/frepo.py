"""Neural feature regression with pooling: Zhou et al., NeurIPS 2022 (FRePo).

The paper's symbols: f_theta(X) are the features of a network before its classifier (n, dimension), K^theta_{TS} =
f_theta(T) f_theta(S)^T the conjugate kernel, S the learned images with labels Y. A step chooses a network of the model
pool, updates images and labels by the regression of real images on its features, and trains the network on them.

What the released code has and the paper's text leaves out: the loss rewards the margin of learned labels, up to
1/classes; the learned images are doubled by their mirror images (``flip``); targets are onehot - 1/classes.

A network that is older than ``max_updates`` steps is replaced by a fresh draw of the pool. Above 1000 learned images it
takes batches of 1000 from reshuffled passes; the released code draws each batch anew.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from harness import (
    SLICE,
    DistilledSet,
    InitialImages,
    LabelKind,
    Network,
    Networks,
    Options,
    Recipe,
    Task,
    TensorMethod,
    centred_one_hot,
    option,
    ridge_predictions,
)
from mpdd_plugins.evaluators.plain import half_squared_distance

LAST_RATE = 0.1
"""Part of the images' learning rate that is left at the end."""
SETTINGS = "FRePo, script/distill"
WHITENED = ("cifar10", "cifar100", "tinyimagenet")
"""Data sets that the paper whitens."""
NETWORK_BATCH = 1000
"""Most learned images of a network's step."""


class FRePoOptions(Options):
    """Options of `FRePo`."""

    init: Literal["noise", "real"] = option("real", "initial images: standard normal, or real ones", source="FRePo")
    lr_img: float = option(
        3e-4, "learning rate of images and labels (LAMB): the part of its norm by which a step moves each of the two; "
        "falls to a tenth by a cosine over all iterations",
        source=SETTINGS, gt=0,
    )  # fmt: skip
    learn_labels: bool = option(
        True, "whether labels are learned, as real values (regression); false: the set has class indices",
        source=SETTINGS,
    )  # fmt: skip
    margin: bool = option(
        True, "whether the loss rewards a margin of learned labels up to 1/classes", source="FRePo's code"
    )
    flip: bool | None = option(
        None, "whether the learned images are doubled by their mirror images; auto: if the data set may be mirrored, "
        "above 10 classes only with one image of each",
        source="FRePo's code, use_flip",
    )  # fmt: skip
    batch_real: int = option(1024, "real images a step, of all classes", source=SETTINGS, ge=1)
    ridge: float = option(1e-6, "regulariser, relative to the mean of the kernel's diagonal", source="FRePo", gt=0)
    networks: int = option(10, "networks that are alive", source="FRePo, section 3.3", ge=1)
    max_updates: int = option(100, "steps of a network until it is replaced", source="FRePo, section 3.3", ge=1)
    lr_net: float = option(3e-4, "learning rate of the networks (Adam)", source=SETTINGS, gt=0)

    def network_recipe(self) -> Recipe:
        """Return how the networks train on the learned set."""
        return Recipe(
            lr=self.lr_net, optimizer="adam", schedule="constant", weight_decay=0.0, batch=NETWORK_BATCH
        )  # fmt: skip


class FRePo(TensorMethod[FRePoOptions]):
    """Learns images and labels from which real labels are regressed on the features of a pool of living networks."""

    Options = FRePoOptions
    uses_total = True

    def __init__(self, task: Task, options: FRePoOptions) -> None:
        super().__init__(task, options)
        problem = task.problem
        self.classes = len(problem.classes)
        self.labels = torch.arange(self.classes, device=problem.device).repeat_interleave(task.ipc)
        may_mirror = "flip" in problem.augmentations.get("dsa", "").split("+") and (self.classes <= 10 or task.ipc == 1)
        self.flip = may_mirror if options.flip is None else options.flip
        images = InitialImages(problem, task.ipc, options.init, task.streams).inputs(task.ipc)
        # Labels shrink with the number of classes, so that Y has about the norm that it has with ten.
        values = centred_one_hot(self.labels, self.classes) / math.sqrt(self.classes / 10)
        if not options.learn_labels:
            self.values = values
        recipe = Recipe(optimizer="lamb", lr=options.lr_img, weight_decay=0.0)
        learned = {"images": images, **({"labels": values} if options.learn_labels else {})}
        self.learn(learned, recipe.new_optimizer)

    @property
    def images(self) -> Tensor:
        """The learned images (n, c, h, w), class by class."""
        return self.tensors["images"]

    @property
    def targets(self) -> Tensor:
        """The labels of the learned images, Y: (n, classes)."""
        return self.tensors["labels"] if self.options.learn_labels else self.values

    @property
    def label_kind(self) -> LabelKind:
        """The kind of its labels: real values if they are learned, otherwise class indices."""
        return "regression" if self.options.learn_labels else "hard"

    def step(self, iteration: int, networks: Networks) -> Mapping[str, float]:
        """Update images and labels with one network, then that network with them (FRePo, algorithm 1)."""
        options = self.options
        live = networks.live(
            options.networks, steps=options.max_updates, recipe=options.network_recipe(), staggered=True
        )  # fmt: skip
        chosen = live.choose()
        # Inference mode: batch norm uses its running statistics, so that features of images do not depend on others.
        network = chosen.network.eval().requires_grad_(False)
        real, targets = self._real_batch(iteration)
        loss, error = self.loss(network, self.features(network, real), targets)
        gradients = torch.autograd.grad(loss, list(self.tensors.values()))
        for tensor, gradient in zip(self.tensors.values(), gradients, strict=True):
            tensor.grad = gradient
        self.set_rate(options.lr_img * cosine(iteration, self.task.iterations))
        self.optimizer.step()
        chosen.train(self.images.detach(), self.targets.detach(), loss=half_squared_distance)
        return {"loss": float(loss.detach()), "error": float(error.detach())}

    def loss(self, network: Network, real: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss with its graph, and the error of the regression alone (FRePo, equation 5).

        Args:
            network: maps images to features.
            real: features of real images (m, dimension), without graph.
            targets: their labels (m, classes).
        """
        images, values = self.images, self.targets
        if self.flip:
            images, values = torch.cat([images, images.flip(-1)]), torch.cat([values, values])
        own = network.features(images).double()  # (n, dimension), in float64 as the kernel needs it
        predictions = ridge_predictions(real.double() @ own.T, own @ own.T, values, self.options.ridge)
        error = 0.5 * (predictions - targets).square().sum(1).mean()
        if not (self.options.learn_labels and self.options.margin):
            return error, error
        return error - label_margin(self.targets, 1 / self.classes).double(), error

    def features(self, network: Network, images: Tensor) -> Tensor:
        """Return features (m, dimension) of real images (m, c, h, w), without graph."""
        with torch.no_grad(), self.task.reduced_precision():
            return torch.cat([network.features(part).float() for part in torch.split(images, SLICE)])

    def _real_batch(self, iteration: int) -> tuple[Tensor, Tensor]:
        """Return network inputs (m, c, h, w) of real images of any class, and their labels (m, classes)."""
        problem = self.task.problem
        generator = self.task.streams.generator("real", iteration)
        index = torch.randperm(len(problem.train), generator=generator)[: self.options.batch_real]
        labels = centred_one_hot(problem.train.labels[index].to(problem.device), self.classes)
        return problem.inputs_of(problem.pixels_of(index)), labels

    def distilled(self) -> DistilledSet:
        """Return the present images with learned labels of regression, or with hard ones."""
        if self.options.learn_labels:
            return self.task.distilled(self.images, self.targets, label_kind="regression")
        return self.task.distilled(self.images, self.labels)

    def work(self) -> float:
        """Return the passes of one iteration: one over real images, five over learned ones."""
        # Two over learned images (doubled if they are mirrored) for their gradient, and three for the network's step.
        count = len(self.labels)
        return float(self.options.batch_real + 2 * count * (1 + self.flip) + 3 * min(count, NETWORK_BATCH))

    def notes(self) -> Sequence[str]:
        """Return how the run departs from the published setting, one line each."""
        problem, published = self.task.problem, FRePoOptions.model_fields["lr_img"].default
        lines = []
        if problem.like is not None and self.options.lr_img != published:
            lines.append(f"frepo was published with lr_img {published:g}, and not {self.options.lr_img:g}")
        if problem.like in WHITENED and not problem.preprocessing.name.startswith("frepo-zca"):
            remedy = "normalize=frepo-zca in --dataset does so"
            lines.append(f"frepo was published for {problem.like} on whitened images: {remedy}")
        return lines


def label_margin(labels: Tensor, cap: float) -> Tensor:
    """Return the mean difference of the largest two values of labels (n, classes), each at most ``cap``."""
    first, second = labels.topk(2, dim=1).values.unbind(1)
    return (first - second).clamp(max=cap).mean()


def cosine(iteration: int, total: int) -> float:
    """Return the factor of the learning rate: from 1 to `LAST_RATE` by a cosine over all iterations."""
    return LAST_RATE + (1 - LAST_RATE) * (1 + math.cos(math.pi * min(iteration / max(total, 1), 1))) / 2
