"""A small vision transformer: Dosovitskiy et al., ICLR 2021, with the sizes of DC-BENCH (Cui et al., NeurIPS 2022)."""

from typing import Self

import torch
from pydantic import model_validator
from torch import Tensor, nn

from harness.architectures.layers import LayeredNetwork
from harness.errors import DataError
from harness.types.network import Architecture
from harness.types.options import Options, option
from harness.types.problem import Shape

EMBEDDING_DEVIATION = 0.02
"""Standard deviation of the initial positions and class token, as in the authors' code."""


class ViTOptions(Options):
    """Options of `ViT`."""

    patch: int = option(4, "side of a patch in pixels, which divides the sides of the images", source="DC-BENCH", ge=1)
    dim: int = option(512, "values of a token", source="DC-BENCH", ge=1)
    depth: int = option(6, "blocks of attention and a multilayer perceptron", source="DC-BENCH", ge=1)
    heads: int = option(8, "heads of each attention, which divide dim", source="DC-BENCH", ge=1)
    mlp: int = option(512, "hidden units of each perceptron", source="DC-BENCH", ge=1)
    dropout: float = option(0.1, "share of values that are dropped in training", source="DC-BENCH", ge=0, lt=1)

    @model_validator(mode="after")
    def _heads_divide_dim(self) -> Self:
        if self.dim % self.heads:
            raise ValueError(f"dim={self.dim} must be a multiple of heads={self.heads}")
        return self


class Tokens(nn.Module):
    """Embeds patches as tokens, behind a class token, and adds their positions."""

    def __init__(self, channels: int, patches: int, options: ViTOptions) -> None:
        super().__init__()
        self.embed = nn.Conv2d(channels, options.dim, options.patch, options.patch)
        self.first = nn.Parameter(EMBEDDING_DEVIATION * torch.randn(1, 1, options.dim))
        self.positions = nn.Parameter(EMBEDDING_DEVIATION * torch.randn(1, patches + 1, options.dim))
        self.dropout = nn.Dropout(options.dropout)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (n, c, h, w) to tokens (n, 1 + patches, dim)."""
        patches = self.embed(images).flatten(2).transpose(1, 2)
        tokens: Tensor = self.dropout(torch.cat([self.first.expand(len(images), -1, -1), patches], 1) + self.positions)
        return tokens


class Attention(nn.Module):
    """Attention of all tokens to all, by several heads."""

    # Written out: torch's fused attention has no second derivative, which gradient matching needs.

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.inputs = nn.Linear(dim, 3 * dim, bias=False)
        self.output = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (n, t, dim) to (n, t, dim)."""
        # (n, t, 3 dim) -> three of (n, heads, t, dim / heads)
        queries, keys, values = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in self.inputs(tokens).chunk(3, 2)
        )
        weights = (queries @ keys.transpose(2, 3) / queries.shape[-1] ** 0.5).softmax(3)  # (n, heads, t, t)
        mixed: Tensor = self.output((weights @ values).transpose(1, 2).flatten(2))
        return mixed


class EncoderBlock(nn.Module):
    """Attention and a perceptron, each with layer norm before it and a shortcut around it."""

    branches = ("attention", "perceptron")
    """The parts that a shortcut leads around."""

    def __init__(self, options: ViTOptions) -> None:
        super().__init__()
        dim, dropout = options.dim, options.dropout
        self.attention = nn.Sequential(nn.LayerNorm(dim), Attention(dim, options.heads), nn.Dropout(dropout))
        self.perceptron = nn.Sequential(
            nn.LayerNorm(dim), nn.Linear(dim, options.mlp), nn.GELU(), nn.Dropout(dropout),
            nn.Linear(options.mlp, dim), nn.Dropout(dropout),
        )  # fmt: skip

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (n, t, dim) to (n, t, dim)."""
        tokens = tokens + self.attention(tokens)
        total: Tensor = tokens + self.perceptron(tokens)
        return total


class ClassToken(nn.Module):
    """Layer norm of the first token."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (n, t, dim) to (n, dim)."""
        vectors: Tensor = self.norm(tokens[:, 0])
        return vectors


class ViT(Architecture[ViTOptions]):
    """Blocks of attention on patches, then one linear layer on the class token.

    DC-BENCH's sizes have 9.5 million parameters for colour images of 32x32 and ten classes.

    Taps: ``stem``, the embedded patches (n, 1 + patches, dim), and ``block1`` to the depth, the output of each block.
    The features are the first token (n, dim) after a layer norm.
    """

    Options = ViTOptions

    def network(self, shape: Shape, classes: int) -> LayeredNetwork:
        """Build a network for images of ``shape`` (c, h, w).

        Raises:
            DataError: the patches do not divide the images.
        """
        options, (channels, height, width) = self.options, shape
        if height % options.patch or width % options.patch:
            raise DataError(
                f"vit[patch={options.patch}] cannot use images of {height}x{width}: resize them to multiples of "
                f"{options.patch} pixels, or set patch to a divisor of both sides"
            )
        tokens = Tokens(channels, (height // options.patch) * (width // options.patch), options)
        blocks = [EncoderBlock(options) for _ in range(options.depth)]
        taps = {"stem": "body.0"} | {f"block{block}": f"body.{block}" for block in range(1, options.depth + 1)}
        body = nn.Sequential(tokens, *blocks, ClassToken(options.dim))
        return LayeredNetwork(body, nn.Linear(options.dim, classes), taps)
