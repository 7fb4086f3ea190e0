"""A method and an evaluator that do nothing: what a run of them takes is the harness's own."""

import torch

from harness import Evaluator, Method, Options, StudentRecord, hookimpl, option


@hookimpl
def register_methods(register):
    register("nothing", "nothing_plugin:Nothing", "black images, learned by doing nothing")


@hookimpl
def register_evaluators(register):
    register("nobody", "nothing_plugin:Nobody", "trains no student")


class NothingOptions(Options):
    number: int = option(0, "which of them: a sweep makes many", ge=0)


class Nothing(Method[NothingOptions]):
    """Black images."""

    Options = NothingOptions
    uses_pool = False

    def __init__(self, task, options):
        super().__init__(task, options)
        self.labels = torch.arange(len(task.problem.classes)).repeat_interleave(task.ipc)
        self.images = torch.zeros(len(self.labels), *task.problem.shape)

    def step(self, iteration, networks):
        return {}

    def distilled(self):
        return self.task.distilled(self.images, self.labels)

    def learned(self):
        return {"images": self.images}

    def state(self):
        return {"images": self.images}

    def restore(self, state):
        self.images = state["images"]


class Nobody(Evaluator[Options]):
    """Scores from a hash."""

    def protocol(self, problem, architecture):
        return "nobody v1"

    def evaluate(self, distilled, problem, architecture, students, artifacts, streams):
        for student in students:
            yield StudentRecord(student, streams.number("nobody", student) % 1000 / 1000, 0.5, 1, 0.0, 0, False)
