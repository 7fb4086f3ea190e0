"""Networks whose paths drop at random while they train: DropPath with its shortcuts (Zhong and Liu, 2023).

A path is what a shortcut leads around: the branch of a residual block, or in a plain network a pair of convolutions
with all that follows them up to the next pair, around which a *virtual* shortcut is laid for the training alone. The
first of an odd number of convolutions is no part of a pair, like the stem of a residual network.

A residual block is a module with a ``branch`` and a ``shortcut`` whose sum goes through a ReLU, or one with
``branches``: the names of the parts that it adds to what leads around them, such as the two of a transformer's block.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from harness import Architecture, Network, Options, Problem, Shape


class PathNetwork(Network):
    """A network with paths that drop while it trains; in evaluation mode nothing does.

    Args:
        network: a network with a ``body`` of layers in sequence, whose layers and classifier it takes over.
        shape: shape of an image (c, h, w).
        improved: whether the shortcuts of residual blocks that reduce the size are replaced.
        drops: whether paths drop; without, no random number is drawn and plain networks get no shortcuts.
    """

    def __init__(self, network: Network, shape: Shape, *, improved: bool, drops: bool) -> None:
        super().__init__()
        layers = layers_of(network)
        assert layers is not None, "checked by `why_no_paths`"
        self.classifier = network.classifier
        shapes = _shapes(layers, shape)
        self.body = nn.Sequential(
            *(
                _path(part, shapes[first], shapes[first + len(part)], improved, drops)
                for first, part in _parts(layers, drops)
            )
        )

    def features(self, images: Tensor) -> Tensor:  # type: ignore[override]  # the base class adds taps
        """Return the flattened output of the body, (n, features), for images (n, c, h, w)."""
        vectors: Tensor = self.body(images).flatten(1)
        return vectors

    def keep(self, probability: float) -> None:
        """Set the probability, in (0, 1], with which each path is kept for an image."""
        for path in self.modules():
            if isinstance(path, ResidualPath | AddedPath | VirtualPath):
                path.probability = probability


class PathArchitecture(Architecture[Options]):
    """The architecture of another one's networks with paths; initial weights that both have are the same."""

    def __init__(self, architecture: Architecture[Any], *, improved: bool, drops: bool) -> None:
        super().__init__(Options())
        self.architecture, self.improved, self.drops = architecture, improved, drops

    @property
    def augmentations(self) -> Mapping[str, str]:
        """The augmentations of the architecture itself."""
        return self.architecture.augmentations

    def network(self, shape: Shape, classes: int) -> Network:
        """Build a network for images of ``shape`` (channels, height, width)."""
        # The base first: the weights of shortcuts are drawn after all of its own.
        base = self.architecture.network(shape, classes)
        return PathNetwork(base, shape, improved=self.improved, drops=self.drops)


class ResidualPath(nn.Module):
    """A residual block whose branch is multiplied by Bernoulli(p)/p for each image while it trains.

    Args:
        branch: maps (n, c, h, w) to (n, d, ...).
        shortcut: maps the same input to maps of the same shape.
        drops: whether the branch is ever dropped.
    """

    def __init__(self, branch: nn.Module, shortcut: nn.Module, *, drops: bool) -> None:
        super().__init__()
        self.branch, self.shortcut, self.drops, self.probability = branch, shortcut, drops, 1.0

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the ReLU of the sum, for maps (n, c, h, w)."""
        branch = self.branch(inputs)
        if self.training and self.drops:
            branch = branch * (_keep_mask(branch, self.probability) / self.probability)
        return torch.relu(branch + self.shortcut(inputs))


class AddedPath(nn.Module):
    """A part of a residual block, whose output is multiplied by Bernoulli(p)/p for each image while it trains.

    Args:
        branch: maps (n, ...) to (n, ...), which the block adds to something.
    """

    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.branch, self.probability = branch, 1.0

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the output for inputs (n, ...)."""
        branch: Tensor = self.branch(inputs)
        return branch * (_keep_mask(branch, self.probability) / self.probability) if self.training else branch


