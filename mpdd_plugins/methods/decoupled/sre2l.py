"""Squeeze, recover and relabel: Yin, Xing and Shen, NeurIPS 2023 (SRe2L), and its recipe for CIFAR (SRe2L++).

Squeeze: a teacher is trained on the real data. Recover: images are optimised so that the teacher, left as it is,
classifies them, and so that their statistics at the input of each batch norm are its running statistics. Relabel is
the evaluator's part (``soft-labels[protocol=sre2l]``).

A batch is one image of each class: the statistics are those of a batch. With several draws, the losses of several
teachers are averaged, as in G-VBSM (Shao et al., CVPR 2024), so that a pool of trained architectures applies.

Departures from the published code. The last iterate is the set, which is what that code stores too (its best cost is
never renewed); images are stored as they are, not as JPEG. Pixels are normalised as the problem says.

``preset=sre2l++`` is the recover stage of SRe2L++ on CIFAR, for which 4000 iterations are published, and none of its
other stages. Squeeze: teachers are trained as SRe2L's, by SGD with lr 0.1, weight decay 5e-4 and batches of 128; its
own are trained by Adam with lr 0.001, weight decay 1e-4 and batches of 512 (both for 200 epochs with a cosine).
Relabel: ``soft-labels[protocol=sre2l]`` is SRe2L's. SRe2L++'s is 300 epochs at temperature 20 in batches of 16, under
crops, mirroring and CutMix, on the answers of a teacher in training mode: ``soft-labels[protocol=sre2l,epochs=300,
temperature=20,batch=16,augment=resized-crop+flip+cutmix]``, but for two things. Its students sum the gradients of two
batches, and its teacher answers to the images before they are mixed.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal, Self

import pydantic
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from harness import ArtifactRequest, DistilledSet, Network, Networks, Preprocessing, Task, TensorMethod, option
from mpdd_plugins.augmentations import dsa
from mpdd_plugins.methods.decoupled.patches import PatchOptions, realistic_images
from mpdd_plugins.methods.decoupled.teachers import TeacherOptions, drawn_teachers, teacher_requests, too_few_teachers

FIRST_WEIGHT = 10.0
"""Weight of the first batch norm beside 1 of each other (SRe2L, recover)."""
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "sre2l": {},
    "sre2l++": {"init": "patches", "view": "crop+flip"},
}
"""Options that a preset has in place of the defaults (SRe2L++: 4000 iterations, ResNet-18)."""
RELABEL = "soft-labels[protocol=sre2l,epochs=300,temperature=20,batch=16,augment=resized-crop+flip+cutmix]"
"""SRe2L++'s relabel stage, as near as options come."""


class SRe2LOptions(TeacherOptions, PatchOptions):
    """Options of `SRe2L`."""

    preset: Literal["sre2l", "sre2l++"] = option(
        "sre2l",
        "sre2l++: init=patches and view=crop+flip, the recover stage of CV-DD's code on CIFAR (--iterations 4000). "
        "Teachers are sre2l's all the same: SGD, lr 0.1, weight decay 5e-4, batch 128, and not Adam, lr 0.001, weight "
        "decay 1e-4, batch 512; its relabel stage is the evaluator "
        f"{RELABEL}, but for gradients summed over two batches and a teacher that is asked before images are mixed",
        source="SRe2L; CV-DD's code",
    )
    init: Literal["noise", "patches"] = option(
        "noise", "initial images: standard normal, or RDED's patches. The default is patches under sre2l++",
        source="SRe2L; SRe2L++",
    )  # fmt: skip
    lr_img: float = option(0.25, "learning rate of the images by Adam, with a cosine to zero", source="SRe2L", gt=0)
    beta1: float = option(0.5, "first beta of Adam", source="SRe2L", ge=0, lt=1)
    beta2: float = option(0.9, "second beta of Adam", source="SRe2L", ge=0, lt=1)
    r_bn: float = option(0.01, "weight of the distance of batch norm's statistics", source="SRe2L on CIFAR", ge=0)
    roll: int = option(
        4, "most pixels that a batch is rolled by before a pass, each way right and down", source="SRe2L", ge=0
    )
    view: Literal["none", "crop+flip"] = option(
        "none",
        "what else a batch sees before a pass; crop+flip: a part of at least 0.08 of the area, enlarged, and mirrored "
        "with probability one half unless the data set's images are never mirrored. The default is crop+flip under "
        "sre2l++",
        source="SRe2L; SRe2L++",
    )

    @pydantic.model_validator(mode="before")
    @classmethod
    def _fill_in_preset(cls, values: Any) -> Any:  # noqa: ANN401
        return {**PRESETS.get(str(values.get("preset")), {}), **values} if isinstance(values, dict) else values

    @pydantic.model_validator(mode="after")
    def _leave_patches_alone(self) -> Self:
        unused = [name for name in PatchOptions.fields_by_name() if name in self.changed()]
        if self.init == "noise" and unused:
            raise ValueError(f"images from noise have no patches: leave out {', '.join(unused)}, or set init=patches")
        return self

    def defaults(self) -> dict[str, Any]:
        """Return the options' defaults under this preset."""
        return {**super().defaults(), **PRESETS[self.preset]}


