"""A problem so small that distilling and training take milliseconds, and components by the names that users type."""

import functools

import torch
from torch import nn

import mpdd_plugins
from harness import builtin
from harness.learning.networks.pool_networks import PoolNetworks
from harness.learning.trajectory import Trajectory
from harness.plugins.registry import Entry, Registry
from harness.testing.small import MemoryScratch, supply
from harness.testing.small import small_problem as toy_problem
from harness.testing.small import small_set as toy_set
from harness.types.method import Task
from harness.types.network import Architecture, Network
from harness.types.options import Options
from harness.types.seeds import Streams

__all__ = [
    "TINY_CONVNET", "TINY_MLP", "DropoutNetwork", "FromFunction", "MemoryScratch", "component", "registry", "resolve",
    "supplied", "toy_problem", "toy_set", "toy_trajectory",
]  # fmt: skip

TINY_CONVNET = "convnet[width=4,depth=1]"
TINY_MLP = "mlp[width=8]"


@functools.cache
def registry():
    """The built-in components, and none of any other plugin."""
    registry = Registry()
    for kind, register in {
        "architecture": builtin.register_architectures,
        "method": mpdd_plugins.register_methods,
        "pool": mpdd_plugins.register_pools,
        "evaluator": mpdd_plugins.register_evaluators,
    }.items():
        register(lambda *words, kind=kind: registry.add(Entry(kind, *words, "ddbench", "0")))
    return registry


def resolve(name):
    """An architecture, as `PoolNetworks` asks for it."""
    return registry().resolve("architecture", name)


def component(kind, name):
    """A pool, an evaluator or an architecture."""
    resolved = registry().resolve(kind, name)
    return resolved.make()


def toy_trajectory(
    method="dc[batch_real=7]", pool=f"single[main={TINY_CONVNET}]", *, problem=None, ipc=1, seed=0, **task
):
    """A distillation about to begin."""
    problem, streams = problem or toy_problem(), Streams(seed)
    resolved = registry().resolve("method", method)
    built = resolved.make(Task(problem, ipc, streams, iterations=100, **task))
    networks = PoolNetworks(component("pool", pool), resolve, problem, streams, supplied(built, problem, seed))
    return Trajectory(built, networks, problem, streams)


def supplied(method, problem, seed=0):
    """What a method needs, made when it asks for it, of the built-in architectures."""
    return supply(method, problem, resolve, seed)


class FromFunction(Architecture[Options]):
    """The architecture of the networks that a function of shape and classes makes."""

    def __init__(self, make):
        super().__init__(Options())
        self.make = make

    def network(self, shape, classes):
        return self.make(shape, classes)


class DropoutNetwork(Network):
    """A network that draws from the global generator while it trains."""

    def __init__(self, shape, classes):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.LazyLinear(8), nn.ReLU(), nn.Dropout(0.5))
        self.body(torch.zeros(1, *shape))
        self.classifier = nn.Linear(8, classes)

    def features(self, images):
        return self.body(images)
