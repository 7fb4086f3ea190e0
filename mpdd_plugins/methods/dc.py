"""Dataset condensation with gradient matching: Zhao, Mopuri, Bilen, ICLR 2021 (DC).

Algorithm 1 of the paper: an iteration is one of its K steps with a fresh network. The option ``outer`` is T, the image
updates per network, and ``inner`` is varsigma_theta, the epochs of the network's training between them (varsigma_S is
1). Both options are named as in DC's code. D, the distance of two gradients, is the option ``distance``.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, Self

import pydantic
import torch
from torch import Tensor

from harness import (
    DISTANCES,
    Augment,
    Network,
    Networks,
    Pair,
    PixelMethod,
    PixelOptions,
    Recipe,
    Task,
    gradient_in_slices,
    match_classes,
    mean_over_layers,
    option,
    train_classifier,
)

LOOPS = {1: (1, 1), 10: (10, 50), 20: (20, 25), 30: (30, 20), 40: (40, 15), 50: (50, 10)}
"""Outer loops (image updates per network) and inner loops (epochs between them) by ipc, as published (utils.py)."""

PLACES = {"first": 0.0, "quarter": 0.25, "middle": 0.5, "three-quarters": 0.75, "last": 1.0}
"""Layers whose gradients are logged, by how far down the network they are."""


class DCOptions(PixelOptions):
    """Options of `DC`."""

    lr_img: float = option(0.1, "learning rate of the images; 0.01 suits an MLP or a ResNet", source="DC", gt=0)
    lr_net: float = option(0.01, "learning rate of the network between outer steps", source="DC", gt=0)
    batch_real: int = option(256, "real images of each class a step", source="DC", ge=1)
    batch_train: int = option(256, "synthetic images a step when the network trains", source="DC", ge=1)
    batch_statistics: int = option(16, "real images of each class that batch norm is fixed by", source="DC", ge=1)
    outer: int | None = option(None, "image updates a network; auto: by ipc", source="DC, utils.py", ge=1)
    inner: int | None = option(None, "epochs of the network between them; auto: by ipc", source="DC, utils.py", ge=0)
    distance: Literal["layerwise", "mse", "cosine"] = option("layerwise", "between gradients", source="DC, eq. 9")
    layers: Literal["sum", "mean", "mean-outputs"] = option(
        "sum",
        "distance of all layers: their sum as published; divided by their number (a ConvNet of 3 blocks has 4), or by "
        "that of their outputs (394 if it is 128 wide), so that networks of any depth, or of any size, count equally: "
        "lr_img has to be as many times larger",
        source="DC, eq. 9",
    )
    recompute: bool = option(
        False,
        "keep few activations of a network and compute the others again: less memory for the gradients of real images, "
        "the same numbers; compiled code is not used",
        source="Chen et al., 2016",
    )
    norms: bool = option(
        False,
        "log the norms of the weights' gradients on the synthetic images, from the first layer to the last, of the "
        "first network of each step",
    )

    @pydantic.model_validator(mode="after")
    def _distance_has_layers(self) -> Self:
        if self.layers != "sum" and self.distance == "cosine":
            raise ValueError(
                f"distance=cosine takes all layers as one vector: layers={self.layers} needs layerwise or mse"
            )
        return self

    def as_json(self) -> dict[str, Any]:
        """Return every option with its value; ``layers`` and ``norms`` only if they are set, ``recompute`` never."""
        # Cells keep the keys that they had before there were these, and to recompute changes no number.
        left_out = {"layers": "sum", "norms": False, "recompute": self.recompute}
        return {key: value for key, value in super().as_json().items() if left_out.get(key, ...) != value}

    def loops(self, ipc: int) -> tuple[int, int]:
        """Return the outer and inner loops: the published ones, or for another ipc at most 50 and 500 epochs in all."""
        outer, inner = LOOPS.get(ipc) or (min(ipc, 50), 0)
        outer = self.outer or outer
        inner = inner or max(1, 500 // outer)
        return outer, inner if self.inner is None else self.inner


class DC(PixelMethod[DCOptions]):
    """Learns images whose gradients equal those of real images at several points of a network's training."""

    Options = DCOptions
    draws_together = True
    spreads_classes = True

    def __init__(self, task: Task, options: DCOptions) -> None:
        super().__init__(task, options)
        self.distance = DISTANCES[options.distance]
        if options.layers != "sum":
            self.distance = mean_over_layers(self.distance, outputs=options.layers == "mean-outputs")

    def step(self, iteration: int, networks: Networks) -> Mapping[str, float]:
        """Match gradients along the training of one fresh network (DC, algorithm 1), or of several at once."""
        drawn = networks.draw_together()
        for network in drawn:
            network.recomputes = self.options.recompute
        outer, inner = self.options.loops(self.ipc)
        # On the device: the loss is read once at the end, since each reading waits for the GPU.
        total = torch.zeros((), dtype=torch.float64, device=self.images.device)
        norms: Mapping[str, float] = {}
        for round_ in range(outer):
            gradients = []
            for network in drawn:
                self.fix_batch_norm(network, self.options.batch_statistics, iteration, round_)
                if self.options.norms and round_ == 0 and network is drawn[0]:
                    norms = self._norms(network)
                total += self._match(network, iteration, round_)
                assert self.images.grad is not None, "a matching sets the gradient"
                gradients.append(self.images.grad)
            self.images.grad = networks.combine(gradients)
            self.optimizer.step()
            # The reference trains the network only between image updates, so ipc 1 (one outer loop) never trains it.
            for network in drawn if round_ < outer - 1 else ():
                self._train(network, inner, iteration, round_)
        return {"loss": float(total) / (self.classes * outer * len(drawn)), **norms}

    def _norms(self, network: Network) -> Mapping[str, float]:
        """Return the norms of the gradients of weights at five depths, for the images before the first update."""
        # Names that no architecture changes, since a record holds a value of each for every iteration.
        with torch.random.fork_rng(_cuda_devices(self.images)):  # dropout draws: the matching has to draw the same
            gradient = gradient_in_slices(network, self.images.detach(), self.labels)
        norms = [float(part.norm()) for part in gradient if part.ndim > 1]
        return {f"norm-{name}": norms[round(share * (len(norms) - 1))] for name, share in PLACES.items()}

    def _match(self, network: Network, iteration: int, round_: int) -> Tensor:
        """Set the images' gradient to that of the loss summed over classes, and return the loss (DC, equation 8)."""

        def pair(label: int) -> Pair:
            return self._pair(label, iteration, round_)

        problem, reduced = self.task.problem, self.task.reduced_precision
        loss, self.images.grad = match_classes(network, problem, pair, self.distance, reduced)
        return loss

    def _pair(self, label: int, iteration: int, round_: int) -> Pair:
        """Return the real and the synthetic images of a class that are matched in an update."""
        transform = self._siamese(iteration, round_, label)
        real = self.real(label, self.options.batch_real, "real", iteration, round_)
        return Pair(label, transform(real), self.images[self.mine(label)], transform)

    def _siamese(self, iteration: int, round_: int, label: int) -> Callable[[Tensor], Tensor]:
        """Return what is applied to the real and the synthetic images of a class alike; in DC, nothing."""
        return lambda images: images

    def _augment(self) -> Augment | None:
        """Return the augmentation of the network's training; None in DC."""
        return None

    def _train(self, network: Network, epochs: int, iteration: int, round_: int) -> None:
        """Train the network on the present images by plain SGD: the update of theta in algorithm 1."""
        recipe = Recipe(epochs, self.options.lr_net, "sgd", "constant", 0.0, 0.0, self.options.batch_train)

        def draw(purpose: str, epoch: int) -> torch.Generator:
            return self.task.streams.generator(f"inner-{purpose}", iteration, round_, epoch)

        train_classifier(network, self.images.detach(), self.labels, recipe, draw, augment=self._augment())

    def work(self) -> float:
        """Return the passes of one iteration: three over real images, about nine over synthetic ones."""
        # A gradient is about three forward passes; differentiating it again makes nine. Training takes three.
        outer, inner = self.options.loops(self.ipc)
        synthetic = self.classes * self.per_class
        return (
            outer * (3 * self.classes * self.options.batch_real + 9 * synthetic) + (outer - 1) * inner * 3 * synthetic
        )


def _cuda_devices(images: Tensor) -> list[torch.device]:
    return [images.device] if images.is_cuda else []
