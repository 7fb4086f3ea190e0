"""Convolutions of 3x3 with a quarter of the multiplications, on a CPU.

F(4x4, 3x3) of A. Lavin and S. Gray, Fast Algorithms for Convolutional Neural Networks, CVPR 2016: a tile of 4x4 pixels
of the output takes 36 products for each pair of channels in place of 144. Input, weights and the output's gradient are
brought to 36 places a tile, at each of which one matrix product stands for the convolution. `winograd.cpp` brings there
and back; torch multiplies, as many tiles at a time as stay in the cache. Rounding errors are ten times those of a plain
convolution: 2e-6 of what comes out, in float32, and relative to the largest values of a tile.
"""

import ctypes
import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from harness.learning.native import library

SIDE, STEP, LANES = 6, 4, 16
"""Places and pixels of a tile's side, and channels that are computed at once."""
VALUES_AT_ONCE = 2**14
"""Tiles at a time, times channels of input and output: their places then take 2.4 MB."""
FEWEST_CHANNELS, FEWEST_TILES = 32, 24
"""Of a batch, below which bringing it and the weights there costs more than is saved."""
CHANNELS_A_TILE = 16
"""Channels for each of which a batch needs another tile: there are the more weights to bring."""
MOST_VALUES = 4 * VALUES_AT_ONCE
"""Of one image, tiles times channels: beyond it they do not stay in the cache."""
FULLEST = 0.6
"""Share of the tiles' pixels that images have to fill."""

Kind = Literal["input", "output"]
Pair = int | Sequence[int] | str
ONE = (1, (1, 1), [1, 1])


def make_ready() -> None:
    """Have the code for it.

    Raises:
        OSError: it could not be compiled here.
    """
    _code("input", "to")


class QuickConvolutions(TorchFunctionMode):
    """Computes this way each convolution that gains by it; what comes out can be differentiated once."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        kwargs = kwargs or {}
        if func is torch.conv2d and gains(*args, **kwargs):
            func = _convolution
        return func(*args, **kwargs)


def gains(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> bool:
    """Whether a convolution, given as to `torch.conv2d`, is computed this way: decided by shapes and types alone."""
    plain = weight.shape[2:] == (3, 3) and stride in ONE and dilation in ONE and groups == 1
    if not plain or padding not in ("same", *ONE) or input.dim() != 4 or weight.shape[1] != input.shape[1]:
        return False
    if weight.dtype != input.dtype or (bias is not None and (bias.dtype != input.dtype or len(bias) != len(weight))):
        return False
    if input.dtype != torch.float32 or input.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        return False
    count, channels, height, width = input.shape
    tiles = _tiles(input)
    fills = height * width >= FULLEST * tiles * STEP**2
    narrow = min(channels, len(weight))
    wide = narrow >= FEWEST_CHANNELS and channels % LANES == len(weight) % LANES == 0
    many = count * tiles >= max(FEWEST_TILES, narrow // CHANNELS_A_TILE)
    return wide and many and fills and tiles * (channels + len(weight)) <= MOST_VALUES


def _convolution(input: Tensor, weight: Tensor, bias: Tensor | None = None, *_: Any, **__: Any) -> Tensor:  # noqa: ANN401
    given: Tensor = convolve(input, weight)
    return given if bias is None else given + bias[:, None, None]


@torch.library.custom_op("ddbench::convolve", mutates_args=())
def convolve(images: Tensor, weight: Tensor) -> Tensor:
    """The convolution of ``images`` (n, in, height, width) with ``weight`` (out, in, 3, 3), padded by one zero.

    Channels in and out are multiples of `LANES`, all is float32 on a CPU. The output lies in memory as the images do,
    channels first or last. It has a first derivative only.

    Raises:
        OSError: `make_ready` would.
    """
    images = _dense(images)
    output = _output(images, weight)
    matrices = _weight_to_places(weight.transpose(0, 1))
    size = _images_at_once(images, output)
    inputs, outputs = _room(images[:size]), _room(output[:size])
    for part, given in zip(torch.split(images, size), torch.split(output, size), strict=True):
        there = _to_places("input", part, inputs)
        _from_places("output", given, torch.bmm(there, matrices, out=outputs[:, : there.shape[1]]))
    return output


@convolve.register_fake
def _(images: Tensor, weight: Tensor) -> Tensor:
    return _output(images, weight)


@torch.library.custom_op("ddbench::convolve_backward", mutates_args=())
def _backward(images: Tensor, weight: Tensor, outer: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients by images and by weights, from that by the output."""
    images, outer = _dense(images), _dense(outer)
    of_images = torch.empty_like(images)
    matrices = _weight_to_places(weight)
    size = _images_at_once(images, outer)
    inputs, outputs = _room(images[:size]), _room(outer[:size])
    of_matrices = torch.zeros_like(matrices)
    for part, above, below in zip(*(torch.split(whole, size) for whole in (images, outer, of_images)), strict=True):
        there, outside = _to_places("input", part, inputs), _to_places("output", above, outputs)
        torch.baddbmm(of_matrices, outside.transpose(1, 2), there, out=of_matrices)
        _from_places("input", below, torch.bmm(outside, matrices, out=there))
    return of_images, (of_matrices.flatten(1).T @ _of_weight()).view_as(weight)


