"""Crops, mirrored images, CutMix and Mixup whose parameters are drawn first, so that they can be stored with labels.

A *view* is a batch under parameters. Fast knowledge distillation (Shen and Xing, ECCV 2022) stores the parameters of
each view beside the labels that a teacher gives to it; SRe2L and RDED train their students so. Every image has a crop
of its own and is mirrored or not by itself; a batch is mixed with a permutation of itself by one box (CutMix) or one
share (Mixup). All operations act on normalised images (n, c, h, w), so that what a crop shifts in from outside of an
image is 0, the mean colour, and not black as in the published code.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from scipy.special import betaincinv
from torch import Tensor
from torch.nn import functional

from harness import Augment, LabelledAugment, Problem, cutmix_box
from mpdd_plugins.augmentations import dsa

RATIO = (3 / 4, 4 / 3)
"""Range of a random crop's width by its height (torchvision's default, which SRe2L and RDED take)."""
ATTEMPTS = 10
"""Crops that are drawn before the middle of the image is taken: those that do not fit in are rejected."""
DEFAULTS: Mapping[str, float | None] = {
    "crop": None,
    "resized-crop": 0.08,
    "flip": None,
    "cutmix": 1.0,
    "mixup": 0.8,
}
"""Operations in the order in which they are applied, with the default of the number that may follow each."""
MEANINGS = (
    "crop: a shift of up to an eighth of each side; resized-crop:S: a part of at least S of the area, enlarged "
    "(0.08); flip: mirrored with probability one half; cutmix:P: with probability P (1); mixup:B: beta of the share "
    "(0.8)"
)
"""The meaning of the operations, for options."""


@dataclass(frozen=True, eq=False)
class View:
    """Holds the parameters of one batch's view; the types are those in which they are stored.

    Attributes:
        boxes: top, left, height and width of each image's crop (n, 4), int16; it may reach over the border.
        flips: whether each image is mirrored (n,), bool.
        partners: the image of the batch (n,), int32, that each is mixed with.
        box: top, left, bottom and right of CutMix's box (4,), int16; empty if it is not cut.
        share: of its own that Mixup leaves to an image, float32 (1,); 1 without Mixup.
    """

    boxes: Tensor
    flips: Tensor
    partners: Tensor
    box: Tensor
    share: Tensor

    def apply(self, images: Tensor) -> Tensor:
        """Return the view of images (n, c, h, w)."""
        return self.mixed(self.cropped(images))

    def cropped(self, images: Tensor) -> Tensor:
        """Return the images cropped and mirrored, of the same shape."""
        seen = images
        height, width = images.shape[2:]
        whole = torch.tensor([0, 0, height, width], dtype=self.boxes.dtype)
        if bool((self.boxes != whole).any()):
            seen = functional.grid_sample(images, _grid(self.boxes.to(images.device), images), align_corners=False)
        return torch.where(self.flips.to(images.device)[:, None, None, None], seen.flip(3), seen)

    def mixed(self, images: Tensor) -> Tensor:
        """Return images (n, c, h, w) mixed with their partners."""
        partners = images[self.partners.to(images.device).long()]
        top, left, bottom, right = self.box.tolist()
        if bottom > top and right > left:
            images = images.clone()
            images[:, :, top:bottom, left:right] = partners[:, :, top:bottom, left:right]
        share = float(self.share)
        return images if share == 1 else share * images + (1 - share) * partners

    def weights(self, labels: Tensor, shape: torch.Size, classes: int) -> Tensor:
        """Return the class weights (n, classes) of the mixed images: those of an image and its partner, by area.

        Args:
            labels: class indices (n,) or class weights (n, classes).
            shape: shape of the images (n, c, h, w).
            classes: number of classes.
        """
        rows = labels if labels.ndim == 2 else functional.one_hot(labels, classes).to(torch.get_default_dtype())
        top, left, bottom, right = self.box.tolist()
        own = (1 - (bottom - top) * (right - left) / (shape[2] * shape[3])) * float(self.share)
        mixed: Tensor = own * rows + (1 - own) * rows[self.partners.to(rows.device).long()]
        return mixed


def check_strategy(strategy: str | None) -> str | None:
    """Validate an option that names operations of `DEFAULTS` joined by ``+``, or ``none``.

    Returns:
        The operations in the order in which they are applied, each with its number if it is not the default; None
        stands for the protocol's own.

    Raises:
        ValueError: an operation is unknown or named twice, a number is out of range, or two exclude each other.
    """
    if strategy is None or strategy == "none":
        return strategy
    numbers = _parsed(strategy)
    for first, second in (("crop", "resized-crop"), ("cutmix", "mixup")):
        if first in numbers and second in numbers:
            raise ValueError(f"{first} and {second} exclude each other: leave out one of them")
    shown = {name: numbers[name] for name in DEFAULTS if name in numbers}
    return "+".join(
        name if number == DEFAULTS[name] or number is None else f"{name}:{number:g}" for name, number in shown.items()
    )


def _parsed(strategy: str) -> dict[str, float | None]:
    """Return the operations of a strategy with their numbers."""
    numbers: dict[str, float | None] = {}
    for part in strategy.split("+"):
        name, colon, text = part.strip().partition(":")
        if name not in DEFAULTS:
            raise ValueError(f"there is no operation {name!r}: use {', '.join(DEFAULTS)} joined by +, or none")
        if name in numbers:
            raise ValueError(f"{name!r} is named twice")
        if colon and DEFAULTS[name] is None:
            raise ValueError(f"{name} takes no number: leave out {colon}{text}")
        numbers[name] = _number(name, text) if colon else DEFAULTS[name]
    return numbers


def _number(name: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise ValueError(f"{name}:{text} has no number: write {name}:{DEFAULTS[name]}") from None
    most = math.inf if name == "mixup" else 1.0
    if not 0 < number <= most or not math.isfinite(number):
        raise ValueError(f"{name}:{text} is out of range: a number above 0{'' if name == 'mixup' else ', at most 1'}")
    return number


def own_strategy(operations: str) -> Callable[[Problem], str]:
    """Return a function that gives a problem the operations without ``flip`` if its images are never mirrored."""

    def own(problem: Problem) -> str:
        mirrored = "flip" in dsa.own_strategy(problem).split("+")
        return "+".join(name for name in operations.split("+") if name != "flip" or mirrored)

    return own


def parameter_bits(strategy: str, images: int) -> int:
    """Return the storage of a view's parameters, of the operations that there are, in the types of `View`.

    An image has a crop of four numbers of 16 bits, or a shift of two; a bit for mirrored; and a partner of 32 bits if
    images are mixed. The view has CutMix's box of four numbers of 16 bits, or Mixup's share of 32.

    Args:
        strategy: operations as `check_strategy` returns them.
        images: images of the batch.
    """
    names = {part.partition(":")[0] for part in strategy.split("+")}
    of_image = {"crop": 32, "resized-crop": 64, "flip": 1, "cutmix": 32, "mixup": 32}
    of_view = {"cutmix": 64, "mixup": 32}
    return sum(images * of_image.get(name, 0) + of_view.get(name, 0) for name in names)


def draw_view(strategy: str, count: int, shape: tuple[int, int], generator: torch.Generator) -> View:
    """Draw the parameters of a batch's view.

    Args:
        strategy: operations as `check_strategy` returns them.
        count: number of images.
        shape: their height and width.
        generator: source of all random numbers, on the CPU.
    """
    numbers = _parsed(strategy) if strategy != "none" else {}
    boxes = torch.tensor([[0, 0, *shape]], dtype=torch.int16).repeat(count, 1)
    if "crop" in numbers:
        boxes[:, :2] = _shifts(count, shape, generator)
    elif least := numbers.get("resized-crop"):
        boxes = torch.stack([_resized_crop(least, shape, generator) for _ in range(count)])
    flips = torch.rand(count, generator=generator) < 0.5 if "flip" in numbers else torch.zeros(count, dtype=torch.bool)
    partners = torch.arange(count, dtype=torch.int32)
    box, share = torch.zeros(4, dtype=torch.int16), torch.ones(1)
    if "cutmix" in numbers or "mixup" in numbers:
        partners = torch.randperm(count, generator=generator).to(torch.int32)
        coin, quantile, row, column = torch.rand(4, generator=generator, dtype=torch.float64).tolist()
        if beta := numbers.get("mixup"):
            # The inverse of the distribution function: torch's own sampler of it takes no generator.
            share = torch.tensor([betaincinv(beta, beta, quantile)], dtype=torch.float32)
        elif coin < (numbers["cutmix"] or 0.0):
            centre = int(row * shape[0]), int(column * shape[1])
            box = torch.tensor(cutmix_box(quantile, centre, shape), dtype=torch.int16)
    return View(boxes, flips, partners, box, share)


def view_augmentation(strategy: str, classes: int) -> Augment:
    """Return a function that augments training batches; it sees labels and returns class weights if it mixes.

    Args:
        strategy: operations as `check_strategy` returns them.
        classes: number of classes.
    """
    if "mix" in strategy:
        return _Mixing(strategy, classes)

    def augment(images: Tensor, generator: torch.Generator) -> Tensor:
        height, width = images.shape[2:]
        return draw_view(strategy, len(images), (height, width), generator).apply(images)

    return augment


class _Mixing(LabelledAugment):
    """Returns views of images with the class weights of their labels."""

    def __init__(self, strategy: str, classes: int) -> None:
        self.strategy, self.classes = strategy, classes

    def __call__(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return the view and class weights (n, classes)."""
        height, width = images.shape[2:]
        view = draw_view(self.strategy, len(images), (height, width), generator)
        return view.apply(images), view.weights(labels, images.shape, self.classes).to(images.dtype)


