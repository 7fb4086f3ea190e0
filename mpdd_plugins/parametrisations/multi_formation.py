"""IDC's multi-formation: each stored image is a grid of patches, and each patch is a training image.

Kim et al., "Dataset Condensation via Efficient Synthetic-Data Parameterization", ICML 2022, section 4: uniform and
multi-scale formation; the bounded one is in the published code alone.
"""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from harness import DataError, InitialImages, Options, Shape, UsageError, check_pixels, option
from mpdd_plugins.parametrisations.unit_pixels import UnitPixels

GREY = 0.5
"""The middle of [0, 1]: padding with black would put an edge into the last patches."""


class MultiFormationOptions(Options):
    """Options of `MultiFormation`."""

    factor: int = option(2, "factor x factor training images are packed into one", source="IDC", ge=1, le=16)
    formation: Literal["uniform", "multi-scale", "bounded"] = option(
        "uniform",
        "uniform: every stored image is cut by factor; multi-scale: by 1, 2 ... and factor, so that it counts several "
        "times; bounded: by factor as many of a class as bound allows, the next by less",
        source="IDC, section 4 and published code (single, multi, bound)",
    )
    bound: int = option(128, "most training images of a class if formation=bounded", source="IDC, published code", ge=1)

    def as_json(self) -> dict[str, Any]:
        """Return every option with its value; the formation and its bound only if they are set."""
        # Files and cells are those that there were before there was another formation.
        uniform = {"formation": "uniform", "bound": 128}
        return {key: value for key, value in super().as_json().items() if key not in uniform or value != uniform[key]}


class MultiFormation(UnitPixels):
    """Stores images in [0, 1], each of which is a grid of ``factor`` x ``factor`` training images.

    A patch is enlarged bilinearly to the size of the whole; a size that ``factor`` does not divide is padded with grey
    on the right and below. First come all images' patches at the top left, then those to the right of them. Several
    factors follow each other: 1, 2 ... if multi-scale, the largest first if bounded.
    """

    Options = MultiFormationOptions
    options: MultiFormationOptions

    def initial(self, start: InitialImages) -> Mapping[str, Tensor]:
        """Return a real image in each patch (IDC's ``mix``), or noise of the stored size.

        Patch (i, j) of image k of a class holds its real image number (i * factor + j) * ipc + k, shrunk to the nearest
        pixels. As published, so do images that ``formation`` does not cut by ``factor``: those start as mosaics.
        """
        factor, (_, height, width) = self.options.factor, start.problem.shape
        sides = [-(-size // factor) for size in (height, width)]
        if any(side * (factor - 1) >= size for side, size in zip(sides, (height, width), strict=True)):
            raise UsageError(f"multi-formation[factor={factor}] leaves patches without a pixel in {height}x{width}")
        if start.kind == "noise" or factor == 1:
            return super().initial(start)
        images = start.pixels(start.ipc * factor**2)
        shrunk = functional.interpolate(images, size=sides, mode="nearest")
        channels, classes = images.shape[1], len(start.problem.classes)
        # (class, i, j, k, channels, side, side): the order in which a class's real images fill the patches.
        grid = shrunk.view(classes, factor, factor, start.ipc, channels, *sides)
        whole = grid.permute(0, 3, 4, 1, 5, 2, 6).reshape(
            classes * start.ipc, channels, factor * sides[0], factor * sides[1]
        )
        # Cells lie where `decode` cuts, even if the factor does not divide the size: IDC's own lie beside the cuts, so
        # that each decoded image starts with a strip of its neighbour.
        return {"images": whole[..., :height, :width].contiguous()}

    def decode(self, tensors: Mapping[str, Tensor], labels: Tensor, shape: Shape) -> tuple[Tensor, Tensor]:
        """Cut each image into ``factor``² training images, with a label for each."""
        images, options = tensors["images"], self.options
        if options.formation == "multi-scale":
            every = torch.arange(len(images), device=images.device)
            parts = [(factor, every) for factor in range(1, options.factor + 1)]
        elif options.formation == "bounded":
            factors = factors_within(labels, options.factor, options.bound).to(images.device)
            parts = [(factor, (factors == factor).nonzero()[:, 0]) for factor in range(options.factor, 0, -1)]
        else:
            return cut(images, options.factor), torch.cat([labels] * options.factor**2)
        # Patches are concatenated position by position, so the labels repeat as whole blocks, not each by itself.
        return (
            torch.cat([cut(images[rows], factor) for factor, rows in parts]),
            torch.cat([labels[rows] for factor, rows in parts for _ in range(factor**2)]),
        )

    def check(self, tensors: Mapping[str, Tensor], shape: Shape) -> None:
        """Raise `DataError` if a stored image has another shape, or a pixel outside of [0, 1]."""
        check_stored_shape(tensors["images"], shape)
        # Enlarging interpolates, which keeps values in [0, 1] only if they start there.
        check_pixels(tensors["images"])


def cut(images: Tensor, factor: int) -> Tensor:
    """Return the ``factor``² patches of images (n, c, h, w), each enlarged to (h, w): first the first of each image."""
    height, width = images.shape[2:]
    padded = functional.pad(images, (0, -width % factor, 0, -height % factor), value=GREY)
    rows = padded.chunk(factor, dim=2)
    patches = torch.cat([patch for row in rows for patch in row.chunk(factor, dim=3)])
    return functional.interpolate(patches, size=(height, width), mode="bilinear", align_corners=False)


def factors_within(labels: Tensor, largest: int, bound: int) -> Tensor:
    """Return by which factor each image is cut, so that each class has at most ``bound`` training images if it can.

    The first images of a class are cut by the largest factor, as many as leave the others uncut; the next by less. As
    in the published code, an image's own place is not reused before the next factor, so that a few places stay free.
    """
    classes = labels.argmax(1) if labels.ndim > 1 else labels
    factors = torch.ones(len(labels), dtype=torch.long)
    for label in torch.unique(classes):
        rows = (classes == label).nonzero()[:, 0].to(factors.device)
        free = bound - len(rows)
        for factor in range(largest, 1, -1):
            count = min(max(free, 0) // factor**2, len(rows))
            factors[rows[:count]], rows = factor, rows[count:]
            free -= count * (factor**2 - 1)
    return factors


def check_stored_shape(images: Tensor, shape: Shape) -> None:
    """Raise `DataError` if stored images do not have a shape."""
    if tuple(images.shape[1:]) != shape:
        raise DataError(f"its stored images are {tuple(images.shape[1:])}, but have to be {shape}")
