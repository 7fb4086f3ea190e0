"""Convolutions of 3x3 with a quarter of the multiplications, and of 5x5 with a third, on a CPU.

F(4x4, 3x3) and F(2x2, 5x5) of A. Lavin and S. Gray, Fast Algorithms for Convolutional Neural Networks, CVPR 2016: a
tile of 4x4 pixels of the output takes 36 products for each pair of channels in place of 144; one of 2x2 pixels, 36 in
place of 100. Input, filters and the output's gradient are brought to 36 places a tile, at each of which one matrix
product stands for the convolution. `winograd.cpp` brings there and back; torch multiplies, as many tiles at a time as
stay in the cache. Rounding errors are ten times those of a plain convolution: 2e-6 of what comes out with 64 channels,
4e-6 with 512, in float32, and relative to the largest values of a tile.
"""

import ctypes
import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor

from harness.compute.native_code import library

SIDE, LANES, SIDES = 6, 16, (3, 5)
"""Places of a tile's side, channels that are computed at once, and pixels of a filter's side."""
VALUES_AT_ONCE = 2**14
"""Tiles at a time, times channels of input and output: their places then take 2.4 MB."""
FEWEST_CHANNELS = {3: 48, 5: 128}
"""By the filter's side: with fewer, more is spent on bringing pixels there than is saved."""
FEWEST_VALUES, CHANNELS_A_TILE = 7500, 16
"""Of a batch: tiles times channels, and channels for each of which it needs another tile: else weights cost more."""
MOST_VALUES = 4 * VALUES_AT_ONCE
"""Of one image, tiles times channels: beyond it they do not stay in the cache."""
FULLEST = 0.6
"""Share of the tiles' pixels that images have to fill."""

Kind = Literal["input", "output"]


def make_ready() -> None:
    """Have the code for it.

    Raises:
        OSError: it could not be compiled here.
    """
    _code("input", "to", SIDES[0])


def gains(images: Tensor, weight: Tensor) -> bool:
    """Whether their convolution is quicker by `convolve`, which asks for as much of them: decided by shapes alone."""
    if not _is_possible(images, weight):
        return False
    count, channels, height, width = images.shape
    step = _step(weight)
    tiles = _tiles(images, step)
    fills = height * width >= FULLEST * tiles * step**2
    narrow = min(channels, len(weight))
    wide = narrow >= FEWEST_CHANNELS[weight.shape[3]]
    many = count * tiles >= max(FEWEST_VALUES / narrow, narrow / CHANNELS_A_TILE)
    return wide and many and fills and tiles * (channels + len(weight)) <= MOST_VALUES


@torch.library.custom_op("ddbench::convolve", mutates_args=())
def convolve(images: Tensor, weight: Tensor) -> Tensor:
    """The convolution of ``images`` (n, in, height, width) with ``weight`` (out, in, side, side), padded to equal size.

    Channels in and out are multiples of `LANES`, the side is one of `SIDES`, all is float32 on a CPU. The output lies
    in memory as the images do, channels first or last. It has a first derivative only.

    Raises:
        ValueError: images or weight are not so.
        OSError: `make_ready` would.
    """
    if not _is_possible(images, weight):
        told = " and ".join(f"{tuple(one.shape)} {one.dtype} on {one.device}" for one in (images, weight))
        raise ValueError(f"no convolution by tiles of {told}")
    images, step = _dense(images), _step(weight)
    output = _output(images, weight)
    filters = _filters(weight.transpose(0, 1))
    size = _images_at_once(images, output, step)
    inputs, outputs = _room(images[:size], step), _room(output[:size], step)
    for part, given in zip(torch.split(images, size), torch.split(output, size), strict=True):
        there = _to_places("input", part, inputs, step)
        _from_places("output", given, torch.bmm(there, filters, out=outputs[:, : there.shape[1]]), step)
    return output


@convolve.register_fake
def _(images: Tensor, weight: Tensor) -> Tensor:
    return _output(images, weight)


