"""Dataset distillation via factorization: Liu et al., NeurIPS 2022 (HaBa).

What is learned are bases and hallucinators (`hallucinators`) by matching trajectories (MTT). Each step of the student
takes a minibatch of bases through one hallucinator. Beside the trajectory's loss, images of the same bases by two
hallucinators are pushed apart in the embedding of a network psi, which in turn is trained to classify them and to pull
them together: the adversarial contrastive constraint. The method's parametrisation serves any other method, too, as in
``dm[as=hallucinators]``, without psi.

The paper's symbols: B are the bases (``images``), H_k the hallucinators, e_1 and e_2 the embeddings of a basis through
two of them. The published images are whitened; at ipc 50 on CIFAR-10 the published step_size is 0.01, and not MTT's.

Departures from the published code: the permutation of bases that minibatches are taken from begins anew in each
iteration; psi is of the architecture that the pool draws at the first iteration, after the student's; and the learned
step size has the momentum of the bases. The published rates of bases and hallucinators are equal, and are one here.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from harness import Network, Networks, Recipe, Task, UsageError, open_encoding, option
from mpdd_plugins.augmentations.dsa import per_image
from mpdd_plugins.methods.mtt import MTT
from mpdd_plugins.parametrisations.hallucinators import Hallucinators
from mpdd_plugins.published_settings.mtt import MTTOptions

FEATURE_MOMENTUM = "feature_momentum."


class HaBaOptions(MTTOptions):
    """Options of `HaBa`."""

    as_: str = option("hallucinators", "bases and hallucinators: the parametrisation hallucinators", source="HaBa")
    lr_img: float | None = option(100.0, "learning rate of bases and hallucinators", source="HaBa", gt=0)
    momentum_img: float = option(0.95, "momentum of bases and hallucinators", source="HaBa", ge=0, lt=1)
    push: float = option(
        0.1, "weight of (1 + cos) / 2 between two images of a basis in psi, for bases and hallucinators; 0: no psi",
        source="HaBa", ge=0,
    )  # fmt: skip
    pull: float = option(0.1, "weight of (1 - cos) / 2 for psi", source="HaBa", ge=0)
    supcon: float = option(0.1, "weight of the supervised contrastive loss for psi", source="HaBa", ge=0)
    temperature: float = option(0.07, "temperature of the supervised contrastive loss", source="HaBa", gt=0)
    lr_feature: float = option(0.001, "learning rate of psi", source="HaBa", ge=0)
    momentum_feature: float = option(0.9, "momentum of psi", source="HaBa", ge=0, lt=1)


class HaBa(MTT):
    """Learns bases and hallucinators by MTT, with images of a basis pushed apart in an adversarial feature network."""

    Options = HaBaOptions
    options: HaBaOptions

    def __init__(self, task: Task, options: HaBaOptions) -> None:
        if not isinstance(open_encoding(options.as_, task.problem.shape).parametrisation, Hallucinators):
            raise UsageError(f"haba learns bases and hallucinators, which as={options.as_} has not: use mtt")
        super().__init__(task, options)
        self.count = self.per_class // self.ipc
        if options.push and self.count < 2:
            raise UsageError("haba pushes images of two hallucinators apart: use as=hallucinators[count=2], or push=0")
        self.setting = replace(self.setting, batch=min(self.setting.batch, self.classes * self.ipc))
        self.feature_momenta: dict[str, Tensor] = {}

    def step(self, iteration: int, networks: Networks) -> Mapping[str, float]:
        """Match one stretch of a trajectory, then train psi on the next minibatch of bases."""
        logged = super().step(iteration, networks)
        if not self.options.push:
            return logged
        return {**logged, "feature_loss": self._train_psi(self._psi(networks), iteration)}

    def _extra_loss(self, iteration: int, networks: Networks) -> float:
        """Add the gradient of the push term by the images, and return the term."""
        if not self.options.push:
            return 0.0
        psi = self._psi(networks)
        index = self._two_views(iteration, self.setting.steps)
        leaf = self.images.detach().requires_grad_()
        first, second = psi.features(self._augmented(leaf[index], iteration, self.setting.steps)).chunk(2)
        loss = self.options.push * push_loss(first, second)
        (gradient,) = torch.autograd.grad(loss, leaf)
        assert self.images.grad is not None, "the trajectory's loss sets the gradient"
        self.images.grad = self.images.grad + gradient
        return float(loss.detach())

    def _train_psi(self, psi: Network, iteration: int) -> float:
        """Take a step of SGD on psi, on two images of each basis of a minibatch, and return the loss."""
        options, number = self.options, self.setting.steps + 1
        index = self._two_views(iteration, number)
        with torch.no_grad():
            images, labels = self._augmented(self.images[index], iteration, number), self.labels[index]
        features = psi.features(images)
        loss = functional.cross_entropy(psi.classifier(features), labels)
        loss = loss + options.pull * pull_loss(*features.chunk(2))
        loss = loss + options.supcon * contrastive_loss(features, labels, options.temperature)
        weights = {name: weight for name, weight in psi.named_parameters() if weight.requires_grad}
        gradients = torch.autograd.grad(loss, list(weights.values()))
        with torch.no_grad():
            for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
                before = self.feature_momenta.get(name)
                speed = gradient if before is None else options.momentum_feature * before + gradient
                self.feature_momenta[name] = speed
                weight.sub_(options.lr_feature * speed)
        return float(loss.detach())

    @property
    def loads_weights(self) -> bool:
        """False: psi starts from the weights that it is drawn with."""
        return False

    def _psi(self, networks: Networks) -> Network:
        # Its age stays 0, because it is trained here and not by the harness: it is never replaced.
        return networks.live(1, steps=1, recipe=Recipe(epochs=1), name="psi")[0].network

    def _augmented(self, images: Tensor, iteration: int, number: int) -> Tensor:
        if self.strategy == "none":
            return images
        generator = self.task.streams.generator("augment", iteration, number)
        return per_image(self.strategy, self.task.problem.shape, len(images), generator)(images)

    def _batches(self, iteration: int, count: int) -> list[Tensor]:
        """Return the images of each step: a minibatch of bases through one hallucinator drawn for it."""
        bases = super()._batches(iteration, count)
        return [self._images(batch, self._drawn(iteration, number)[0]) for number, batch in enumerate(bases)]

    def _two_views(self, iteration: int, number: int) -> Tensor:
        """Return the images of a minibatch of bases through one hallucinator, and then through another."""
        bases = super()._batches(iteration, number + 1)[number]
        return torch.cat([self._images(bases, place) for place in self._drawn(iteration, number)[:2]])

    @property
    def _batch_total(self) -> int:
        return self.classes * self.ipc

    def _drawn(self, iteration: int, number: int) -> list[int]:
        """Return the hallucinators in the random order of a minibatch."""
        generator = self.task.streams.generator("hallucinators", iteration, number)
        order: list[int] = torch.randperm(self.count, generator=generator).tolist()
        return order

    def _images(self, bases: Tensor, place: int) -> Tensor:
        """Return where the images of bases by a hallucinator are: class by class, then by hallucinators."""
        labels, own = bases // self.ipc, bases % self.ipc
        return labels * self.per_class + place * self.ipc + own

    def state(self) -> Mapping[str, Tensor]:
        """Return the state of MTT and the momentum of psi, whose weights the trajectory holds."""
        momenta = {f"{FEATURE_MOMENTUM}{name}": tensor for name, tensor in self.feature_momenta.items()}
        return {**super().state(), **momenta}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Set all tensors to those that `state` returned."""
        super().restore(state)
        self.feature_momenta = {
            name.removeprefix(FEATURE_MOMENTUM): tensor.clone()
            for name, tensor in state.items()
            if name.startswith(FEATURE_MOMENTUM)
        }


def push_loss(first: Tensor, second: Tensor) -> Tensor:
    """Return the mean of (1 + cos) / 2 of the embeddings (n, d) of two images of each basis: 0 if they are opposite."""
    return (1 + functional.cosine_similarity(first, second)).mean() / 2


def pull_loss(first: Tensor, second: Tensor) -> Tensor:
    """Return the mean of (1 - cos) / 2 of the embeddings (n, d) of two images of each basis: 0 if they are equal."""
    return (1 - functional.cosine_similarity(first, second)).mean() / 2


def contrastive_loss(embeddings: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Return the supervised contrastive loss (Khosla et al., NeurIPS 2020, equation 2), the mean over all anchors.

    Args:
        embeddings: (n, d), of any length; they are scaled to length 1.
        labels: class indices (n,), of which each has at least two.
        temperature: divides the cosines.
    """
    unit = functional.normalize(embeddings)
    itself = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    logits = (unit @ unit.T / temperature).masked_fill(itself, -torch.inf)
    positive = (labels[:, None] == labels[None]) & ~itself
    shares = logits.log_softmax(1).masked_fill(~positive, 0)
    return -(shares.sum(1) / positive.sum(1)).mean()