def _shifts(count: int, shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Return tops and lefts (n, 2) of crops of the image's own size (4 pixels of 32: RandomCrop with padding 4)."""
    bounds = [int(side * 0.125 + 0.5) for side in shape]
    drawn = [torch.randint(-bound, bound + 1, (count,), generator=generator) for bound in bounds]
    return torch.stack(drawn, dim=1).to(torch.int16)


def _resized_crop(least: float, shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Return the box of a part of the image with an area from ``least`` to all of it (torchvision's rule)."""
    height, width = shape
    shares, ratios, rows, columns = torch.rand(4, ATTEMPTS, generator=generator, dtype=torch.float64)
    low, high = map(math.log, RATIO)
    for attempt in range(ATTEMPTS):
        area = (least + (1 - least) * float(shares[attempt])) * height * width
        ratio = math.exp(low + (high - low) * float(ratios[attempt]))
        tall, wide = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
        if 0 < tall <= height and 0 < wide <= width:
            top, left = int(rows[attempt] * (height - tall + 1)), int(columns[attempt] * (width - wide + 1))
            return torch.tensor([top, left, tall, wide], dtype=torch.int16)
    ratio = min(max(width / height, RATIO[0]), RATIO[1])
    tall, wide = min(height, round(width / ratio)), min(width, round(height * ratio))
    return torch.tensor([(height - tall) // 2, (width - wide) // 2, tall, wide], dtype=torch.int16)


def _grid(boxes: Tensor, images: Tensor) -> Tensor:
    """Return where `grid_sample` reads each pixel of the crops: bilinear, with each crop's edge repeated."""
    axes = []
    for axis, side in enumerate(images.shape[2:]):
        start, size = (boxes[:, place, None].to(images.dtype) for place in (axis, axis + 2))
        centres = (torch.arange(side, device=images.device, dtype=images.dtype) + 0.5) / side
        read = (centres * size - 0.5).clamp(min=0)
        read = start + torch.minimum(read, size - 1)
        axes.append((2 * read + 1) / side - 1)
    rows, columns = axes
    across = columns[:, None, :].expand(-1, rows.shape[1], -1)
    return torch.stack([across, rows[:, :, None].expand_as(across)], dim=3)
