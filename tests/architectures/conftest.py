from collections.abc import Callable
from typing import Any

import pytest
import torch

from harness import builtin
from harness.plugins.registry import Entry, Registry
from harness.types.network import Architecture, Network

Build = Callable[..., Network]


@pytest.fixture(scope="session")
def architecture() -> Callable[[str], Architecture[Any]]:
    """A built-in architecture by the name that a user would type."""
    registry = Registry()
    builtin.register_architectures(lambda *words: registry.add(Entry("architecture", *words, "ddbench", "0")))

    def architecture(name: str) -> Architecture[Any]:
        resolved = registry.resolve("architecture", name)
        return resolved.make()

    return architecture


@pytest.fixture(scope="session")
def build(architecture) -> Build:
    """Build a network for images of a shape and ten classes."""

    def build(name, shape, seed=0):
        return architecture(name).build(shape, 10, torch.Generator().manual_seed(seed))

    return build


@pytest.fixture(scope="session")
def outline(architecture) -> Build:
    """A network without memory for its weights: enough for counts and shapes, and instant."""

    def outline(name, shape):
        with torch.device("meta"):
            return architecture(name).network(shape, 10)

    return outline
