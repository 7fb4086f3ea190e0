"""A problem so small that distilling and training take milliseconds, and components by the names that users type."""

import functools
from dataclasses import replace

import torch
from torch import nn

import mpdd_plugins
from harness import builtin
from harness.learning.networks import PoolNetworks
from harness.learning.trajectory import Trajectory
from harness.plugins.registry import Entry, Registry
from harness.types.distilled import DistilledSet
from harness.types.method import Task
from harness.types.network import Architecture, Network
from harness.types.options import Options
from harness.types.preprocessing import Normalize
from harness.types.problem import Problem, Split
from harness.types.seeds import Streams

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


def toy_split(per_class, *, classes, shape, seed):
    """Noisy images, each class with a bright band of rows of its own; uint8."""
    channels, height, width = shape
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(classes).repeat_interleave(per_class)
    images = torch.randint(0, 90, (len(labels), channels, height, width), generator=generator)
    for image, label in zip(images, labels.tolist(), strict=True):
        image[:, label * height // classes : (label + 1) * height // classes] += 120
    return Split(images.to(torch.uint8), labels)


def toy_problem(*, classes=3, shape=(1, 16, 16), train=12, test=6, seed=0, **given):
    """A problem of a few small images a class, which any network separates."""
    how = {
        "name": "toy",
        "train": toy_split(train, classes=classes, shape=shape, seed=2 * seed),
        "score": toy_split(test, classes=classes, shape=shape, seed=2 * seed + 1),
        "score_on": "test",
        "classes": tuple("abcdefghij"[:classes]),
        "preprocessing": Normalize("toy", torch.full(shape[:1], 0.4), torch.full(shape[:1], 0.25)),
    }
    return Problem(**(how | given))


def toy_set(problem, per_class=1, *, soft=False):
    """The first training images of each class as a distilled set."""
    index = torch.cat([members[:per_class] for members in problem.of_class])
    images = problem.preprocessing.to_inputs(problem.train.images[index])
    labels = problem.train.labels[index]
    if soft:
        labels = nn.functional.one_hot(labels, len(problem.classes)).float() * 0.7 + 0.1
    return DistilledSet(images, labels, problem.classes, problem.preprocessing)


def toy_trajectory(
    method="dc[batch_real=7]", pool=f"single[main={TINY_CONVNET}]", *, problem=None, ipc=1, seed=0, **task
):
    """A distillation about to begin."""
    problem, streams = problem or toy_problem(), Streams(seed)
    resolved = registry().resolve("method", method)
    built = resolved.make(Task(problem, ipc, streams, iterations=100, **task))
    networks = PoolNetworks(component("pool", pool), resolve, problem, streams, supplied(built, problem, seed))
    return Trajectory(built, networks, problem, streams)


class MemoryScratch(dict):
    """Parts of an artifact, kept in memory."""

    def put(self, part, tensors):
        self[part] = dict(tensors)


def supplied(method, problem, seed=0):
    """What a method needs, made when it asks for it, and only once."""
    made = {}

    def supply(iteration, architecture):
        return [one(request) for request in method.needs(iteration, architecture)]

    def one(request):
        key = (request.kind, request.index, request.architecture)
        if key not in made:
            built = resolve(request.architecture).make() if request.architecture else None
            artifact = method.make_artifact(request, problem, built, Streams(seed), MemoryScratch())
            made[key] = replace(artifact, architecture=built)
        return made[key]

    return supply


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
