"""What is timed, made from names as `ddbench run` takes them, and how a timed process reports its measurements."""

import dataclasses
import json
import os
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[3]))
from harness.datasets.problems import data_root, make_problem
from harness.errors import DDBenchError
from harness.learning.networks.pool_networks import PoolNetworks
from harness.learning.trajectory import Trajectory
from harness.plugins.discovery import plugins
from harness.types.artifact import Artifact
from harness.types.data.preprocessing import Normalize
from harness.types.method import Task
from harness.types.names import Name, parse_name
from harness.types.problem import Problem, Split
from harness.types.seeds import Streams

STREAMS = Streams(0)


def resolve(kind, name):
    return plugins().registry.resolve(kind, name)


def with_options(name, **options):
    """The name with these options, given before or not."""
    parsed = parse_name(name) if isinstance(name, str) else name
    rest = tuple((key, value) for key, value in parsed.options if key not in options)
    return Name(parsed.name, rest + tuple((key, str(value)) for key, value in options.items()))


def real_problem(dataset, of_class=None):
    """A data set's problem; with ``of_class``, only so many training images of each class."""
    problem = make_problem(resolve("dataset", dataset), root=data_root())
    if of_class is None:
        return problem
    chosen = torch.cat([members[:of_class] for members in problem.of_class])
    return dataclasses.replace(problem, train=problem.train[chosen])


def random_problem(classes, of_class, shape):
    """Noise in any number of classes: what it costs depends on sizes alone."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (classes * of_class, *shape), generator=generator, dtype=torch.uint8)
    split = Split(images, torch.arange(classes).repeat_interleave(of_class))
    names = tuple(f"class {label}" for label in range(classes))
    return Problem("noise", split, split, "test", names, Normalize.computed(images))


def method_name(dataset, method):
    """A method's name with the options that it takes on a data set unless they are typed."""
    return resolve("dataset", dataset).make().traits.defaults.complete(parse_name(method))


class NoScratch:
    """Keeps nothing: an expert is trained from its first epoch."""

    def get(self, part):
        return None

    def put(self, part, tensors):
        pass


def trajectory_of(problem, method, pool="single", ipc=1, precision="fp32", on_artifact=lambda request, seconds: None):
    """A distillation at its start; ``on_artifact`` is called with each artifact that was made and its seconds."""
    total, artifacts = 1000, {}
    maker = resolve("method", method).make(Task(problem, ipc, STREAMS, total, precision))

    def supply(iteration, architecture):
        return [artifact_of(request) for request in maker.needs(iteration, architecture)]

    def artifact_of(request):
        if request.index not in artifacts:
            begun = time.perf_counter()
            architecture = resolve("architecture", request.architecture).make()
            artifact = maker.make_artifact(request, problem, architecture, STREAMS, NoScratch())
            artifacts[request.index] = Artifact(artifact.tensors, artifact.scalars, architecture)
            on_artifact(request, time.perf_counter() - begun)
        return artifacts[request.index]

    made_pool = resolve("pool", pool).make() if maker.uses_pool else None
    networks = PoolNetworks(made_pool, lambda name: resolve("architecture", name), problem, STREAMS, supply)
    return Trajectory(maker, networks, problem, STREAMS)


def real_set(problem, ipc):
    """Real images as a set to learn from: students take as long on them as on learned ones."""
    return trajectory_of(problem, "random", ipc=ipc).advance(1)


LINES = os.fdopen(os.dup(1), "w")
"""Where findings go: an artifact is made within a plugin's code, which has stderr for stdout."""


def report(**values):
    """One finding as a line of JSON."""
    print(json.dumps(values), file=LINES, flush=True)


def answer(request):
    """Call ``request`` with the JSON on the command line; what the user can mend ends in one line."""
    try:
        request(**json.loads(sys.argv[1]))
    except DDBenchError as error:
        sys.exit(str(error))
