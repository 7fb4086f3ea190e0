"""Condensing a dataset by aligning features: Wang et al., CVPR 2022 (CAFE).

An iteration is one of the outer loop: a network is drawn, and the images are updated while it trains on them. The loss
of an update (equation 6) is the layer-wise alignment of class means plus 0.01 times the discrimination loss, in which
the class means of the synthetic features classify real ones. How long a network trains and how long it is used, the
accuracy on some real images, the query set, decides (section 3.4): it trains on the images until that accuracy has
changed by more than lambda 2, and is replaced when it has changed by less than lambda 1 in ten updates.

Both loops are unbounded in the published code; here they have the caps ``most_updates`` and ``most_epochs``. Its
running count of correct answers carries a tenth of each value into the next one, so that at rest its changes are 1.11
times those compared here. The cross-entropy of the real images' logits, which it adds, reaches no image and is left
out. Its taps are those of a ConvNet of three blocks on ten classes; here, any network's (`matched_taps`).
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import pydantic
import torch
from torch import Tensor
from torch.nn import functional

from harness import (
    SLICE,
    Network,
    Networks,
    PixelMethod,
    PixelOptions,
    Recipe,
    Task,
    couples_images,
    draws_globally,
    option,
    side_by_side,
    train_classifier,
)
from mpdd_plugins.augmentations.dsa import check_strategy, dsa_augmentation, own_strategy, siamese

HALVED_AT = (1200, 1600, 1800)
"""Iterations from which on the learning rate of the images is half of what it was (CAFE's code)."""
WINDOW = 10
"""Accuracies whose range decides how long both loops go on (CAFE, section 3.4: the length of its queue)."""
VECTORS = "features"
"""The tap of the classifier's input."""


class CAFEOptions(PixelOptions):
    """Options of `CAFE`."""

    init: Literal["noise", "real"] = option("noise", "initial images: standard normal, or real ones", source="CAFE")
    lr_img: float = option(
        0.1, "learning rate of the images; halved at iterations 1200, 1600 and 1800", source="CAFE", gt=0
    )
    lr_net: float = option(0.01, "learning rate of the network, without momentum", source="CAFE", gt=0)
    batch_real: int = option(256, "real images of each class an update", source="CAFE", ge=1)
    batch_train: int = option(256, "synthetic images a step when the network trains", source="CAFE", ge=1)
    batch_query: int = option(
        128, "real images of each class whose accuracy decides how long the loops go on", source="CAFE", ge=1
    )
    early_weight: float = option(0.1, "weight of all matched layers but the last two, whose is 1", source="CAFE", ge=0)
    discrimination: float = option(0.01, "weight of the discrimination loss", source="CAFE", ge=0)
    lambda_1: float = option(
        0.04, "range of ten accuracies, as a share, below which another network is drawn", source="CAFE", ge=0
    )
    lambda_2: float = option(
        0.03, "range of up to ten accuracies above which the network's training pauses for an update", source="CAFE",
        ge=0,
    )  # fmt: skip
    most_updates: int = option(100, "most updates with each network", source="HMDC's copy of CAFE", ge=1)
    most_epochs: int = option(
        WINDOW, "most epochs of the network between two updates",
        source="own choice: none in CAFE, 1000 in HMDC's copy", ge=0,
    )  # fmt: skip
    augment: str | None = option(
        "none", "operations, of which one is drawn for each class and update, joined by +; auto, the data set's, is "
        "CAFE+DSA",
        source="CAFE",
    )  # fmt: skip

    _check_augment = pydantic.field_validator("augment")(check_strategy)


@dataclass(frozen=True, eq=False)
class Layers:
    """What the loss compares of a batch of images.

    Attributes:
        means: class means (classes, ...) of each matched layer.
        vectors: the last features (n, d) of all images.
        centres: class means (classes, d) of these.
    """

    means: Sequence[Tensor]
    vectors: Tensor
    centres: Tensor


class CAFE(PixelMethod[CAFEOptions]):
    """Learns images whose mean features equal those of real images in all layers of networks that train on them."""

    Options = CAFEOptions
    check_options = "batch_real=8,batch_query=4,most_updates=3,most_epochs=2"

    def __init__(self, task: Task, options: CAFEOptions) -> None:
        super().__init__(task, options)
        self.strategy = own_strategy(task.problem) if options.augment is None else options.augment

    def step(self, iteration: int, networks: Networks) -> Mapping[str, float]:
        """Update the images with one network, until its accuracy no longer changes (CAFE, algorithm 1)."""
        options, network = self.options, networks.draw()
        halvings = sum(iteration >= milestone for milestone in HALVED_AT)
        self.optimizer.param_groups[0]["lr"] = options.lr_img * 0.5**halvings
        query = self._query(iteration)
        # On the device: the loss is read once at the end.
        total = torch.zeros((), dtype=torch.float64, device=self.images.device)
        accuracies, epochs, update = deque[float](maxlen=WINDOW), 0, 0
        while True:
            loss, self.images.grad = self._match(network, iteration, update)
            self.optimizer.step()
            total += loss
            update += 1
            accuracies.append(accuracy(network, *query))
            settled = len(accuracies) == WINDOW and _range(accuracies) < options.lambda_1
            if settled or update == options.most_updates:
                break
            epochs += self._train(network, query, iteration, update)
        return {"loss": float(total) / update, "updates": float(update), "epochs": float(epochs)}

    # --- the loss -----------------------------------------------------------------------------------------------------

    def _match(self, network: Network, iteration: int, update: int) -> tuple[Tensor, Tensor]:
        """Return the loss of an update, and its gradient by the images."""
        taps = matched_taps(network)
        transforms = [self._siamese(iteration, update, label) for label in range(self.classes)]
        real = [
            transform(self.real(label, self.options.batch_real, "real", iteration, update))
            for label, transform in enumerate(transforms)
        ]
        leaf = self.images.detach().requires_grad_()
        mine = torch.cat([transform(leaf[self.mine(label)]) for label, transform in enumerate(transforms)])
        target = self._layers(network, taps, real)
        # One pass of all classes, as published: batch norm has the statistics of all of them.
        outputs = network.features(mine, taps=[*taps, VECTORS])
        means = [
            outputs[tap].view(self.classes, self.per_class, *outputs[tap].shape[1:]).mean(1) for tap in [*taps, VECTORS]
        ]
        loss = loss_of(
            target,
            Layers(means[:-1], outputs[VECTORS], means[-1]),
            self._labels_of(real),
            early_weight=self.options.early_weight,
            discrimination=self.options.discrimination,
        )
        (of_images,) = torch.autograd.grad(loss, leaf)
        return loss.detach().double(), of_images

    def _layers(self, network: Network, taps: Sequence[str], parts: Sequence[Tensor]) -> Layers:
        """Return the layers of real images, a batch (n, c, h, w) for each class, without graph."""
        names, device = [*taps, VECTORS], self.images.device

        def outputs_of(images: Tensor) -> dict[str, Tensor]:
            with torch.no_grad(), self.task.reduced_precision():
                outputs = network.features(images, taps=names)
            # Sums in float32 even if the network runs in bfloat16.
            return {name: output.to(images.dtype) for name, output in outputs.items()}

        def of_class(label: int) -> tuple[list[Tensor], Tensor]:
            passes = [outputs_of(images) for images in torch.split(parts[label], SLICE)]
            sums = [torch.stack([outputs[name].sum(0) for outputs in passes]).sum(0) for name in names]
            return [total / len(parts[label]) for total in sums], torch.cat([outputs[VECTORS] for outputs in passes])

        if couples_images(network, self.task.problem.shape, device):
            outputs, counts = outputs_of(torch.cat(list(parts))), [len(images) for images in parts]
            means = [torch.stack([rows.mean(0) for rows in torch.split(outputs[name], counts)]) for name in names]
            return Layers(means[:-1], outputs[VECTORS], means[-1])
        # A network with dropout draws from the process-wide generator: in several threads, in any order.
        workers = 1 if draws_globally(network, self.task.problem) else None
        classes = list(side_by_side(of_class, range(self.classes), device, workers))
        means = [torch.stack(rows) for rows in zip(*(means for means, _ in classes), strict=True)]
        return Layers(means[:-1], torch.cat([vectors for _, vectors in classes]), means[-1])

    def _siamese(self, iteration: int, update: int, label: int) -> Callable[[Tensor], Tensor]:
        """Return what is applied to the real and the synthetic images of a class alike: one operation, one draw."""
        if self.strategy == "none":
            return lambda images: images
        generator = self.task.streams.generator("augment", iteration, update, label)
        return siamese(self.strategy, self.task.problem.shape, generator)

    def _query(self, iteration: int) -> tuple[Tensor, Tensor]:
        """Return the real images (n, c, h, w) whose accuracy is followed, and their labels."""
        parts = [self.real(label, self.options.batch_query, "query", iteration) for label in range(self.classes)]
        return torch.cat(parts), self._labels_of(parts)

    def _labels_of(self, parts: Sequence[Tensor]) -> Tensor:
        """Return the labels of batches, each of which holds the images of a class."""
        counts = torch.tensor([len(images) for images in parts])
        return torch.arange(self.classes).repeat_interleave(counts).to(self.images.device)

    # --- the network's training ---------------------------------------------------------------------------------------

    def _train(self, network: Network, query: tuple[Tensor, Tensor], iteration: int, update: int) -> int:
        """Train the network on the images until its accuracy has changed, and return the number of epochs."""
        recipe = Recipe(1, self.options.lr_net, "sgd", "constant", 0.0, 0.0, self.options.batch_train)
        augment = None if self.strategy == "none" else dsa_augmentation(self.strategy)
        accuracies = deque[float](maxlen=WINDOW)
        for epoch in range(self.options.most_epochs):

            def draw(purpose: str, _: int, epoch: int = epoch) -> torch.Generator:
                return self.task.streams.generator(f"inner-{purpose}", iteration, update, epoch)

            train_classifier(network, self.images.detach(), self.labels, recipe, draw, augment=augment)
            accuracies.append(accuracy(network, *query))
            if _range(accuracies) > self.options.lambda_2:
                return epoch + 1
        return self.options.most_epochs

    def work(self) -> float:
        """Return the passes of one iteration, if the loops end after twice the fewest updates and ten epochs each."""
        options, synthetic = self.options, self.classes * self.per_class
        updates, epochs = min(2 * WINDOW, options.most_updates), min(10, options.most_epochs)
        scored = self.classes * options.batch_query * (1 + epochs)
        return float(updates * (self.classes * options.batch_real + 3 * synthetic * (1 + epochs) + scored))


def matched_taps(network: Network) -> tuple[str, ...]:
    """Return the layers whose class means are aligned: every block before its pooling, and the last one after it too.

    Of a tap ``actN`` and the ``blockN`` that follows it, which is its pooling, only the former counts. A ConvNet of
    three blocks has the published ones: ``act1``, ``act2``, ``act3`` and ``block3``.
    """
    taps = network.taps[:-1]
    return tuple(
        tap
        for place, tap in enumerate(taps)
        if place == len(taps) - 1 or not (tap.startswith("block") and tap.replace("block", "act") in taps)
    )


def loss_of(real: Layers, synthetic: Layers, labels: Tensor, *, early_weight: float, discrimination: float) -> Tensor:
    """Return the loss of an update (CAFE, equation 6).

    Args:
        real: layers of real images.
        synthetic: layers of synthetic images, with their graph.
        labels: classes (n,) of the real images.
        early_weight: weight of all matched layers but the last two.
        discrimination: weight of the discrimination loss.
    """
    count = len(real.means)
    loss = (real.centres - synthetic.centres).square().sum()
    for place, (target, mean) in enumerate(zip(real.means, synthetic.means, strict=True)):
        weight = 1.0 if place >= count - 2 else early_weight
        loss = loss + weight * (target - mean).square().sum()
    # Equation 5: the inner products with the centres are the logits of a real image.
    logits = real.vectors @ synthetic.centres.T
    return loss + discrimination * functional.cross_entropy(logits, labels, reduction="sum")


def accuracy(network: Network, images: Tensor, labels: Tensor) -> float:
    """Return the share of images that a network classifies rightly, by running statistics; its mode is not changed."""
    training = network.training
    network.eval()
    # On a CPU slices, one core each; a GPU is filled by the whole batch.
    parts = torch.split(images, SLICE if images.device.type == "cpu" else len(images))

    def answer(part: int) -> Tensor:
        with torch.no_grad():
            logits: Tensor = network(parts[part])
        return logits.argmax(1)

    answers = list(side_by_side(answer, range(len(parts)), images.device))
    network.train(training)
    return float((torch.cat(answers) == labels).float().mean())


def _range(accuracies: Sequence[float]) -> float:
    return max(accuracies) - min(accuracies)
