"""Kernel inducing points: Nguyen, Chen and Lee, ICLR 2021; Nguyen, Novak, Xiao and Lee, NeurIPS 2021 (KIP).

The paper's symbols: X_s and y_s are the learned images and labels (the support set), X_t and y_t real ones (the target
batch), K the kernel of an infinitely wide network, lambda the regulariser. Labels are onehot - 1/classes.

The kernel is the model: no network is drawn, so that a model pool is not applicable. Departure from the notebooks:
their Adam counts its steps from 2, ours from 1.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import pydantic
import torch
from torch import Tensor

from harness import (
    BlockedKernel,
    DistilledSet,
    InitialImages,
    LabelKind,
    Networks,
    Options,
    Task,
    TensorMethod,
    UsageError,
    centred_one_hot,
    kernel_name,
    kernel_named,
    kernel_regression,
    option,
)

KERNELS = (
    "kernel: fc, fully connected, or conv, convolutional on images of up to 16x16; with depth, act (relu, erf), of "
    "(ntk, nngp), and head (flatten, gap) of conv: fc[depth=2,of=nngp]"
)
"""The meaning of the option ``kernel`` of methods and evaluators."""
MEGABYTE = 2**20
WHITENED = ("cifar10", "cifar100", "svhn")
"""Data sets that the paper whitens."""


def _shortest_name(name: str) -> str:
    """Return the name without options at their defaults, so that one kernel has one key."""
    try:
        return kernel_name(name)
    except UsageError as error:
        raise ValueError(str(error)) from None


KernelName = Annotated[str, pydantic.AfterValidator(_shortest_name)]
"""The name of a kernel, as an option."""


class KIPOptions(Options):
    """Options of `KIP`."""

    kernel: KernelName = option("fc", KERNELS, source="KIP, notebook: FC-1 with the NTK")
    init: Literal["noise", "real"] = option("real", "initial images: standard normal, or real ones", source="KIP")
    lr_img: float = option(0.04, "learning rate of images, and of labels (Adam)", source="KIP, notebook", gt=0)
    learn_labels: bool = option(
        False, "whether labels are learned, as real values (regression); false: the set has class indices",
        source="KIP, notebook",
    )  # fmt: skip
    batch_real: int = option(
        5000, "real images a step, equally many of each class", source="KIP, notebook: target batch", ge=1
    )
    ridge: float = option(1e-6, "lambda, relative to the mean of the kernel's diagonal", source="KIP, notebook", gt=0)
    memory: float = option(1024.0, "megabytes that a block of the kernel may take", source="own choice", gt=0)


class KIP(TensorMethod[KIPOptions]):
    """Learns images from which the labels of real ones follow by ridge regression with a fixed kernel."""

    Options = KIPOptions
    uses_pool = False

    def __init__(self, task: Task, options: KIPOptions) -> None:
        super().__init__(task, options)
        self.classes = len(task.problem.classes)
        self.labels = torch.arange(self.classes, device=task.problem.device).repeat_interleave(task.ipc)
        self.values = centred_one_hot(self.labels, self.classes)
        self.kernel = BlockedKernel(kernel_named(options.kernel), MEGABYTE * options.memory)
        images = InitialImages(task.problem, task.ipc, options.init, task.streams).inputs(task.ipc)
        learned = {"images": images, **({"labels": self.values} if options.learn_labels else {})}
        self.learn(learned, lambda tensors: torch.optim.Adam(tensors, lr=options.lr_img))

    @property
    def label_kind(self) -> LabelKind:
        """The kind of its labels: real values if they are learned, otherwise class indices."""
        return "regression" if self.options.learn_labels else "hard"

    @property
    def targets(self) -> Tensor:
        """The labels of the learned images, y_s: (n, classes)."""
        return self.tensors.get("labels", self.values)

    def step(self, iteration: int, networks: Networks) -> Mapping[str, float]:
        """Take a step of Adam on the loss of a fresh target batch (KIP, algorithm 1)."""
        real, labels = self._target_batch(iteration)
        answer = kernel_regression(
            self.kernel, self.tensors["images"], self.targets, real, centred_one_hot(labels, self.classes),
            self.options.ridge,
        )  # fmt: skip
        self.tensors["images"].grad = answer.images
        if self.options.learn_labels:
            self.tensors["labels"].grad = answer.labels
        self.optimizer.step()
        accuracy = (answer.predictions.argmax(1) == labels).double().mean()
        return {"loss": float(answer.loss), "kernel_accuracy": float(accuracy)}

    def _target_batch(self, iteration: int) -> tuple[Tensor, Tensor]:
        """Return real images X_t (m, c, h, w), equally many of each class if there are enough, and their labels."""
        count = max(1, self.options.batch_real // self.classes)
        draws = [self.task.streams.generator("real", iteration, label) for label in range(self.classes)]
        parts = [self.task.problem.real_batch(label, count, draw) for label, draw in enumerate(draws)]
        sizes = torch.tensor([len(part) for part in parts])
        return torch.cat(parts), torch.arange(self.classes).repeat_interleave(sizes).to(self.labels.device)

    def notes(self) -> Sequence[str]:
        """Return how the run departs from the published setting, one line each."""
        problem = self.task.problem
        if problem.like not in WHITENED or problem.preprocessing.name.startswith("kip-zca"):
            return ()
        return [f"kip was published for {problem.like} on whitened images: normalize=kip-zca in --dataset does so"]

    def distilled(self) -> DistilledSet:
        """Return the present images with learned labels of regression, or with hard ones."""
        if self.options.learn_labels:
            return self.task.distilled(self.tensors["images"], self.targets, label_kind="regression")
        return self.task.distilled(self.tensors["images"], self.labels)