@_backward.register_fake
def _(images: Tensor, weight: Tensor, outer: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(_dense(images)), weight.new_empty(weight.shape)


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:  # noqa: ANN401
    ctx.save_for_backward(*inputs)


def _differentiate(ctx: Any, outer: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ANN401
    given: tuple[Tensor, Tensor] = _backward(*ctx.saved_tensors, outer)
    return given


convolve.register_autograd(_differentiate, setup_context=_keep)


def _dense(images: Tensor) -> Tensor:
    """The images, without gaps: channels last if they lie so, else first."""
    return images.contiguous(memory_format=_layout(images))


def _layout(images: Tensor) -> torch.memory_format:
    last = images.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def _output(images: Tensor, weight: Tensor) -> Tensor:
    shape = len(images), len(weight), *images.shape[2:]
    return torch.empty(shape, dtype=images.dtype, device=images.device, memory_format=_layout(images))


def _tiles(images: Tensor) -> int:
    """Tiles of one image."""
    height, width = images.shape[2:]
    return math.ceil(height / STEP) * math.ceil(width / STEP)


def _images_at_once(images: Tensor, output: Tensor) -> int:
    """As many as stay in the cache, but of many channels enough that the weights are not all that is read."""
    channels = images.shape[1] + output.shape[1]
    tiles = max(VALUES_AT_ONCE // channels, channels // 4)
    return min(len(images), max(1, tiles // _tiles(images)))


def _room(images: Tensor) -> Tensor:
    """For their tiles, place by place: (36, tiles, channels)."""
    return images.new_empty(SIDE**2, len(images) * _tiles(images), images.shape[1])


def _to_places(kind: Kind, images: Tensor, room: Tensor) -> Tensor:
    """Fill as much of ``room`` as the images take, and return that."""
    filled = room[:, : len(images) * _tiles(images)]
    _code(kind, "to")(*_given(images, filled))
    return filled


def _from_places(kind: Kind, images: Tensor, places: Tensor) -> None:
    """The transpose of `_to_places`."""
    _code(kind, "from")(*_given(images, places))


def _given(images: Tensor, places: Tensor) -> tuple[int, ...]:
    last = _layout(images) == torch.channels_last
    return *images.shape, last, images.data_ptr(), places.data_ptr(), places.stride(0)


@functools.cache
def _code(kind: Kind, way: Literal["to", "from"]) -> Callable[..., None]:
    """Of `winograd.cpp`."""
    function = getattr(library(Path(__file__).with_suffix(".cpp")), f"{kind}_{way}_tiles")
    size, side, pointer = ctypes.c_int64, ctypes.c_int, ctypes.c_void_p
    function.argtypes, function.restype = [size, size, side, side, ctypes.c_bool, pointer, pointer, size], None
    return cast(Callable[..., None], function)


def _weight_to_places(weight: Tensor) -> Tensor:
    """(36, a, b) from (a, b, 3, 3)."""
    return (_of_weight() @ weight.reshape(-1, 9).T).view(SIDE**2, *weight.shape[:2])


@functools.cache
def _of_weight() -> Tensor:
    """From the 9 values of a filter to its 36 places: G times G of the paper."""
    sixth, twelfth, least = 1 / 6, 1 / 12, 1 / 24
    rows = [[1 / 4, 0, 0], [-sixth, -sixth, -sixth], [-sixth, sixth, -sixth]]
    rows += [[least, twelfth, sixth], [least, -twelfth, sixth], [0, 0, 1]]
    matrix = torch.tensor(rows, dtype=torch.float32, device="cpu")
    return torch.kron(matrix, matrix)
