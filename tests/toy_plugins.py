"""Components that misbehave in known ways, as a plugin would bring them."""

import contextlib
import os
import sys
import time
from typing import Literal

import torch

import harness
from harness import (
    Artifact,
    ArtifactRequest,
    DistilledSet,
    Evaluator,
    Method,
    Options,
    Pool,
    StudentRecord,
    hookimpl,
    option,
)
from harness.plugins.discovery import plugins
from harness.plugins.registry import Entry

KINDS = {
    "still": "method",
    "boom": "method",
    "lost": "method",
    "needy": "method",
    "drift": "method",
    "scripted": "evaluator",
    "grim": "evaluator",
    "halting": "evaluator",
    "wary": "pool",
}


@hookimpl
def register_methods(register):
    _register("method", register)


@hookimpl
def register_evaluators(register):
    _register("evaluator", register)


@hookimpl
def register_pools(register):
    _register("pool", register)


def _register(kind, register):
    for name in KINDS:
        if KINDS[name] == kind:
            register(name, f"toy_plugins:{name.title()}", "a toy")


def wait_at(gate):
    """If the environment names a file for this gate, say so and wait until it is there.

    It is looked for again and again: a signal that comes just before a call that blocks is heard only after the call.
    """
    if file := os.environ.get(f"TOY_GATE_{gate}"):
        print(f"waiting at gate {gate}", file=sys.stderr, flush=True)
        while not os.path.exists(file):
            time.sleep(0.01)


@contextlib.contextmanager
def registered(kinds=KINDS, module="toy_plugins"):
    """The components of a module, given by their kinds and names, beside those of the real plugins."""
    entries = plugins().registry.entries
    mine = [Entry(kind, name, f"{module}:{name.title()}", "a toy", "toys", "1") for name, kind in kinds.items()]
    entries.extend(mine)
    try:
        yield
    finally:
        for entry in mine:
            entries.remove(entry)


class StillOptions(Options):
    value: float = option(0.0, "of every pixel")


class Still(Method[StillOptions]):
    """Constant images, learned by no network."""

    Options = StillOptions
    uses_pool = False

    def __init__(self, task, options):
        super().__init__(task, options)
        self.labels = torch.arange(len(task.problem.classes)).repeat_interleave(task.ipc)
        self.images = torch.full((len(self.labels), *task.problem.shape), options.value)

    def step(self, iteration, networks):
        return {}

    def distilled(self):
        return self.task.distilled(self.images, self.labels)

    def learned(self):
        return {"images": self.images}

    def state(self):
        return {"images": self.images}

    def restore(self, state):
        self.images = state["images"].clone()


class BoomOptions(StillOptions):
    at: int = option(0, "the iteration that raises")
    error: Literal["runtime", "permission", "exit"] = option("runtime", "what it raises")


class Boom(Still):
    """Raises."""

    Options = BoomOptions

    def step(self, iteration, networks):
        if iteration == self.options.at:
            raise {"runtime": RuntimeError, "permission": PermissionError, "exit": SystemExit}[self.options.error](
                "out of luck\nand of ideas"
            )
        return {}


class LostOptions(StillOptions):
    at: int = option(1, "the iteration that gives NaN")


class Lost(Still):
    """Adds one to every pixel at each iteration, and then loses them to NaN, its loss too."""

    Options = LostOptions

    def step(self, iteration, networks):
        self.images = self.images + (float("nan") if iteration == self.options.at else 1)
        return {"loss": float(self.images.mean())}


class NeedyOptions(StillOptions):
    fails: bool = option(False, "the first of its artifacts cannot be made")


class Needy(Still):
    """Asks for two artifacts."""

    Options = NeedyOptions

    def needs(self, iteration, architecture):
        return [ArtifactRequest("need", index, identity={"fails": self.options.fails}) for index in range(2)]

    def make_artifact(self, request, problem, architecture, streams, scratch):
        if request.index == 0 and self.options.fails:
            raise RuntimeError("no luck")
        return Artifact({"x": torch.zeros(1)})


class Drift(Still):
    """Moves by what it moved by before and by a draw, so that a step forgotten or done twice shows; see `wait_at`."""

    def __init__(self, task, options):
        super().__init__(task, options)
        self.speed = torch.zeros_like(self.images)

    def step(self, iteration, networks):
        wait_at(iteration)
        draw = torch.randn(self.images.shape, generator=self.task.streams.generator("drift", iteration))
        self.speed = 0.5 * self.speed + draw
        self.images = self.images + self.speed
        return {"loss": float(self.speed.norm())}

    def state(self):
        return {"images": self.images, "speed": self.speed}

    def restore(self, state):
        self.images, self.speed = state["images"].clone(), state["speed"].clone()


ACCURACIES = {"validation": {"a": 0.9, "b": 0.5, "c": 0.1}, "test": {"a": 0.1, "b": 0.8, "c": 0.2}}


class ScriptedOptions(Options):
    which: Literal["a", "b", "c", "random"] = option("random", "row of `ACCURACIES`")


class Scripted(Evaluator[ScriptedOptions]):
    """Scores from a table that its options choose, or from a hash; students 3, 6, ... collapse with a loss of NaN."""

    Options = ScriptedOptions

    def protocol(self, problem, architecture):
        return "scripted v1"

    def evaluate(self, distilled, problem, architecture, students, artifacts, streams):
        for student in students:
            known = ACCURACIES[problem.score_on].get(self.options.which)
            accuracy = streams.number("scripted", student) % 1000 / 1000 if known is None else known
            collapsed = student % 3 == 2
            yield StudentRecord(student, accuracy, float("nan") if collapsed else 0.5, 1, 0.0, 0, collapsed, (0.5,))


class Halting(Scripted):
    """Waits before its first student; see `wait_at`."""

    def evaluate(self, distilled, problem, architecture, students, artifacts, streams):
        wait_at("students")
        return super().evaluate(distilled, problem, architecture, students, artifacts, streams)


class GrimOptions(Options):
    student: int = option(0, "the one that raises")


class Grim(Evaluator[GrimOptions]):
    """Raises at one student, after those before it."""

    Options = GrimOptions

    def protocol(self, problem, architecture):
        return "grim v1"

    def evaluate(self, distilled: DistilledSet, problem, architecture, students, artifacts, streams):
        assert isinstance(distilled, harness.DistilledSet)
        for student in students:
            if student == self.options.student:
                raise ValueError("it is over")
            yield StudentRecord(student, 0.5, 0.5, 1, 0.0, 0, False)


class WaryOptions(Options):
    first: str = option("convnet", "drawn until something was observed")
    then: str = option("mlp", "drawn afterwards")


class Wary(Pool[WaryOptions]):
    """Turns to another architecture as soon as it has heard of a step."""

    Options = WaryOptions

    def __init__(self, options):
        super().__init__(options)
        self.heard = 0

    def distribution(self, iteration):
        return {self.options.then if self.heard else self.options.first: 1.0}

    def observe(self, architecture, scalars):
        self.heard += 1

    def state(self):
        return {"heard": self.heard}

    def restore(self, state):
        self.heard = state.get("heard", 0)