class SRe2L(TensorMethod[SRe2LOptions]):
    """Learns images whose statistics at each batch norm of a trained network are its running ones."""

    Options = SRe2LOptions
    uses_total = True  # the cosine ends with the last iteration
    check_options = "teacher-epochs=2"
    check_draws = "convnet[width=4,depth=2,norm=batch]"

    def __init__(self, task: Task, options: SRe2LOptions) -> None:
        super().__init__(task, options)
        self.classes, self.device = len(task.problem.classes), task.problem.device
        shape = (self.classes * task.ipc, *task.problem.shape)
        # Patches take a teacher, which is there in the first step only.
        noise = torch.randn(shape, generator=task.streams.generator("init", 0)).to(self.device)
        self.learn({"images": noise}, self._adam)

    def _adam(self, tensors: Sequence[Any]) -> torch.optim.Optimizer:
        options = self.options
        return torch.optim.Adam(tensors, options.lr_img, betas=(options.beta1, options.beta2), eps=1e-8)

    @property
    def _mirrored(self) -> bool:
        """Whether the data set's images may be mirrored, as its teachers see them."""
        return "flip" in dsa.own_strategy(self.task.problem).split("+")

    def settings(self) -> Mapping[str, Any]:
        """Return that images are not mirrored, where the view would mirror those of other data sets."""
        # Sets of such data had been mirrored under the same options before; all other sets keep their keys.
        return {} if self.options.view == "none" or self._mirrored else {"view": "crop"}

    @property
    def draws(self) -> int:
        """Networks that a step draws from the pool."""
        return self.options.draws

    def refusal(self, network: Network) -> str | None:
        """Refuse a network without batch norm, whose statistics the images could not have."""
        if any(_is_batch_norm(module) for module in network.modules()):
            return None
        return "has no batch norm, whose statistics the images are to have: choose those with norm=batch"

    def pool_refusal(self, architectures: Sequence[str]) -> str | None:
        """Refuse a pool of which a step could not draw so many different teachers."""
        return too_few_teachers(self.options, architectures)

    def needs(self, iteration: int, architecture: str | None) -> Sequence[ArtifactRequest]:
        """Request the teachers of an architecture."""
        return () if architecture is None else teacher_requests(self.options, architecture)

    def step(self, iteration: int, networks: Networks) -> Mapping[str, float]:
        """Take a step of Adam on all images, batch by batch."""
        options, task = self.options, self.task
        images = self.tensors["images"]
        teachers = drawn_teachers(options, networks, task.problem, first=iteration)
        if iteration == 0 and options.init == "patches":
            pixels = realistic_images(options, teachers, task.problem, task.ipc, task.streams)
            with torch.no_grad():
                images.copy_(task.problem.preprocessing.apply(pixels))
        self.set_rate(cosine(options.lr_img, iteration, task.iterations))
        gradient, sums = torch.zeros_like(images), [0.0, 0.0]
        labels = torch.arange(self.classes, device=self.device)
        for batch in range(task.ipc):
            leaf = images.detach()[batch :: task.ipc].requires_grad_()
            seen = self._seen(leaf, iteration, batch)
            parts = [recover_losses(teacher, seen, labels) for teacher in teachers]
            entropy, distance = (torch.stack(own).mean() for own in zip(*parts, strict=True))
            gradient[batch :: task.ipc] = torch.autograd.grad(entropy + options.r_bn * distance, leaf)[0]
            sums = [sums[0] + float(entropy.detach()), sums[1] + float(distance.detach())]
        images.grad = gradient
        self.optimizer.step()
        with torch.no_grad():
            images.copy_(clipped(images, task.problem.resident.preprocessing))
        return {"cross_entropy": sums[0] / task.ipc, "bn_distance": sums[1] / task.ipc}

    def _seen(self, images: Tensor, iteration: int, batch: int) -> Tensor:
        """Return what the teachers see of a batch: perhaps cropped and mirrored, and rolled."""
        options, generator = self.options, self.task.streams.generator("view", iteration, batch)
        if options.view == "crop+flip":
            images = torch.cat(list(_crops_and_flips(images, generator, mirrored=self._mirrored)))
        down, right = torch.randint(options.roll + 1, (2,), generator=generator).tolist()
        return images.roll((down, right), dims=(2, 3))

    def distilled(self) -> DistilledSet:
        """Return the present images with the labels of their classes."""
        labels = torch.arange(self.classes).repeat_interleave(self.task.ipc)
        return self.task.distilled(self.tensors["images"], labels)

    def work(self) -> float:
        """Return the passes of one iteration: three for each image and teacher."""
        return 3.0 * self.classes * self.task.ipc * self.options.draws


