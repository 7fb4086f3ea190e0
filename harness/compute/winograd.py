"""Winograd convolutions on a CPU: 3x3 with a quarter of the multiplications, 5x5 with about a third.

F(4x4, 3x3) and F(2x2, 5x5) of A. Lavin and S. Gray, Fast Algorithms for Convolutional Neural Networks, CVPR 2016: a
tile of 4x4 pixels of the output takes 36 products for each pair of channels in place of 144; one of 2x2 pixels, 36 in
place of 100. Input, filters and the output's gradient are transformed to 36 places per tile, at each of which one
matrix product stands for the convolution. `winograd.cpp` transforms there and back; torch multiplies, as many tiles at
a time as stay in the cache. Rounding errors are ten times those of a plain convolution: 2e-6 of the output with 64
channels, 4e-6 with 512, in float32, and relative to the largest values of a tile.

In the paper's notation an output tile is Y = A^T [(G g G^T) * (B^T d B)] A, with the filter g, the input tile d and the
elementwise product *. Summed over input channels, * is one matrix product for each of the 36 places.
"""

import ctypes
import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor

from harness.compute.native_code import compiled_library

SIDE, LANES, SIDES = 6, 16, (3, 5)
"""Places along a tile's side, channels that are computed at once, and the possible sides of a filter in pixels."""
VALUES_AT_ONCE = 2**14
"""Tiles at a time, times channels of input and output; their places then take 2.4 MB, which caches hold."""
FEWEST_CHANNELS = {3: 48, 5: 128}
"""Fewest channels by the filter's side; with fewer, the transforms cost more than is saved."""
FEWEST_VALUES, CHANNELS_A_TILE = 7500, 16
"""A batch needs this many tiles times channels, and a tile for this many channels: else filters cost more."""
MOST_VALUES = 4 * VALUES_AT_ONCE
"""Most tiles times channels of one image; with more, they do not stay in the cache."""
MIN_FILLED_SHARE = 0.6
"""Smallest share of the tiles' pixels that images have to fill."""

Kind = Literal["input", "output"]


def load_native_code() -> None:
    """Compile and load the native code.

    Raises:
        OSError: it cannot be compiled on this machine.
    """
    _native_function("input", "to", SIDES[0])


def is_faster(images: Tensor, weight: Tensor) -> bool:
    """Return whether `convolve` can convolve these tensors and is faster than torch, by their shapes alone."""
    if not _is_possible(images, weight):
        return False
    count, channels, height, width = images.shape
    step = _tile_step(weight)
    tiles = _tiles(images, step)
    fills = height * width >= MIN_FILLED_SHARE * tiles * step**2
    narrow = min(channels, len(weight))
    wide = narrow >= FEWEST_CHANNELS[weight.shape[3]]
    many = count * tiles >= max(FEWEST_VALUES / narrow, narrow / CHANNELS_A_TILE)
    return wide and many and fills and tiles * (channels + len(weight)) <= MOST_VALUES


@torch.library.custom_op("ddbench::convolve", mutates_args=())
def convolve(images: Tensor, weight: Tensor) -> Tensor:
    """Return the convolution of ``images`` (n, in, h, w) with ``weight`` (out, in, side, side), padded to equal size.

    It has a first derivative only.

    Args:
        images: float32 on a CPU, channels first or last; ``in`` is a multiple of `LANES`.
        weight: float32 on a CPU; ``out`` is a multiple of `LANES`, and ``side`` one of `SIDES`.

    Returns:
        The output (n, out, h, w), in the memory layout of the images.

    Raises:
        ValueError: images or weight are none of these.
        OSError: the native code cannot be compiled.
    """
    # A custom operator, and not an autograd.Function, because torch.compile treats it as one opaque call.
    if not _is_possible(images, weight):
        tensors = " and ".join(f"{tuple(part.shape)} {part.dtype} on {part.device}" for part in (images, weight))
        raise ValueError(f"no convolution by tiles of {tensors}")
    images, step = _without_gaps(images), _tile_step(weight)
    output = _output(images, weight)
    filters = _filters(weight.transpose(0, 1))
    size = _images_at_once(images, output, step)
    inputs, outputs = _workspace(images[:size], step), _workspace(output[:size], step)
    for part, output_part in zip(torch.split(images, size), torch.split(output, size), strict=True):
        there = _to_places("input", part, inputs, step)
        # bmm over the 36 places: (tiles, in) @ (in, out). The same memory serves all parts, so it stays in the cache.
        _from_places("output", output_part, torch.bmm(there, filters, out=outputs[:, : there.shape[1]]), step)
    return output


@convolve.register_fake
def _(images: Tensor, weight: Tensor) -> Tensor:
    return _output(images, weight)


