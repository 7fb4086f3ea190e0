"""Dataset condensation with distribution matching: Zhao and Bilen, WACV 2023 (DM)."""

from collections.abc import Callable, Mapping
from typing import Literal

import pydantic
import torch
from torch import Tensor

from harness import (
    SLICE,
    Network,
    Networks,
    PixelMethod,
    PixelOptions,
    Task,
    couples_images,
    draws_globally,
    option,
    side_by_side,
)
from mpdd_plugins.augmentations.dsa import check_strategy, own_strategy, siamese


class DMOptions(PixelOptions):
    """Options of DM."""

    init: Literal["noise", "real"] = option("real", "initial images: standard normal, or real ones", source="DM")
    lr_img: float = option(1.0, "learning rate of the images; 10 from 100 images per class on", source="DM", gt=0)
    batch_real: int = option(256, "real images of each class a step", source="DM", ge=1)
    augment: str | None = option(
        None, "operations, of which one is drawn for each class and step, joined by +; none; auto: the data set's",
        source="DM, main_DM.py",
    )  # fmt: skip

    _check_augment = pydantic.field_validator("augment")(check_strategy)


class DM(PixelMethod[DMOptions]):
    """Learns images whose mean features, class by class, are those of real images in networks that never train."""

    Options = DMOptions

    def __init__(self, task: Task, options: DMOptions) -> None:
        super().__init__(task, options)
        self.strategy = own_strategy(task.problem) if options.augment is None else options.augment

    def step(self, iteration: int, networks: Networks) -> Mapping[str, float]:
        """Match the mean features of every class in one fresh network (algorithm 1 of the paper)."""
        network = networks.draw().requires_grad_(False)
        coupled = couples_images(network, self.task.problem.shape, self.images.device)
        match = self._match_together if coupled else self._match_by_class
        loss, self.images.grad = match(network, iteration)
        self.optimizer.step()
        return {"loss": loss / self.classes}

    def _match_by_class(self, network: Network, iteration: int) -> tuple[float, Tensor]:
        """The loss summed over classes and its gradient: each class on its own, in a fraction of the memory."""

        def match(label: int) -> tuple[float, Tensor]:
            transform = self._siamese(iteration, label)
            real = transform(self._real(iteration, label))
            synthetic = self.images[self.mine(label)].detach().requires_grad_()
            features = network.features(transform(synthetic))
            loss = (self._mean_feature(network, real) - features.mean(0)).square().sum()
            (of_images,) = torch.autograd.grad(loss, synthetic)
            return loss.item(), of_images

        workers = 1 if draws_globally(network, self.task.problem) else None
        matched = list(side_by_side(match, range(self.classes), self.images.device, workers))
        return sum(loss for loss, _ in matched), torch.cat([gradient for _, gradient in matched])

    def _match_together(self, network: Network, iteration: int) -> tuple[float, Tensor]:
        """The same where batch norm couples images: its statistics are of all classes, as in the reference."""
        transforms = [self._siamese(iteration, label) for label in range(self.classes)]
        real = [transform(self._real(iteration, label)) for label, transform in enumerate(transforms)]
        with torch.no_grad(), self.task.reduced_precision():
            told = network.features(torch.cat(real)).float()
        targets = torch.stack([part.mean(0) for part in torch.split(told, [len(images) for images in real])])
        synthetic = [transform(self.images[self.mine(label)]) for label, transform in enumerate(transforms)]
        means = network.features(torch.cat(synthetic)).reshape(self.classes, self.ipc, -1).mean(1)
        loss = (targets - means).square().sum()
        (of_images,) = torch.autograd.grad(loss, self.images)
        return loss.item(), of_images

    def _real(self, iteration: int, label: int) -> Tensor:
        return self.real(label, self.options.batch_real, "real", iteration)

    def _mean_feature(self, network: Network, images: Tensor) -> Tensor:
        """The mean feature vector (dimension,) of images that no layer couples, without graph."""
        with torch.no_grad(), self.task.reduced_precision():
            parts = [network.features(part).float().sum(0) for part in torch.split(images, SLICE)]
        return torch.stack(parts).sum(0) / len(images)

    def _siamese(self, iteration: int, label: int) -> Callable[[Tensor], Tensor]:
        """One operation with one set of parameters, done to every image of the class, real and synthetic."""
        if self.strategy == "none":
            return lambda images: images
        generator = self.task.streams.generator("augment", iteration, label)
        return siamese(self.strategy, self.task.problem.shape, generator)

    def work(self) -> float:
        """One pass over real images; two over synthetic ones, since no weight's gradient is asked for."""
        return float(self.classes * (self.options.batch_real + 2 * self.ipc))