@torch.library.custom_op("ddbench::convolve_backward", mutates_args=())
def _backward(images: Tensor, weight: Tensor, outer: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients by images and by weights, from that by the output."""
    images, outer, step = _dense(images), _dense(outer), _step(weight)
    of_images = torch.empty_like(images)
    filters = _filters(weight)
    of_filters = torch.empty_like(filters)
    size = _images_at_once(images, outer, step)
    inputs, outputs = _room(images[:size], step), _room(outer[:size], step)
    parts = zip(*(torch.split(whole, size) for whole in (images, outer, of_images)), strict=True)
    for earlier, (part, above, below) in enumerate(parts):
        there, outside = _to_places("input", part, inputs, step), _to_places("output", above, outputs, step)
        torch.baddbmm(of_filters, outside.transpose(1, 2), there, beta=min(earlier, 1), out=of_filters)
        _from_places("input", below, torch.bmm(outside, filters, out=there), step)
    of_weight = (of_filters.flatten(1).T @ _of_filter(weight.shape[3])).view(weight.shape)
    return of_images, of_weight.contiguous(memory_format=layout(weight))


@_backward.register_fake
def _(images: Tensor, weight: Tensor, outer: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(_dense(images)), torch.empty_like(_dense(weight))


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:  # noqa: ANN401
    ctx.save_for_backward(*inputs)


def _differentiate(ctx: Any, outer: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ANN401
    given: tuple[Tensor, Tensor] = _backward(*ctx.saved_tensors, outer)
    return given


convolve.register_autograd(_differentiate, setup_context=_keep)


def _is_possible(images: Tensor, weight: Tensor) -> bool:
    """Whether they are what the C++ code is made for."""
    if any(one.dim() != 4 or one.dtype != torch.float32 or one.device.type != "cpu" for one in (images, weight)):
        return False
    square = weight.shape[2] == weight.shape[3] in SIDES
    return square and images.shape[1] == weight.shape[1] and not any(n % LANES for n in weight.shape[:2])


def _dense(images: Tensor) -> Tensor:
    """The images, without gaps: channels last if they lie so, else first."""
    return images.contiguous(memory_format=layout(images))


def layout(images: Tensor) -> torch.memory_format:
    """Channels last if the images lie so in memory, else first."""
    last = images.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def _output(images: Tensor, weight: Tensor) -> Tensor:
    shape = len(images), len(weight), *images.shape[2:]
    return torch.empty(shape, dtype=images.dtype, device=images.device, memory_format=layout(images))


def _step(weight: Tensor) -> int:
    """Pixels of the output that a tile has on each side."""
    return SIDE + 1 - weight.shape[3]


def _tiles(images: Tensor, step: int) -> int:
    """Tiles of one image."""
    height, width = images.shape[2:]
    return math.ceil(height / step) * math.ceil(width / step)


def _images_at_once(images: Tensor, output: Tensor, step: int) -> int:
    """As many as stay in the cache, but of many channels enough that the filters are not all that is read."""
    channels = images.shape[1] + output.shape[1]
    tiles = max(VALUES_AT_ONCE // channels, channels // 4)
    return min(len(images), max(1, tiles // _tiles(images, step)))


def _room(images: Tensor, step: int) -> Tensor:
    """For their tiles, place by place: (36, tiles, channels)."""
    return images.new_empty(SIDE**2, len(images) * _tiles(images, step), images.shape[1])


def _to_places(kind: Kind, images: Tensor, room: Tensor, step: int) -> Tensor:
    """Fill as much of ``room`` as the images take, and return that."""
    filled = room[:, : len(images) * _tiles(images, step)]
    _code(kind, "to", SIDE + 1 - step)(*_given(images, filled))
    return filled


def _from_places(kind: Kind, images: Tensor, places: Tensor, step: int) -> None:
    """The transpose of `_to_places`."""
    _code(kind, "from", SIDE + 1 - step)(*_given(images, places))


def _given(images: Tensor, places: Tensor) -> tuple[int, ...]:
    last = layout(images) == torch.channels_last
    return *images.shape, last, images.data_ptr(), places.data_ptr(), places.stride(0)


@functools.cache
def _code(kind: Kind, way: Literal["to", "from"], side: int) -> Callable[..., None]:
    """Of `winograd.cpp`."""
    function = getattr(library(Path(__file__).with_suffix(".cpp")), f"{kind}_{way}_tiles_{side}")
    long, short, pointer = ctypes.c_int64, ctypes.c_int, ctypes.c_void_p
    function.argtypes, function.restype = [long, long, short, short, ctypes.c_bool, pointer, pointer, long], None
    return cast(Callable[..., None], function)


def _filters(weight: Tensor) -> Tensor:
    """Filters at their places: (36, a, b) from (a, b, side, side)."""
    first, second, side, _ = weight.shape
    return (_of_filter(side) @ weight.reshape(-1, side**2).T).view(SIDE**2, first, second)


@functools.cache
def _of_filter(side: int) -> Tensor:
    """From the values of a filter to its places: G times G of the paper, (36, side squared)."""
    points = torch.tensor([0.0, 1, -1, 2, -2], dtype=torch.float64, device="cpu")
    scales = torch.tensor([1 / 4, -1 / 6, -1 / 6, 1 / 24, 1 / 24], dtype=torch.float64, device="cpu")
    infinity = torch.eye(side, dtype=torch.float64, device="cpu")[-1:]
    matrix = torch.cat([scales[:, None] * points[:, None] ** torch.arange(side, device="cpu"), infinity])
    return torch.kron(matrix, matrix).float()