class VirtualPath(nn.Module):
    """Layers of a plain network that a shortcut replaces for some images while it trains: m branch + (1 - m) shortcut.

    m is Bernoulli(p) for each image. In evaluation mode the output is that of the layers alone.

    Args:
        branch: maps (n, c, h, w) to (n, d, ...).
        shortcut: maps the same input to maps of the same shape.
    """

    def __init__(self, branch: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.branch, self.shortcut, self.probability = branch, shortcut, 1.0

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the output for maps (n, c, h, w)."""
        branch: Tensor = self.branch(inputs)
        if not self.training:
            return branch
        # Drawn with probability 1 too: a network that draws at some time must be known to draw.
        mask = _keep_mask(branch, self.probability)
        mixed: Tensor = mask * branch + (1 - mask) * self.shortcut(inputs)
        return mixed


def _keep_mask(branch: Tensor, probability: float) -> Tensor:
    """Return 1 for images whose path is kept and 0 for others, (n, 1, ...), from the process-wide generator."""
    drawn = torch.rand(len(branch), *[1] * (branch.ndim - 1), dtype=branch.dtype, device=branch.device)
    return (drawn < probability).to(branch.dtype)


def why_no_paths(problem: Problem, architecture: Architecture[Any]) -> str | None:
    """Return why networks of an architecture have no paths to drop, as a phrase; None if they have some."""
    with torch.device("meta"):
        network = architecture.network(problem.shape, len(problem.classes))
    layers = layers_of(network)
    if layers is None:
        return "its layers are not in sequence, so that no path can be seen"
    if not any(map(_is_residual, layers)) and any(map(_hides_convolutions, layers)):
        return "it has convolutions in blocks that are not residual, so that no shortcut can lead around them"
    if not any(_is_path(part) for _, part in _parts(layers, drops=True)):
        return "it has neither residual blocks nor two convolutions in turn, so that no path can drop"
    return None


def why_no_shortcuts(problem: Problem, architecture: Architecture[Any]) -> str | None:
    """Return why the shortcuts of an architecture's networks, if any, cannot be seen, as a phrase; None if they can."""
    with torch.device("meta"):
        network = architecture.network(problem.shape, len(problem.classes))
    if layers_of(network) is None:
        return "its layers are not in sequence, so that no shortcut can be seen: set improved=false"
    return None


def layers_of(network: Network) -> list[nn.Module] | None:
    """Return the layers of a network up to its classifier, in sequence; None if it has no such ``body``."""
    body = getattr(network, "body", None)
    return list(body) if isinstance(body, nn.Sequential) else None


def _is_residual(layer: nn.Module) -> bool:
    return ends_in_relu(layer) or bool(_branches(layer))


def ends_in_relu(layer: nn.Module) -> bool:
    """Return whether a layer is a residual block whose sum goes through a ReLU."""
    return all(isinstance(getattr(layer, name, None), nn.Module) for name in ("branch", "shortcut"))


def _branches(layer: nn.Module) -> tuple[str, ...]:
    """Return the names of the parts that a block adds to what leads around them."""
    names: tuple[str, ...] = getattr(layer, "branches", ())
    return names


def _hides_convolutions(layer: nn.Module) -> bool:
    return any(part is not layer and isinstance(part, nn.Conv2d) for part in layer.modules())


def _is_path(part: Sequence[nn.Module]) -> bool:
    return sum(isinstance(layer, nn.Conv2d) for layer in part) == 2 or any(map(_is_residual, part))


def _parts(layers: Sequence[nn.Module], drops: bool) -> Iterator[tuple[int, list[nn.Module]]]:
    """Yield the layers in groups, each with the index of its first: a path, or layers that are in none."""
    convolutions = [index for index, layer in enumerate(layers) if isinstance(layer, nn.Conv2d)]
    if not drops or any(map(_is_residual, layers)) or len(convolutions) < 2:
        yield from ((index, [layer]) for index, layer in enumerate(layers))
        return
    starts = convolutions[len(convolutions) % 2 :: 2]
    yield from ((index, [layer]) for index, layer in enumerate(layers[: starts[0]]))
    for start, end in zip(starts, [*starts[1:], len(layers)], strict=True):
        yield start, list(layers[start:end])


def _shapes(layers: Sequence[nn.Module], shape: Shape) -> list[tuple[int, ...]]:
    """Return the shape of the input of each layer, without the image's index, and of the last one's output."""
    shapes: list[tuple[int, ...]] = [shape]
    device = next((weight.device for layer in layers for weight in layer.parameters()), torch.device("cpu"))
    maps, modes = torch.zeros(2, *shape, device=device), [layer.training for layer in layers]
    with torch.no_grad():
        for layer in layers:
            maps = layer.eval()(maps)
            shapes.append(tuple(maps.shape[1:]))
    for layer, mode in zip(layers, modes, strict=True):
        layer.train(mode)
    return shapes


def _path(
    part: list[nn.Module], inputs: tuple[int, ...], outputs: tuple[int, ...], improved: bool, drops: bool
) -> nn.Module:
    """Return the module that replaces a group of layers."""
    first: Any = part[0]
    if len(part) == 1 and _branches(first):
        if improved and inputs[1:] != outputs[1:] and getattr(first, "projection", None) is not None:
            first.projection = _shortcut(inputs, outputs, first.branch)
        for name in _branches(first) if drops else ():
            setattr(first, name, AddedPath(getattr(first, name)))
        return part[0]
    if len(part) == 1 and _is_residual(first):
        shortcut = first.shortcut
        if improved and inputs[1:] != outputs[1:]:
            shortcut = _shortcut(inputs, outputs, first.branch)
        return ResidualPath(first.branch, shortcut, drops=drops) if drops or shortcut is not first.shortcut else first
    if len(part) == 1:
        return part[0]
    branch = nn.Sequential(*part)
    return VirtualPath(branch, nn.Identity() if inputs == outputs else _shortcut(inputs, outputs, branch))


def _shortcut(inputs: tuple[int, ...], outputs: tuple[int, ...], branch: nn.Module) -> nn.Module:
    """Return max pooling to the size of the outputs, a 1x1 convolution, and the branch's kind of norm."""
    pool = nn.Identity() if inputs[1:] == outputs[1:] else nn.AdaptiveMaxPool2d((outputs[1], outputs[2]))
    norm = next((layer for layer in branch.modules() if _is_norm(layer)), None)
    return nn.Sequential(
        pool, nn.Conv2d(inputs[0], outputs[0], 1, bias=norm is None), *([_norm_like(norm, outputs)] if norm else [])
    )


def _is_norm(layer: nn.Module) -> bool:
    return isinstance(layer, _BatchNorm | nn.GroupNorm | nn.LayerNorm)


def _norm_like(norm: nn.Module, outputs: tuple[int, ...]) -> nn.Module:
    if isinstance(norm, nn.GroupNorm):
        is_instance = norm.num_groups == norm.num_channels
        # Instance norm makes a constant of a single pixel, so it is left out there.
        if is_instance and outputs[1:] == (1, 1):
            return nn.Identity()
        return nn.GroupNorm(outputs[0] if is_instance else norm.num_groups, outputs[0])
    return nn.LayerNorm(list(outputs)) if isinstance(norm, nn.LayerNorm) else nn.BatchNorm2d(outputs[0])