def recover_losses(network: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cross-entropy, and sum_l s_l (|mean_l - running mean_l| + |var_l - running var_l|), of a batch.

    The norms over channels are Euclidean and not squared; mean_l and var_l (biased) are those of the input of batch
    norm l over images and positions; s_l is 10 for the first and 1 for each other (SRe2L, equation 4 and recover).

    Args:
        network: in evaluation mode.
        images: network inputs (n, c, h, w).
        labels: class indices (n,).
    """
    with recorded_inputs(network) as inputs:
        entropy = functional.cross_entropy(network(images), labels)
    terms = []
    for index, (layer, features) in enumerate(inputs):
        over = [0, *range(2, features.ndim)]
        mean, variance = features.mean(over), features.var(over, correction=0)
        running_mean, running_variance = layer.running_mean, layer.running_var
        assert running_mean is not None, "`_is_batch_norm` says that there are statistics"
        assert running_variance is not None, "likewise"
        # At 0 the norm has no direction: torch gives the gradient 0 there, as at a minimum.
        distance = torch.linalg.vector_norm(mean - running_mean)
        distance = distance + torch.linalg.vector_norm(variance - running_variance)
        terms.append((FIRST_WEIGHT if index == 0 else 1.0) * distance)
    return entropy, torch.stack(terms).sum()


@contextmanager
def recorded_inputs(network: nn.Module) -> Iterator[list[tuple[_BatchNorm, Tensor]]]:
    """Record each batch norm with its input, in the order of a pass."""
    inputs: list[tuple[_BatchNorm, Tensor]] = []

    def record(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        assert isinstance(module, _BatchNorm), "only these have the hook"
        inputs.append((module, arguments[0]))

    with ExitStack() as hooks:
        for module in network.modules():
            if _is_batch_norm(module):
                hooks.callback(module.register_forward_pre_hook(record).remove)
        yield inputs


def _is_batch_norm(module: nn.Module) -> bool:
    """Return whether a module normalises by running statistics."""
    return isinstance(module, _BatchNorm) and module.track_running_stats


def cosine(lr: float, iteration: int, total: int) -> float:
    """Return the learning rate of an iteration: lr (1 + cos(pi iteration / total)) / 2."""
    return 0.5 * lr * (1 + math.cos(math.pi * iteration / max(1, total)))


def clipped(inputs: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Return network inputs (n, c, h, w) whose pixels are clipped to [0, 1]."""
    return preprocessing.apply(preprocessing.invert(inputs).clamp(0, 1))


def _crops_and_flips(images: Tensor, generator: torch.Generator, *, mirrored: bool) -> Iterator[Tensor]:
    """Yield each image (1, c, h, w) cropped, enlarged and, if ``mirrored``, mirrored or not, with gradients."""
    height, width = images.shape[2:]
    shares, rows, columns, mirrors = torch.rand(4, len(images), generator=generator, dtype=torch.float64).tolist()
    for image, share, row, column, mirror in zip(images, shares, rows, columns, mirrors, strict=True):
        side = min(max(1, round(math.sqrt((0.08 + 0.92 * share) * height * width))), height, width)
        top, left = int(row * (height - side + 1)), int(column * (width - side + 1))
        crop = image[None, :, top : top + side, left : left + side]
        whole = functional.interpolate(crop, (height, width), mode="bilinear", align_corners=False)
        yield whole.flip(3) if mirrored and mirror < 0.5 else whole
