"""Architectures and the networks that they build."""

import functools
import inspect
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar, overload

import torch
from torch import Tensor, nn

from harness.errors import PluginError, UsageError
from harness.types.options import Options
from harness.types.problem import Shape
from harness.types.seeds import global_rng_from

O = TypeVar("O", bound=Options)  # noqa: E741

LAST_TAP = "features"
"""The tap that every network has: the classifier's input, which `Network.features` returns without taps."""


class Network(nn.Module):
    """A classifier in two parts: features, and a classifier on top of them.

    Subclasses set ``classifier`` and define ``features(images)``, which maps images (n, channels, height, width) to
    vectors (n, dimension). Logits are not normalised. Outputs of layers in between are *taps*: a subclass names the
    submodules by `name_taps`, and the base class adds the argument ``taps`` to its ``features``.

    Attributes:
        classifier: maps features to logits (n, classes).
        recomputes: whether passes with gradients keep few activations and compute the others again, which changes no
            number. It is a wish: networks of ddbench grant it but those of torchvision, and it takes no compiled code.
    """

    classifier: nn.Module
    recomputes: bool = False
    # Tuples of plain data and not a dictionary: networks are compared by such attributes before recordings are reused.
    _tap_places: tuple[tuple[str, str], ...] = ()
    _described: str = ""

    def __init_subclass__(cls, **keywords: Any) -> None:  # noqa: ANN401
        super().__init_subclass__(**keywords)
        # Authors define plain features; here, so that networks written before there were taps have the argument, too.
        if inspect.isfunction(vars(cls).get("features")):
            cls.features = _with_taps(vars(cls)["features"])  # type: ignore[method-assign]

    @overload
    def features(self, images: Tensor) -> Tensor: ...

    @overload
    def features(self, images: Tensor, taps: Sequence[str]) -> dict[str, Tensor]: ...

    def features(self, images: Tensor, taps: Sequence[str] | None = None) -> Tensor | dict[str, Tensor]:
        """Return feature vectors (n, dimension), the classifier's input, or intermediate features by name.

        Args:
            images: network inputs (n, channels, height, width).
            taps: names from `taps`; None for the vectors alone.

        Returns:
            Vectors (n, dimension); with taps a dictionary in their order: maps (n, ...) with their graph, of one pass.
            The tap ``features`` holds the vectors.

        Raises:
            UsageError: the network has no such tap.
            PluginError: a tap's submodule did not run exactly once, or did not return a tensor.
        """
        raise TypeError(f"{type(self).__name__} does not define features()")

    @property
    def taps(self) -> tuple[str, ...]:
        """The names that `features` takes as taps, from input to output; the last is ``features``."""
        return (*(name for name, _ in self._tap_places), LAST_TAP)

    def name_taps(self, places: Mapping[str, str]) -> None:
        """Name submodules whose outputs `features` offers as taps; to be called at the end of ``__init__``.

        Args:
            places: by tap, from input to output, the path of a submodule (``"body.3"``) that runs once in ``features``
                and returns a tensor (n, ...). Nothing may change that tensor in place afterwards.

        Raises:
            PluginError: there is no such submodule, or a name is empty or ``features``.
        """
        for name, place in places.items():
            if not name or name == LAST_TAP:
                raise PluginError(f"{type(self).__name__} cannot call a tap {name!r}: {LAST_TAP!r} is there already")
            if not place or place not in dict(self.named_modules()):
                raise PluginError(f"{type(self).__name__} has no submodule {place!r} for the tap {name!r}")
        self._tap_places = tuple(places.items())

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (n, classes) for images (n, channels, height, width)."""
        # Fixed for all networks: methods match features, and rely on logits being the classifier's of these.
        logits: Tensor = self.classifier(self.features(images))
        return logits


def _with_taps(plain: Callable[[Any, Tensor], Tensor]) -> Callable[..., Any]:
    """Return a subclass's ``features`` with the argument ``taps``."""

    @functools.wraps(plain)
    def features(self: Network, images: Tensor, taps: Sequence[str] | None = None) -> Tensor | dict[str, Tensor]:
        # Without taps nothing but the subclass's own code runs: compiled and recorded passes stay what they were.
        return plain(self, images) if taps is None else _read_taps(self, plain, images, taps)

    return features


def _read_taps(
    network: Network, plain: Callable[[Any, Tensor], Tensor], images: Tensor, taps: Sequence[str]
) -> dict[str, Tensor]:
    places = _places(network, taps)
    outputs: dict[str, list[Any]] = {name: [] for name in places}
    thread = threading.get_ident()

    def hook(name: str) -> Callable[..., None]:
        def read(_module: nn.Module, _inputs: object, output: object) -> None:
            # Slices of a batch may pass through the network side by side: each thread reads its own.
            if threading.get_ident() == thread:
                outputs[name].append(output)

        return read

    handles = [network.get_submodule(place).register_forward_hook(hook(name)) for name, place in places.items()]
    try:
        vectors = plain(network, images)
    finally:
        for handle in handles:
            handle.remove()
    for name, values in outputs.items():
        if len(values) != 1 or not isinstance(values[0], Tensor):
            what = f"ran {len(values)} times" if len(values) != 1 else f"returned a {type(values[0]).__name__}"
            raise PluginError(
                f"tap {name!r} of {_name_of(network)}: its submodule {places[name]!r} {what}: "
                "name one that runs once in features() and returns a tensor"
            )
    return {name: vectors if name == LAST_TAP else outputs[name][0] for name in taps}


def _places(network: Network, taps: Sequence[str]) -> dict[str, str]:
    """Return the submodules of those taps that need one.

    Raises:
        UsageError: the network has no such tap.
    """
    if isinstance(taps, str):
        raise UsageError(f"taps are a sequence of names: write features(images, taps=({taps!r},))")
    for name in taps:
        if name not in network.taps:
            offer = f"its taps are {', '.join(network.taps)}"
            if network.taps == (LAST_TAP,):
                offer = f"it offers {LAST_TAP!r} alone, since its author names no others by name_taps()"
            raise UsageError(f"{_name_of(network)} has no tap {name!r}: {offer}")
    return {name: place for name, place in network._tap_places if name in taps}


def _name_of(network: Network) -> str:
    return network._described or type(network).__name__


class Architecture(ABC, Generic[O]):
    """A family of networks with its options; subclasses define `network` with ordinary torch layers."""

    Options: ClassVar[type[Options]] = Options
    version: ClassVar[int] = 1
    """A whole number from 1 on; increase it whenever the same options give other numbers."""

    def __init__(self, options: O) -> None:
        self.options = options

    @property
    def pretrained(self) -> bool:
        """Whether its networks start from weights that were trained on images; their scores are marked."""
        return False

    @property
    def augmentations(self) -> Mapping[str, str]:
        """The augmentations, by family (``dc``), that a protocol uses for it in place of the data set's."""
        return {}

    @abstractmethod
    def network(self, shape: Shape, classes: int) -> Network:
        """Build a network for images of ``shape`` (channels, height, width).

        Raises:
            DataError: images of this shape are not supported; the message says which are.
        """

    def build(self, shape: Shape, classes: int, generator: torch.Generator) -> Network:
        """Build a network in training mode, with initial weights drawn from ``generator``."""
        # torch's layers draw their initial weights from the global generator and take no other.
        with global_rng_from(generator):
            network = self.network(shape, classes)
        # A plugin may return anything; what is no network is reported where it is used.
        if isinstance(network, Network):
            network._described = getattr(self, "ddbench_name", "")
        return network
