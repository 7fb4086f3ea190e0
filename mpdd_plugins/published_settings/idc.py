"""Options of IDC, and the published settings by data set that replace ``auto``."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pydantic

from harness import PixelOptions, Problem, Task, option
from mpdd_plugins.augmentations.idc import check_matched, check_strategy

Metric = Literal["mse", "l1", "l1-mean", "layerwise"]
LARGE = 128
"""Images of this many pixels a side, or more, take the settings that are published for ImageNet (224 pixels)."""


class IDCOptions(PixelOptions):
    """Options of `IDC`."""

    as_: str | None = option(  # type: ignore[assignment]
        None, "what is learned and stored; auto: multi-formation[factor=2], or factor=3 from 128 pixels a side on",
        source="IDC",
    )  # fmt: skip
    init: Literal["noise", "real"] = option("real", "initial images: noise, or real ones in every patch", source="IDC")
    lr_img: float | None = option(  # type: ignore[assignment]
        None, "learning rate of the pixels; auto: the data set's, times ipc / 10 and the area over the published one",
        source="IDC, argument.py", gt=0,
    )  # fmt: skip
    metric: Metric | None = option(
        None, "distance of two gradients: squared or absolute differences (l1-mean: their mean for each output), or "
        "layerwise cosines; auto: by data set",
        source="IDC, reproduce.py",
    )  # fmt: skip
    match: Literal["gradients", "features"] = option(
        "gradients", "what is matched, class by class; features: the mean of the last layer's", source="IDC"
    )
    bias: bool = option(False, "match the gradients of biases and of scales of norms too", source="IDC")
    fc: bool | None = option(
        None, "match the gradients of linear layers too; auto: in networks that have no others", source="IDC"
    )
    inner: int = option(100, "updates of the images with each network", source="IDC, inner_loop", ge=1)
    batch_real: int = option(64, "real images of each class that are matched", source="IDC", ge=1)
    batch_statistics: int = option(16, "real images of each class that batch norm is fixed by", source="DC", ge=1)
    batch_syn: int = option(128, "most training images of a class that are matched at once", source="IDC", ge=1)
    update: Literal["class", "joint"] | None = option(
        None, "class: momentum moves all images after each class's turn; joint: a step for all classes; auto: class, "
        "but joint if classes share tensors",
        source="IDC, condense.py",
    )  # fmt: skip
    n_data: int | None = option(
        None, "real images that the network trains on between updates of the images, 0 for none; auto: by data set",
        source="IDC, reproduce.py", ge=0,
    )  # fmt: skip
    early: int | None = option(
        None, "epochs on all real images that each network trains first; auto: 10 for ten classes of large images, "
        "else 0",
        source="IDC, reproduce.py", ge=0,
    )  # fmt: skip
    batch_train: int = option(64, "real images a step of the network's training", source="IDC", ge=1)
    lr_net: float = option(0.01, "learning rate of the network", source="IDC", gt=0)
    momentum_net: float = option(0.9, "momentum of the network", source="IDC", ge=0, lt=1)
    weight_decay: float = option(5e-4, "weight decay of the network", source="IDC", ge=0)
    augment: str | None = option(
        None, "operations on matched images joined by +, with one draw for real and synthetic ones, or none; auto: "
        "color+crop+cutout, on mnist color+crop",
        source="IDC",
    )  # fmt: skip
    augment_net: str | None = option(
        None, "operations while the network trains, each image with a draw of its own; auto: color+crop+cutmix, on "
        "mnist color+crop",
        source="IDC",
    )  # fmt: skip

    _check_augment = pydantic.field_validator("augment")(check_matched)
    _check_augment_net = pydantic.field_validator("augment_net")(check_strategy)


@dataclass(frozen=True)
class Published:
    """A published setting.

    Attributes:
        metric: distance of two gradients.
        lr_img: learning rate of the pixels at ipc 10 on images of ``side`` pixels.
        n_data: real images that the network trains on between two updates.
        side: pixels a side of the images that ``lr_img`` is for.
        early: epochs on real images at the start of each outer iteration.
    """

    metric: Metric
    lr_img: float
    n_data: int = 500
    side: int = 32
    early: int = 0


PUBLISHED = {
    "cifar10": Published("mse", 5e-3, 2000),
    "cifar100": Published("mse", 5e-3, 2000),
    "svhn": Published("mse", 5e-3),
    "mnist": Published("l1", 1e-4, side=28),
    # 32 although its images have 28 pixels, so that the rate is scaled by (28 / 32)^2 (argument.py).
    "fashion-mnist": Published("l1", 1e-4),
}
"""Published settings by the data set that a problem is like (reproduce.py)."""
OTHER = PUBLISHED["svhn"]
"""The setting of data sets without a published one."""
LARGE_10, LARGE_100 = Published("l1", 3e-3, side=224, early=10), Published("l1", 1e-3, side=224)
"""The published settings of ImageNet-10 and ImageNet-100."""


@dataclass(frozen=True)
class Setting:
    """The options that may be left to ``auto`` and that decide numbers, each with its value.

    Attributes:
        as_: the parametrisation.
        metric: distance of two gradients.
        lr_img: learning rate of the pixels as it is used.
        n_data: real images that the network trains on between two updates, at most all.
        early: epochs on real images at the start of each outer iteration.
    """

    as_: str
    metric: Metric
    lr_img: float
    n_data: int
    early: int


def published(problem: Problem) -> Published:
    """Return the setting for a problem: its data set's, otherwise ImageNet's if its images are large."""
    if str(problem.like) in PUBLISHED:
        return PUBLISHED[str(problem.like)]
    if problem.shape[1] < LARGE:
        return OTHER
    return LARGE_10 if len(problem.classes) <= 10 else LARGE_100


def setting_for(task: Task, options: IDCOptions) -> Setting:
    """Return the value of every option: the user's, otherwise the published one."""
    problem, own = task.problem, published(task.problem)
    height = problem.shape[1]
    # The loss is a mean over images, and pooling one over pixels: the gradient of a pixel falls with both numbers, and
    # the published rate grows in proportion to them (argument.py).
    scaled = own.lr_img * (task.ipc / 10) * (height / own.side) ** 2
    return Setting(
        as_=options.as_ or f"multi-formation{'[factor=3]' if height >= LARGE else ''}",
        metric=options.metric or own.metric,
        lr_img=options.lr_img or scaled,
        n_data=min(own.n_data if options.n_data is None else options.n_data, len(problem.train)),
        early=own.early if options.early is None else options.early,
    )


def augmentations_for(problem: Problem, options: IDCOptions, *, packed: bool) -> tuple[str, str]:
    """Return the operations on matched images, and those while the network trains.

    Args:
        problem: the data set.
        options: the user's options.
        packed: whether more images are decoded than are stored; only then MNIST has its own operations.
    """
    plain = problem.like == "mnist" and packed
    matched, trained = ("color+crop", "color+crop") if plain else ("color+crop+cutout", "color+crop+cutmix")
    return (
        matched if options.augment is None else options.augment,
        trained if options.augment_net is None else options.augment_net,
    )


def departures(task: Task, options: IDCOptions) -> Sequence[str]:
    """Return lines for the notes beneath the table: what is not as published."""
    lines = []
    if published(task.problem) is OTHER and task.problem.like != "svhn":
        unset = [name for name in ("metric", "lr_img", "n_data") if getattr(options, name) is None]
        if unset:
            lines.append(f"idc has no published setting for {task.problem.name}: {', '.join(unset)} as for svhn")
    wanted, images = options.n_data or published(task.problem).n_data, len(task.problem.train)
    if wanted > images:
        lines.append(f"idc: the network trains on all {images} real images between updates, not on {wanted}")
    return lines
