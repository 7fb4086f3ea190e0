"""Efficient synthetic-data parameterization: Kim et al., ICML 2022 (IDC).

An iteration is an outer one of algorithm 1: a fresh network, with which the images are updated ``inner`` times, and
which trains on real images between the updates. What is learned are the tensors of a parametrisation, by default images
that each hold several (multi-formation). The loss of a class is a distance between the gradients of real and of decoded
images under one augmentation with one draw; only weights of convolutions count by default.

Departures from the published code. Batch norm, which its networks lack, uses statistics of all classes while a class
is matched. All others leave the loss as it is: real images are drawn anew for each update; the network does not train
after its last update, when nothing uses it any more; the images are clamped to [0, 1] at the end of an iteration and
not at the start of the next, so that a stored set is in range; and a class may have fewer real images than a batch.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from torch import Tensor

from harness import (
    DISTANCES,
    Network,
    Networks,
    OptimizerState,
    Pair,
    PixelMethod,
    Recipe,
    Task,
    UsageError,
    couples_images,
    draws_globally,
    match_classes,
    side_by_side,
    train_classifier,
)
from mpdd_plugins.augmentations.idc import idc_augmentation, siamese
from mpdd_plugins.published_settings.idc import IDCOptions, augmentations_for, departures, setting_for

Distance = Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor]


class IDC(PixelMethod[IDCOptions]):
    """Learns images, several in one, whose gradients equal those of real images while a network trains on real ones."""

    Options = IDCOptions
    spreads_classes = True
    check_options = "inner=2,batch_real=6,n_data=16,batch_train=8"

    def __init__(self, task: Task, options: IDCOptions) -> None:
        self.user_options, self.setting = options, setting_for(task, options)
        super().__init__(task, options.model_copy(update=asdict(self.setting)))
        packed = self.per_class > self.ipc
        self.strategy, self.net_strategy = augmentations_for(task.problem, options, packed=packed)
        # By whether linear layers count. Made once: a GPU's recordings of a matching are found by its distance.
        metric = DISTANCES[self.setting.metric]
        self._distances = {fc: distance_of(metric, bias=options.bias, fc=fc) for fc in (False, True)}
        self._tensors = PixelMethod.learned(self)
        shared = len(self._tensors) > 1
        if shared and options.update == "class":
            fault = (
                f"update=class moves images class by class, but as={self.options.as_} has tensors that classes share"
            )
            raise UsageError(f"idc: {fault}; use update=joint")
        self.update = options.update or ("joint" if shared else "class")

    def step(self, iteration: int, networks: Networks) -> Mapping[str, float]:
        """Update the images with one fresh network, which trains on real images meanwhile (IDC, algorithm 1)."""
        network, state = networks.draw(), OptimizerState()
        self._warm_up(network, iteration)
        if self.setting.early:
            inputs, labels = self.task.problem.train_inputs, self.task.problem.resident.train.labels
            self._train(network, inputs, labels, self.setting.early, state, iteration, 0)
        total = torch.zeros((), dtype=torch.float64, device=self.images.device)
        match = self._match_gradients if self.options.match == "gradients" else self._match_features
        for round_ in range(self.options.inner):
            self.fix_batch_norm(network, self.options.batch_statistics, iteration, round_)
            if self.update == "joint":
                total += match(network, iteration, round_)
                self.optimizer.step()
            else:
                total += self._update_in_turn(partial(match, network, iteration, round_))
            if self.setting.n_data and round_ < self.options.inner - 1:
                inputs, labels = self._real_images(iteration, round_)
                self._train(network, inputs, labels, 1, state, iteration, round_ + 1)
        if self.encoded:
            self.encoded.constrain()
            self.encoded.refresh()
        return {"loss": float(total) / (self.classes * self.options.inner)}

    def _warm_up(self, network: Network, iteration: int) -> None:
        """Train a fresh network as a variant begins; IDC's begins with none."""

    # --- matching -----------------------------------------------------------------------------------------------------

    def _match_gradients(self, network: Network, iteration: int, round_: int) -> Tensor:
        """Set the gradient of the images to that of the loss summed over classes, and return the loss."""
        problem, reduced = self.task.problem, self.task.reduced_precision
        places = self._places(iteration, round_)

        def pair(label: int) -> Pair:
            return self._pair(label, places, iteration, round_)

        loss, gradient = match_classes(network, problem, pair, self._distance(network), reduced)
        self._set_gradient(places, gradient)
        return loss

    def _match_features(self, network: Network, iteration: int, round_: int) -> Tensor:
        """Do what `_match_gradients` does with the mean features of a class in place of its gradient (match=feat)."""
        metric, places = DISTANCES[self.setting.metric], self._places(iteration, round_)

        def match(label: int) -> tuple[Tensor, Tensor]:
            pair = self._pair(label, places, iteration, round_)
            with torch.no_grad(), self.task.reduced_precision():
                target = network.features(pair.real).to(pair.synthetic.dtype).mean(0)
            leaf = pair.synthetic.detach().requires_grad_()
            # As a single row, of which layerwise cosines take one.
            loss = metric([network.features(pair.transform(leaf)).mean(0)[None]], [target[None]])
            return loss.detach(), torch.autograd.grad(loss, leaf)[0]

        problem, device = self.task.problem, self.images.device
        in_turn = draws_globally(network, problem) or couples_images(network, problem.shape, device)
        matched = list(side_by_side(match, range(self.classes), device, 1 if in_turn else None))
        self._set_gradient(places, torch.cat([gradient for _, gradient in matched]))
        return torch.stack([loss for loss, _ in matched]).sum(dtype=torch.float64)

    def _pair(self, label: int, places: Tensor | None, iteration: int, round_: int) -> Pair:
        """Return the real and the decoded images of a class, with one augmentation of one draw for both."""
        transform: Callable[[Tensor], Tensor] = lambda images: images  # noqa: E731
        if self.strategy != "none":
            generator = self.task.streams.generator("augment", iteration, round_, label)
            transform = siamese(self.strategy, self.task.problem.shape, generator)
        real = self.real(label, self.options.batch_real, "real", iteration, round_)
        synthetic = self.images.detach()[self.mine(label) if places is None else places[label]]
        return Pair(label, transform(real), synthetic, transform)

    def _places(self, iteration: int, round_: int) -> Tensor | None:
        """Return the places in ``images`` (classes, batch_syn) of those that are matched; None for all of them."""
        if self.per_class <= self.options.batch_syn:
            return None
        places = torch.arange(len(self.images)).view(self.classes, -1)
        return self._drawn_of(places, iteration, round_).to(self.images.device)

    def _drawn_of(self, places: Tensor, iteration: int, round_: int) -> Tensor:
        """Return ``batch_syn`` places of each class (classes, batch_syn), drawn from places (classes, n)."""
        drawn = []
        for label, own in enumerate(places):
            generator = self.task.streams.generator("subset", iteration, round_, label)
            drawn.append(own[torch.randperm(len(own), generator=generator)[: self.options.batch_syn]])
        return torch.stack(drawn)

    def _set_gradient(self, places: Tensor | None, gradient: Tensor) -> None:
        """Set the gradient of all images from that of the matched ones; the others have none."""
        if places is not None:
            whole = torch.zeros_like(self.images)
            whole[places.flatten()] = gradient.to(whole.dtype)
            gradient = whole
        self.images.grad = gradient.to(self.images.dtype)

    def _distance(self, network: Network) -> Distance:
        """Return the distance of two gradients of a network, over the weights that count.

        Raises:
            UsageError: none does.
        """
        dimensions = {weight.ndim for weight in network.parameters() if weight.requires_grad}
        has_convolutions = max(dimensions, default=0) > 2
        fc = not has_convolutions if self.options.fc is None else self.options.fc
        if not has_convolutions and not (fc or self.options.bias):
            name = type(network).__name__
            raise UsageError(f"idc matches the weights of convolutions, of which a drawn {name} has none: use fc=auto")
        return self._distances[fc]

    # --- updates ------------------------------------------------------------------------------------------------------

    def _update_in_turn(self, match: Callable[[], Tensor]) -> Tensor:
        """Take a step of SGD for each class in turn, as published, and return the loss that ``match`` returns.

        Each step moves all images: those of the other classes have no gradient, and go on by their momentum. Until its
        turn a class moves by momentum alone, so that all classes can be matched at once where they will be by then.
        """
        tensor, rate, momentum = self._tensors["images"], self.setting.lr_img, self.options.momentum_img
        before = self.optimizer.state[tensor].get("momentum_buffer")
        speed = torch.zeros_like(tensor) if before is None else before
        # The steps before a class's own and those after it, by row of the tensor (classes * ipc, 1, ...).
        turns = torch.arange(self.classes, dtype=torch.float64).repeat_interleave(self.ipc)
        earlier, later = (
            steps.view(-1, *[1] * (tensor.ndim - 1)).to(tensor.device) for steps in (turns, self.classes - 1 - turns)
        )

        def drift(steps: Tensor) -> Tensor:
            """Return momentum + momentum^2 + ..., with a term for each step."""
            return ((momentum - momentum ** (steps + 1)) / (1 - momentum)).to(tensor.dtype)

        with torch.no_grad():
            tensor -= rate * drift(earlier) * speed
        if self.encoded:
            self.encoded.refresh()
        loss = match()
        self.optimizer.report_gradient()
        if self.encoded:
            self.encoded.pull_back()
        assert tensor.grad is not None, "a matching sets the gradient"
        with torch.no_grad():
            speed = (momentum ** (earlier + 1)).to(tensor.dtype) * speed + tensor.grad
            tensor -= rate * (1 + drift(later)) * speed
            self.optimizer.state[tensor]["momentum_buffer"] = (momentum**later).to(tensor.dtype) * speed
        if self.encoded:
            self.encoded.refresh()
        return loss

    # --- the network's training ---------------------------------------------------------------------------------------

    def _real_images(self, iteration: int, round_: int) -> tuple[Tensor, Tensor]:
        """Return inputs (n, c, h, w) and labels of ``n_data`` real images, in whole batches if there are enough."""
        problem, size = self.task.problem, self.options.batch_train
        # The published loop ends with the step that reaches n_data, whose batch is a whole one.
        count = math.ceil(self.setting.n_data / size) * size
        generator = self.task.streams.generator("net-images", iteration, round_)
        order = torch.randperm(len(problem.train), generator=generator)[:count]
        return problem.inputs_of(problem.pixels_of(order)), problem.train.labels[order].to(problem.device)

    def _train(
        self,
        network: Network,
        inputs: Tensor,
        labels: Tensor,
        epochs: int,
        state: OptimizerState,
        iteration: int,
        place: int,
    ) -> None:
        """Train the network on real images; its momentum lives in ``state`` for the whole iteration."""
        options = self.options
        recipe = Recipe(
            epochs, options.lr_net, "sgd", "constant", options.momentum_net, options.weight_decay, options.batch_train
        )

        def draw(purpose: str, epoch: int) -> torch.Generator:
            return self.task.streams.generator(f"net-{purpose}", iteration, place, epoch)

        augment = None if self.net_strategy == "none" else idc_augmentation(self.net_strategy, self.classes)
        train_classifier(network, inputs, labels, recipe, draw, augment=augment, state=state)

    # --- what the harness asks ----------------------------------------------------------------------------------------

    def settings(self) -> Mapping[str, Any]:
        """Return the values of the options that were left to ``auto``."""
        values = {name.removesuffix("_"): value for name, value in asdict(self.setting).items()}
        return {**values, "update": self.update, "augment": self.strategy, "augment_net": self.net_strategy}

    def notes(self) -> Sequence[str]:
        """Return how the run departs from the published setting, one line each."""
        return departures(self.task, self.user_options)

    def work(self) -> float:
        """Return the passes of one iteration: three over real images, about nine over decoded ones."""
        options, decoded = self.options, min(self.per_class, self.options.batch_syn)
        matching = self.classes * (3 * options.batch_real + 9 * decoded)
        early = 3 * self.setting.early * len(self.task.problem.train)
        return float(options.inner * (matching + 3 * self.setting.n_data) + early)


def distance_of(metric: Distance, *, bias: bool, fc: bool) -> Distance:
    """Return a distance of two gradients that leaves out vectors unless ``bias``, and linear layers unless ``fc``."""

    def counts(piece: Tensor) -> bool:
        return piece.ndim > 2 or (piece.ndim == 2 and fc) or (piece.ndim < 2 and bias)

    def distance(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
        return metric(*([piece for piece in gradient if counts(piece)] for gradient in (first, second)))

    return distance
