"""Dataset distillation with the neural characteristic function: Wang et al., CVPR 2025 (NCFM).

An iteration draws a network, and compares the distributions of the features of real and synthetic images, class by
class: Phi(t) = mean exp(i <t, h>) over the features h of a class, scaled to unit length, at random frequencies t. The
difference of the two at t has a part of their amplitudes, |Phi|, and one of their phases (equation 6). A second step,
the calibration, lowers the cross-entropy of a trained network on the synthetic images.

The networks are pairs of a network as initialised and the same one trained on the real images; an iteration draws a
pair and a point between the two. With ``networks=fresh`` they are initialised and never trained.

Departures from the published code. Real images are drawn anew in each iteration (its classes have the same first 1024
for ever), and gradients are taken at the present images (its background thread decodes them about a round ahead). All
classes move in one step, where its AdamW steps class by class let the images of all others decay and drift: at its
rate, a class moves about 3 times as far in an iteration with ten classes. The images are clamped to [0, 1] after each
step and not at the start of the next iteration. Frequencies are shared by the classes of an iteration. Batch norm has
the statistics of real images of all classes. Released configurations do not use the sampling network, and neither does
the default here; `Sampler` is our reading of the paper.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Literal

import pydantic
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import ReduceLROnPlateau

from harness import (
    SLICE,
    ArtifactRequest,
    Augment,
    NamedAugment,
    Network,
    Networks,
    PixelMethod,
    PixelOptions,
    Problem,
    RealNetwork,
    Recipe,
    Task,
    option,
    side_by_side,
    snapshot,
    trained_network,
)
from mpdd_plugins.augmentations import idc, ncfm

SCALE = 300.0
"""Factor of a class's distance (NCFM's code)."""
FLOOR = 1e-12
"""Least phase part, below which it has no gradient: the square root of the distance is infinitely steep at 0."""
ADAM_STATE = ("step", "exp_avg", "exp_avg_sq")


class NCFMOptions(PixelOptions):
    """Options of `NCFM`."""

    as_: str = option("multi-formation", "what is learned and stored: a parametrisation", source="NCFM: IDC's")
    init: Literal["noise", "real"] = option("real", "initial images: noise, or real ones in every patch", source="NCFM")
    lr_img: float = option(0.001, "learning rate of the images by AdamW", source="NCFM", gt=0)
    momentum_img: float = option(0.9, "first beta of AdamW", source="NCFM", ge=0, lt=1)
    weight_decay: float = option(5e-4, "weight decay of the images", source="NCFM", ge=0)
    patience: int = option(
        500, "iterations without a lower loss after which the learning rate is halved", source="NCFM", ge=0
    )
    batch_real: int = option(1024, "real images of each class an iteration", source="NCFM", ge=1)
    batch_statistics: int = option(16, "real images of each class that batch norm is fixed by", source="DC", ge=1)
    frequencies: int = option(4096, "frequencies that characteristic functions are compared at", source="NCFM", ge=1)
    amplitude: float = option(0.5, "weight of the amplitudes", source="NCFM, alpha", ge=0)
    phase: float = option(0.5, "weight of the phases", source="NCFM, beta", gt=0)
    sampler: bool = option(
        False,
        "learn the scales of the frequencies, so that they show the largest difference",
        source="NCFM, section 3.2",
    )
    lr_sampler: float = option(0.001, "learning rate of the sampler by Adam", source="own choice", gt=0)
    calibration: float = option(
        1.0, "weight of the trained network's cross-entropy, 0 for none; none without trained networks", source="NCFM",
        ge=0,
    )  # fmt: skip
    networks: Literal["trained", "fresh"] = option(
        "trained", "trained: between a network as initialised and as trained on real images; fresh: as initialised",
        source="NCFM",
    )  # fmt: skip
    pairs: int = option(20, "trained networks of each architecture that the pool draws", source="NCFM", ge=1)
    train_epochs: int = option(60, "epochs that they train, with SGD", source="NCFM", ge=1)
    lr_net: float = option(
        0.01, "learning rate of their training; a fifth from two thirds and again from five sixths on", source="NCFM",
        gt=0,
    )  # fmt: skip
    batch_train: int = option(128, "real images a step of their training", source="NCFM", ge=1)
    augment: str = option(
        "color+crop+cutout", "operations on matched images joined by +, one draw for real and synthetic ones; none",
        source="NCFM",
    )  # fmt: skip
    augment_net: str | None = option(
        None, "operations while the networks train: of DSA's one a batch, and cutmix; auto: the data set's",
        source="NCFM",
    )  # fmt: skip

    _check_augment = pydantic.field_validator("augment")(idc.check_matched)
    _check_augment_net = pydantic.field_validator("augment_net")(ncfm.check_strategy)


class Sampler(nn.Module):
    """Learns a scale mixture of normal distributions, which frequencies are drawn from (NCFM, section 3.2).

    A frequency is sigma(z) times a standard normal vector, with a network sigma of a standard normal number z. At the
    start sigma is 1. It does not depend on the dimension of the features, so that all architectures of a pool share it.
    """

    def __init__(self, generator: torch.Generator, width: int = 16) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(1, width), nn.Linear(width, 1)
        with torch.no_grad():
            self.first.weight.normal_(generator=generator)
            self.first.bias.normal_(generator=generator)
            self.last.weight.zero_()
            self.last.bias.zero_()

    def forward(self, numbers: Tensor) -> Tensor:
        """Return the scales (m,) of frequencies, for standard normal numbers (m,)."""
        logarithms: Tensor = self.last(self.first(numbers[:, None]).tanh())
        return logarithms.squeeze(1).exp()


class NCFM(PixelMethod[NCFMOptions]):
    """Learns images, several in one, whose features have the characteristic function of real images' features."""

    Options = NCFMOptions
    check_options = "batch_real=8,frequencies=16,pairs=2,train_epochs=2"

    def __init__(self, task: Task, options: NCFMOptions) -> None:
        super().__init__(task, options)
        device = self.images.device
        own = ncfm.own_strategy(task.problem)
        self.net_strategy = own if options.augment_net is None else options.augment_net
        self._tensors = PixelMethod.learned(self)
        self.adamw = torch.optim.AdamW(
            list(self._tensors.values()),
            options.lr_img,
            betas=(options.momentum_img, 0.999),
            weight_decay=options.weight_decay,
        )
        self.plateau = ReduceLROnPlateau(self.adamw, factor=0.5, patience=options.patience)
        self.sampler: Sampler | None = None
        if options.sampler:
            # The weights are drawn on the CPU, so that a GPU has the same ones.
            self.sampler = Sampler(task.streams.generator("sampler", 0)).to(device)
            self.sampler_optimizer = torch.optim.Adam(self.sampler.parameters(), options.lr_sampler)

    def step(self, iteration: int, networks: Networks) -> Mapping[str, float]:
        """Match the characteristic functions of all classes in one network, and calibrate (NCFM, algorithm 1)."""
        network, final = self._networks(iteration, networks)
        loss = self._match(network, iteration) / self.classes
        self._update()
        scalars = {"loss": loss}
        if final is not None and self.options.calibration:
            scalars["calibration"] = self._calibrate(final) / self.classes
            self._update()
        self.plateau.step(loss)
        return {**scalars, "lr_img": float(self.adamw.param_groups[0]["lr"])}

    @property
    def loads_weights(self) -> bool:
        """Whether the weights are those of trained pairs, and not fresh ones."""
        return self.options.networks == "trained"

    # --- networks -----------------------------------------------------------------------------------------------------

    def _networks(self, iteration: int, networks: Networks) -> tuple[Network, Network | None]:
        """Return the network of an iteration, and the trained one of its pair; None of a fresh network."""
        network, final = networks.draw(), None
        if self.options.networks == "trained":
            (artifact,) = networks.needed(network)
            final = trained_network(artifact, self.task.problem, self.options.train_epochs)
            share = float(torch.rand((), generator=self.task.streams.generator("share", iteration)))
            trained, initial = (
                snapshot(artifact.tensors, epoch, self.images.device) for epoch in (self.options.train_epochs, 0)
            )
            network.load_state_dict(between(trained, initial, share))
        self.fix_batch_norm(network, self.options.batch_statistics, iteration)
        return network.eval().requires_grad_(False), final

    def needs(self, iteration: int, architecture: str | None) -> Sequence[ArtifactRequest]:
        """Request a pair of the architecture: its weights before and after training on the real images."""
        if self.options.networks == "fresh" or architecture is None:
            return ()
        options, strategy = self.options, self.net_strategy
        epochs = options.train_epochs
        milestones = tuple(sorted({max(1, 2 * epochs // 3), max(1, 5 * epochs // 6)}))
        recipe = Recipe(
            epochs, options.lr_net, schedule="milestones", batch=options.batch_train, milestones=milestones, factor=0.2
        )
        index = int(torch.randint(options.pairs, (), generator=self.task.streams.generator("pairs", iteration)))
        augmentation = NamedAugment(f"ncfm {strategy}", partial(_augmentation, strategy))
        return [
            RealNetwork(
                architecture=architecture,
                recipe=recipe,
                snapshots=(0, epochs),
                index=index,
                augmentation=None if strategy == "none" else augmentation,
            )
        ]

    # --- the two steps ------------------------------------------------------------------------------------------------

    def _match(self, network: Network, iteration: int) -> float:
        """Set the images' gradient to that of the distances summed over classes, and return their sum."""
        directions, scales = self._frequencies(network, iteration)

        def match(label: int) -> tuple[Tensor, Tensor, Tensor | None]:
            transform = self._siamese(iteration, label)
            real = transform(self.real(label, self.options.batch_real, "real", iteration))
            with torch.no_grad(), self.task.reduced_precision():
                parts = [network.features(images).to(real.dtype) for images in torch.split(real, SLICE)]
            leaf = self.images.detach()[self.mine(label)].requires_grad_()
            # A leaf of each class: classes are matched in several threads.
            own = None if scales is None else scales.detach().requires_grad_()
            loss = SCALE * characteristic_distance(
                functional.normalize(torch.cat(parts)),
                functional.normalize(network.features(transform(leaf))),
                directions if own is None else own[:, None] * directions,
                amplitude=self.options.amplitude,
                phase=self.options.phase,
            )
            of_images, *of_scales = torch.autograd.grad(loss, [leaf] if own is None else [leaf, own])
            return loss.detach(), of_images, of_scales[0] if of_scales else None

        matched = list(side_by_side(match, range(self.classes), self.images.device))
        self.images.grad = torch.cat([of_images for _, of_images, _ in matched])
        if scales is not None:
            self._widen(scales, torch.stack([of_scales for _, _, of_scales in matched if of_scales is not None]).sum(0))
        return float(torch.stack([loss for loss, _, _ in matched]).sum(dtype=torch.float64))

    def _calibrate(self, final: Network) -> float:
        """Set the images' gradient to that of a trained network's cross-entropy, summed over classes, and return it."""

        def calibrate(label: int) -> tuple[Tensor, Tensor]:
            leaf = self.images.detach()[self.mine(label)].requires_grad_()
            losses = functional.cross_entropy(final(leaf), self.labels[self.mine(label)])
            loss = self.options.calibration * losses
            return loss.detach(), torch.autograd.grad(loss, leaf)[0]

        calibrated = list(side_by_side(calibrate, range(self.classes), self.images.device))
        self.images.grad = torch.cat([gradient for _, gradient in calibrated])
        return float(torch.stack([loss for loss, _ in calibrated]).sum(dtype=torch.float64))

    def _update(self) -> None:
        """Take a step of AdamW by the images' gradient."""
        self.optimizer.report_gradient()
        if self.encoded:
            self.encoded.pull_back()
        self.adamw.step()
        if self.encoded:
            self.encoded.constrain()
            self.encoded.refresh()

    def _siamese(self, iteration: int, label: int) -> Callable[[Tensor], Tensor]:
        """Return the augmentation of a class, with the same draw for its real and its synthetic images."""
        if self.options.augment == "none":
            return lambda images: images
        generator = self.task.streams.generator("augment", iteration, label)
        return idc.siamese(self.options.augment, self.task.problem.shape, generator)

    # --- frequencies --------------------------------------------------------------------------------------------------

    def _frequencies(self, network: Network, iteration: int) -> tuple[Tensor, Tensor | None]:
        """Return standard normal frequencies (m, d), and scales (m,) of a sampler with their graph."""
        with torch.no_grad():
            dimension = network.features(self.images[:1]).shape[1]
        generator, device = self.task.streams.generator("frequencies", iteration), self.images.device
        directions = torch.randn(self.options.frequencies, dimension, generator=generator).to(device)
        if self.sampler is None:
            return directions, None
        return directions, self.sampler(torch.randn(self.options.frequencies, generator=generator).to(device))

    def _widen(self, scales: Tensor, gradient: Tensor) -> None:
        """Move the sampler to where the distance is larger: the maximum of NCFM's min-max."""
        self.sampler_optimizer.zero_grad()
        scales.backward(-gradient)  # type: ignore[no-untyped-call]
        self.sampler_optimizer.step()

    # --- what the harness asks ----------------------------------------------------------------------------------------

    def _optimizers(self) -> Mapping[str, tuple[torch.optim.Optimizer, Mapping[str, Tensor]]]:
        """Return the optimisers, each with the tensors that it moves, by their names in a state."""
        optimizers: dict[str, tuple[torch.optim.Optimizer, Mapping[str, Tensor]]] = {
            "adamw": (self.adamw, self._tensors)
        }
        if self.sampler is not None:
            optimizers["sampler"] = (self.sampler_optimizer, dict(self.sampler.named_parameters()))
        return optimizers

    def state(self) -> Mapping[str, Tensor]:
        """Return what is learned, what the optimisers remember, and where the plateau of the loss stands."""
        own = dict(super().state())
        for owner, (optimizer, tensors) in self._optimizers().items():
            for name, tensor in tensors.items():
                own |= {f"{owner}.{name}.{kind}": value for kind, value in optimizer.state[tensor].items()}
        if self.sampler is not None:
            own |= {f"weights.{name}": weight.detach() for name, weight in self.sampler.named_parameters()}
        rate = self.adamw.param_groups[0]["lr"]
        plateau = [float(self.plateau.best), float(self.plateau.num_bad_epochs), float(rate)]
        return {**own, "plateau": torch.tensor(plateau, dtype=torch.float64)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Set all tensors to those that `state` returned."""
        super().restore(state)
        for owner, (optimizer, tensors) in self._optimizers().items():
            for name, tensor in tensors.items():
                stored = {kind: f"{owner}.{name}.{kind}" for kind in ADAM_STATE}
                optimizer.state[tensor] = {kind: state[key].clone() for kind, key in stored.items() if key in state}
        if self.sampler is not None:
            self.sampler.load_state_dict({name: state[f"weights.{name}"] for name in self.sampler.state_dict()})
        best, worse, rate = state["plateau"].tolist()
        self.plateau.best, self.plateau.num_bad_epochs = best, int(worse)
        self.adamw.param_groups[0]["lr"] = rate

    def work(self) -> float:
        """Return the passes of one iteration: one over real images, three over decoded ones in each of two steps."""
        calibrated = 3 if self.options.networks == "trained" and self.options.calibration else 0
        return float(self.classes * (self.options.batch_real + (3 + calibrated) * self.per_class))


def characteristic_distance(
    real: Tensor, synthetic: Tensor, frequencies: Tensor, *, amplitude: float, phase: float
) -> Tensor:
    """Return the distance of two sets of features by their characteristic functions (NCFM, equations 3 and 6).

    Args:
        real: features (n, d).
        synthetic: features (k, d).
        frequencies: the points t (m, d) at which the functions are compared.
        amplitude: alpha, the weight of (|Phi_r| - |Phi_s|)^2.
        phase: beta, the weight of 2 |Phi_r| |Phi_s| (1 - cos of the difference of phases).
    """
    (x, y), (u, v) = (
        (angles.cos().mean(0), angles.sin().mean(0)) for angles in (real @ frequencies.T, synthetic @ frequencies.T)
    )
    of_real, of_synthetic = (x.square() + y.square()).sqrt(), (u.square() + v.square()).sqrt()
    of_phases = (2 * (of_real * of_synthetic - x * u - y * v)).clamp(min=FLOOR)
    return (amplitude * (of_real - of_synthetic).square() + phase * of_phases).sqrt().mean()


def between(trained: Mapping[str, Tensor], initial: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Return the weights ``share`` of the way from trained to initial ones; counters are the trained network's."""
    return {
        name: torch.lerp(end, initial[name], share) if end.is_floating_point() else end for name, end in trained.items()
    }


def _augmentation(strategy: str, problem: Problem) -> Augment:
    return ncfm.ncfm_augmentation(strategy, len(problem.classes))
