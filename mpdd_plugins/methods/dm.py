"""Dataset condensation with distribution matching: Zhao and Bilen, WACV 2023 (DM).

The paper's symbols: psi_theta is the feature extractor of a random network, A the siamese augmentation with parameters
omega. The loss of a class is |mean psi(A(T)) - mean psi(A(S))|^2.
"""

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
    """Options of `DM`."""

    init: Literal["noise", "real"] = option("real", "initial images: standard normal, or real ones", source="DM")
    lr_img: float = option(1.0, "learning rate of the images; 10 from 100 images per class on", source="DM", gt=0)
    batch_real: int = option(256, "real images of each class a step", source="DM", ge=1)
    augment: str | None = option(
        None, "operations, of which one is drawn for each class and step, joined by +; none; auto: the data set's",
        source="DM, main_DM.py",
    )  # fmt: skip

    _check_augment = pydantic.field_validator("augment")(check_strategy)


class DM(PixelMethod[DMOptions]):
    """Learns images whose mean features, class by class, equal those of real images in networks that never train."""

    Options = DMOptions
    draws_together = True

    def __init__(self, task: Task, options: DMOptions) -> None:
        super().__init__(task, options)
        self.strategy = own_strategy(task.problem) if options.augment is None else options.augment

    def step(self, iteration: int, networks: Networks) -> Mapping[str, float]:
        """Match the mean features of all classes in one fresh network (DM, algorithm 1), or in several at once."""
        losses, gradients = [], []
        for network in networks.draw_together():
            network.requires_grad_(False)
            coupled = couples_images(network, self.task.problem.shape, self.images.device)
            match = self._match_together if coupled else self._match_by_class
            loss, gradient = match(network, iteration)
            losses.append(loss)
            gradients.append(gradient)
        self.images.grad = networks.combine(gradients)
        self.optimizer.step()
        return {"loss": sum(losses) / (self.classes * len(losses))}

    def _match_by_class(self, network: Network, iteration: int) -> tuple[float, Tensor]:
        """Return the loss summed over classes and its gradient, class by class with a fraction of the memory."""

        def match(label: int) -> tuple[float, Tensor]:
            transform = self._siamese(iteration, label)
            real = transform(self._real(iteration, label))
            synthetic = self.images[self.mine(label)].detach().requires_grad_()
            features = network.features(transform(synthetic))  # (per_class, dimension)
            loss = (self._mean_feature(network, real) - features.mean(0)).square().sum()
            (of_images,) = torch.autograd.grad(loss, synthetic)
            return loss.item(), of_images

        # A network with dropout draws from the process-wide generator: in several threads, in any order.
        workers = 1 if draws_globally(network, self.task.problem) else None
        matched = list(side_by_side(match, range(self.classes), self.images.device, workers))
        return sum(loss for loss, _ in matched), torch.cat([gradient for _, gradient in matched])

    def _match_together(self, network: Network, iteration: int) -> tuple[float, Tensor]:
        """Return what `_match_by_class` does, in one pass of all classes, for networks whose layers couple images."""
        # Batch norm then has the statistics of all classes, as in DM's code; those of one class would give it away.
        transforms = [self._siamese(iteration, label) for label in range(self.classes)]
        real = [transform(self._real(iteration, label)) for label, transform in enumerate(transforms)]
        with torch.no_grad(), self.task.reduced_precision():
            features = network.features(torch.cat(real)).float()  # (n, dimension)
        # Classes may have unequal numbers of real images; of synthetic ones, each has equally many.
        targets = torch.stack([part.mean(0) for part in torch.split(features, [len(images) for images in real])])
        synthetic = [transform(self.images[self.mine(label)]) for label, transform in enumerate(transforms)]
        means = network.features(torch.cat(synthetic)).reshape(self.classes, self.per_class, -1).mean(1)
        loss = (targets - means).square().sum()
        (of_images,) = torch.autograd.grad(loss, self.images)
        return loss.item(), of_images

    def _real(self, iteration: int, label: int) -> Tensor:
        return self.real(label, self.options.batch_real, "real", iteration)

    def _mean_feature(self, network: Network, images: Tensor) -> Tensor:
        """Return the mean feature vector (dimension,) of images (n, c, h, w) that no layer couples, without graph."""
        # Features are summed in float32 even if the network runs in bfloat16, whose sums would lose small terms.
        with torch.no_grad(), self.task.reduced_precision():
            parts = [network.features(part).float().sum(0) for part in torch.split(images, SLICE)]
        return torch.stack(parts).sum(0) / len(images)

    def _siamese(self, iteration: int, label: int) -> Callable[[Tensor], Tensor]:
        """Return one operation with one set of parameters, for all images of the class, real and synthetic."""
        if self.strategy == "none":
            return lambda images: images
        generator = self.task.streams.generator("augment", iteration, label)
        return siamese(self.strategy, self.task.problem.shape, generator)

    def work(self) -> float:
        """Return the passes of one iteration: one over real images, two over synthetic ones."""
        # Weights require no gradient, so backward computes only that of the images: one more pass, and not two.
        return float(self.classes * (self.options.batch_real + 2 * self.per_class))
