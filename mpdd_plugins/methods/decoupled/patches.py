"""Patches of real images that teachers classify well, and images that are put together from them (RDED, section 4)."""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from harness import SLICE, DataError, Network, Options, Problem, Streams, option
from mpdd_plugins.methods.decoupled.teachers import mean_cross_entropy


class PatchOptions(Options):
    """Options of the choice of patches."""

    factor: int = option(
        1,
        "an image is put together from factor x factor patches",
        source="RDED: 1 for 32x32 pixels, else 2",
        ge=1,
        le=8,
    )
    candidates: int = option(300, "real images of each class that patches are cropped from", source="RDED", ge=1)
    crops: int = option(5, "crops of each of them, of which the best is taken", source="RDED", ge=1)
    scale: float = option(0.08, "least share of an image's area in a crop", source="RDED: torchvision's", gt=0, le=1)


def realistic_images(
    options: PatchOptions, teachers: Sequence[Network], problem: Problem, ipc: int, streams: Streams
) -> Tensor:
    """Return images (classes * ipc, c, h, w) in [0, 1], class by class, on the CPU: the patches of lowest loss.

    Of each candidate the crop with the lowest cross-entropy competes, and the lowest of these are taken.

    Args:
        options: how many of what.
        teachers: score the patches; the mean over them counts.
        problem: the real data.
        ipc: images of each class.
        streams: of the distillation. Candidates are drawn as ``random`` draws its images.

    Raises:
        DataError: a class has fewer images than patches are needed.
    """
    return torch.cat(
        [
            mosaics(chosen_patches(options, teachers, problem, label, ipc, streams), ipc, options.factor, problem.shape)
            for label in range(len(problem.classes))
        ]
    )


def chosen_patches(
    options: PatchOptions, teachers: Sequence[Network], problem: Problem, label: int, ipc: int, streams: Streams
) -> Tensor:
    """Return the patches (ipc * factor², c, ...) of a class in [0, 1], those of lowest loss first."""
    members, needed = problem.of_class[label], ipc * options.factor**2
    order = torch.randperm(len(members), generator=streams.generator("init", 0, label))
    chosen = members[order[: max(options.candidates, needed)]]
    if len(chosen) < needed:
        raise DataError(
            f"class {problem.classes[label]!r} has {len(chosen)} training images, and {needed} patches are needed: "
            "use a smaller --ipc or factor"
        )
    images = problem.train.images[chosen].float().div_(255.0)
    size = tuple(side // options.factor for side in problem.shape[1:])
    generator, best, losses = streams.generator("crops", 0, label), torch.empty(0), torch.empty(0)
    for _ in range(options.crops):
        patches = torch.cat(list(random_crops(images, options.scale, size, generator)))
        own = patch_losses(teachers, problem, patches, label)
        if not len(best):
            best, losses = patches, own
            continue
        better = own < losses
        best, losses = torch.where(better[:, None, None, None], patches, best), torch.minimum(losses, own)
    return best[losses.argsort(stable=True)[:needed]]


def random_crops(images: Tensor, scale: float, size: tuple[int, ...], generator: torch.Generator) -> Iterator[Tensor]:
    """Yield a square crop of each image (n, c, h, w), resized to ``size``, as (1, c, *size).

    Its area is uniform in [scale, 1] times the image's, as far as the shorter side admits, its place uniform.
    """
    height, width = images.shape[2:]
    shares, rows, columns = torch.rand(3, len(images), generator=generator, dtype=torch.float64).tolist()
    for image, share, row, column in zip(images, shares, rows, columns, strict=True):
        area = (scale + (1 - scale) * share) * height * width
        side = min(max(1, round(math.sqrt(area))), height, width)
        top, left = int(row * (height - side + 1)), int(column * (width - side + 1))
        crop = image[None, :, top : top + side, left : left + side]
        yield functional.interpolate(crop, size, mode="bilinear", antialias=True, align_corners=False)


@torch.inference_mode()
def patch_losses(teachers: Sequence[Network], problem: Problem, patches: Tensor, label: int) -> Tensor:
    """Return the losses (n,) of patches (n, c, ...) in [0, 1], on the CPU.

    A patch that is smaller than an image lies in its middle, on the mean colour.
    """
    height, width = problem.shape[1:]
    losses = []
    for part in torch.split(patches, SLICE):
        inputs = problem.resident.preprocessing.apply(_framed(part.to(problem.device), height, width))
        inputs = _framed_inputs(inputs, part.shape[2:])
        labels = torch.full((len(part),), label, device=problem.device)
        losses.append(mean_cross_entropy(teachers, inputs, labels).cpu())
    return torch.cat(losses).clone()


def _framed(patches: Tensor, height: int, width: int) -> Tensor:
    """Return patches in the middle of black images."""
    below, right = height - patches.shape[2], width - patches.shape[3]
    return functional.pad(patches, (right // 2, right - right // 2, below // 2, below - below // 2))


def _framed_inputs(inputs: Tensor, size: Sequence[int]) -> Tensor:
    """Return network inputs with zeros around the patch in the middle, as RDED pads after its normalisation."""
    below, right = inputs.shape[2] - size[0], inputs.shape[3] - size[1]
    if not below and not right:
        return inputs
    framed = torch.zeros_like(inputs)
    place = slice(below // 2, below // 2 + size[0]), slice(right // 2, right // 2 + size[1])
    framed[:, :, place[0], place[1]] = inputs[:, :, place[0], place[1]]
    return framed


def mosaics(patches: Tensor, ipc: int, factor: int, shape: tuple[int, int, int]) -> Tensor:
    """Return images (ipc, *shape), each of factor x factor patches.

    Cell (i, j) of image k holds patch (i * factor + j) * ipc + k, so that the best patches are spread over the images.
    If ``factor`` does not divide a side, its first cells are a pixel larger, and their patches enlarged to the nearest.
    """
    heights, widths = (_sides(side, factor) for side in shape[1:])
    cells = iter(torch.split(patches, ipc))
    rows = [
        torch.cat([functional.interpolate(next(cells), (height, width), mode="nearest") for width in widths], dim=3)
        for height in heights
    ]
    return torch.cat(rows, dim=2)


def _sides(side: int, factor: int) -> list[int]:
    """Return the sides of the cells, which sum to ``side``."""
    return [side // factor + (index < side % factor) for index in range(factor)]