@torch.library.custom_op("ddbench::convolve_backward", mutates_args=())
def _backward(images: Tensor, weight: Tensor, outer: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients by images and by weight, from the gradient ``outer`` (n, out, h, w) by the output."""
    # The convolution is linear in both, so its gradients are the transposed transforms around the same products: no
    # second set of algorithms, and again a quarter of the multiplications.
    images, outer, step = _without_gaps(images), _without_gaps(outer), _tile_step(weight)
    of_images = torch.empty_like(images)
    filters = _filters(weight)
    of_filters = torch.empty_like(filters)
    size = _images_at_once(images, outer, step)
    inputs, outputs = _workspace(images[:size], step), _workspace(outer[:size], step)
    parts = zip(*(torch.split(whole, size) for whole in (images, outer, of_images)), strict=True)
    for earlier, (part, above, below) in enumerate(parts):
        there, outside = _to_places("input", part, inputs, step), _to_places("output", above, outputs, step)
        # beta 0 at the first part: the memory of of_filters holds anything until then.
        torch.baddbmm(of_filters, outside.transpose(1, 2), there, beta=min(earlier, 1), out=of_filters)
        _from_places("input", below, torch.bmm(outside, filters, out=there), step)
    of_weight = (of_filters.flatten(1).T @ _filter_matrix(weight.shape[3])).view(weight.shape)
    return of_images, of_weight.contiguous(memory_format=layout(weight))


@_backward.register_fake
def _(images: Tensor, weight: Tensor, outer: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(_without_gaps(images)), torch.empty_like(_without_gaps(weight))


def _save(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:  # noqa: ANN401
    ctx.save_for_backward(*inputs)


def _differentiate(ctx: Any, outer: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ANN401
    gradients: tuple[Tensor, Tensor] = _backward(*ctx.saved_tensors, outer)
    return gradients


convolve.register_autograd(_differentiate, setup_context=_save)


def _is_possible(images: Tensor, weight: Tensor) -> bool:
    """Return whether the C++ code can convolve these tensors."""
    if any(part.dim() != 4 or part.dtype != torch.float32 or part.device.type != "cpu" for part in (images, weight)):
        return False
    square = weight.shape[2] == weight.shape[3] in SIDES
    return square and images.shape[1] == weight.shape[1] and not any(n % LANES for n in weight.shape[:2])


def _without_gaps(images: Tensor) -> Tensor:
    """Return the images without gaps in memory, in their `layout`."""
    return images.contiguous(memory_format=layout(images))


def layout(images: Tensor) -> torch.memory_format:
    """Return the memory layout of images: channels last if they are, otherwise channels first."""
    last = images.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def _output(images: Tensor, weight: Tensor) -> Tensor:
    shape = len(images), len(weight), *images.shape[2:]
    return torch.empty(shape, dtype=images.dtype, device=images.device, memory_format=layout(images))


def _tile_step(weight: Tensor) -> int:
    """Return the pixels of the output along a tile's side: 4 for a 3x3 filter, 2 for 5x5."""
    return SIDE + 1 - weight.shape[3]


def _tiles(images: Tensor, step: int) -> int:
    """Return the number of tiles of one image."""
    height, width = images.shape[2:]
    return math.ceil(height / step) * math.ceil(width / step)


def _images_at_once(images: Tensor, output: Tensor, step: int) -> int:
    """Return how many images are transformed and multiplied at a time."""
    # As many as stay in the cache; with many channels more, so that not most of what is read are the filters.
    channels = images.shape[1] + output.shape[1]
    tiles = max(VALUES_AT_ONCE // channels, channels // 4)
    return min(len(images), max(1, tiles // _tiles(images, step)))


def _workspace(images: Tensor, step: int) -> Tensor:
    """Return memory for the tiles of images, place by place: (36, tiles, channels)."""
    return images.new_empty(SIDE**2, len(images) * _tiles(images, step), images.shape[1])


def _to_places(kind: Kind, images: Tensor, room: Tensor, step: int) -> Tensor:
    """Transform images (n, c, h, w) to their places, and return the part of ``room`` that they fill."""
    filled = room[:, : len(images) * _tiles(images, step)]
    _native_function(kind, "to", SIDE + 1 - step)(*_native_arguments(images, filled))
    return filled


def _from_places(kind: Kind, images: Tensor, places: Tensor, step: int) -> None:
    """Apply the transpose of `_to_places`, from ``places`` (36, tiles, channels) into ``images``."""
    _native_function(kind, "from", SIDE + 1 - step)(*_native_arguments(images, places))


def _native_arguments(images: Tensor, places: Tensor) -> tuple[int, ...]:
    """Return the arguments of the C++ functions, whose pointers are valid as long as the tensors are."""
    last = layout(images) == torch.channels_last
    return *images.shape, last, images.data_ptr(), places.data_ptr(), places.stride(0)


@functools.cache
def _native_function(kind: Kind, way: Literal["to", "from"], side: int) -> Callable[..., None]:
    """Return a function of `winograd.cpp`."""
    function = getattr(compiled_library(Path(__file__).with_suffix(".cpp")), f"{kind}_{way}_tiles_{side}")
    long, short, pointer = ctypes.c_int64, ctypes.c_int, ctypes.c_void_p
    function.argtypes, function.restype = [long, long, short, short, ctypes.c_bool, pointer, pointer, long], None
    return cast(Callable[..., None], function)


def _filters(weight: Tensor) -> Tensor:
    """Transform filters (a, b, side, side) to their places (36, a, b): G g G^T of the paper."""
    first, second, side, _ = weight.shape
    return (_filter_matrix(side) @ weight.reshape(-1, side**2).T).view(SIDE**2, first, second)


@functools.cache
def _filter_matrix(side: int) -> Tensor:
    """Return the matrix (36, side * side) from a filter's values to its places: the Kronecker product of G with G."""
    # Interpolation at 0, 1, -1, 2, -2 and infinity, the paper's points. In float64, and rounded once at the end.
    points = torch.tensor([0.0, 1, -1, 2, -2], dtype=torch.float64, device="cpu")
    scales = torch.tensor([1 / 4, -1 / 6, -1 / 6, 1 / 24, 1 / 24], dtype=torch.float64, device="cpu")
    infinity = torch.eye(side, dtype=torch.float64, device="cpu")[-1:]
    matrix = torch.cat([scales[:, None] * points[:, None] ** torch.arange(side, device="cpu"), infinity])
    return torch.kron(matrix, matrix).float()
