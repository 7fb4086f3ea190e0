"""Networks built without memory: what cannot be built is refused before any work."""

from typing import Any

import torch

from harness.architectures.network_size import bounded_size, check_parameters
from harness.plugins.registry import Resolved
from harness.plugins.returns import returned
from harness.types.network import Architecture, Network
from harness.types.problem import Problem


def check_buildable(architecture: Resolved[Architecture[Any]], problem: Problem) -> None:
    """Build the network without memory, so that unsuitable images are refused before any work.

    Raises:
        DataError: the architecture cannot take images of this shape.
        PluginError: it builds something other than a network.
    """
    build_without_memory(architecture, problem)


def build_without_memory(architecture: Resolved[Architecture[Any]], problem: Problem) -> Network:
    """Return a network whose tensors have shapes and no memory; see `check_buildable`."""
    who = f"architecture {architecture} of {architecture.entry.provider}"
    # On the meta device nothing is allocated, so that absurd sizes are refused by a number and not by the system.
    with torch.device("meta"), bounded_size(who):
        network = architecture.make().build(problem.shape, len(problem.classes), torch.Generator("cpu"))
    check_parameters(returned(network, Network, f"{who}: build()"), who)
    return network
