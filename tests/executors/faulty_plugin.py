"""Components for processes of their own: fast, deterministic, and faulty in every way on request."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Literal

import torch

from harness import Evaluator, Method, Options, StudentRecord, hookimpl, option


@hookimpl
def register_methods(register):
    register("walk", "faulty_plugin:Walk", "images that walk at random, slowly on request")
    register("faulty", "faulty_plugin:Faulty", "fails in a way of one's choice")


@hookimpl
def register_evaluators(register):
    register("guess", "faulty_plugin:Guess", "scores from a hash of the images, slowly on request")


@hookimpl
def cell_started(cell):
    note("started", cell)


@hookimpl
def cell_finished(cell, outcome):
    note("finished" if "checksum" in outcome else "failed", cell)


def note(what, cell):
    """A line for each event in the file that the environment names."""
    path = os.environ.get("FAULTY_NOTES")
    if path:
        with Path(path).open("a") as notes:
            notes.write(f"{what} {cell['kind']} {cell['key']}\n")


class WalkOptions(Options):
    seconds: float = option(0.0, "that a step sleeps")


class Walk(Method[WalkOptions]):
    """Adds noise to the images at each step, and keeps a running mean beside them."""

    Options = WalkOptions
    uses_pool = False

    def __init__(self, task, options):
        super().__init__(task, options)
        self.labels = torch.arange(len(task.problem.classes)).repeat_interleave(task.ipc)
        shape = (len(self.labels), *task.problem.shape)
        self.images = torch.randn(shape, generator=task.streams.generator("init"))
        self.mean = torch.zeros(shape)

    def step(self, iteration, networks):
        time.sleep(self.options.seconds)
        self.images += 0.1 * torch.randn(self.images.shape, generator=self.task.streams.generator("walk", iteration))
        self.mean = 0.9 * self.mean + 0.1 * self.images
        self.images -= 0.01 * self.mean
        return {"size": float(self.images.abs().mean())}

    def distilled(self):
        return self.task.distilled(self.images, self.labels)

    def learned(self):
        return {"images": self.images}

    def state(self):
        return {"images": self.images, "mean": self.mean}

    def restore(self, state):
        self.images, self.mean = state["images"].clone(), state["mean"].clone()


class FaultyOptions(WalkOptions):
    how: Literal["raise", "abort", "segfault", "exit", "killed", "hang", "cuda", "children", "never"] = option(
        "raise", "what it does"
    )
    at: int = option(1, "at which iteration")
    unless: str = option("", "a file: where it is there, all goes well")


class Faulty(Walk):
    """Walks until it fails."""

    Options = FaultyOptions

    def step(self, iteration, networks):
        if iteration == self.options.at and not (self.options.unless and Path(self.options.unless).exists()):
            fail(self.options.how)
        return super().step(iteration, networks)


def fail(how):
    """Do it."""
    if how == "raise":
        raise RuntimeError("out of luck")
    if how == "abort":
        os.abort()
    if how == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if how == "exit":
        os._exit(0)
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "hang":
        time.sleep(3600)
    if how == "cuda":
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
    if how == "children":
        sleeper = [sys.executable, "-c", "import time; time.sleep(3600)", "left-behind"]
        subprocess.Popen(sleeper, start_new_session=True)
        subprocess.Popen(sleeper)


class GuessOptions(WalkOptions):
    fails: int | None = option(None, "the student that aborts its process")
    unless: str = option("", "a file: where it is there, none does")


class Guess(Evaluator[GuessOptions]):
    """Scores that depend on the images' bits and the student alone."""

    Options = GuessOptions

    def protocol(self, problem, architecture):
        return "guess v1"

    def evaluate(self, distilled, problem, architecture, students, artifacts, streams):
        images, _ = distilled.training_data()
        for student in students:
            time.sleep(self.options.seconds)
            if student == self.options.fails and not (self.options.unless and Path(self.options.unless).exists()):
                os.abort()
            accuracy = (streams.number("guess", student) % 1000 / 1000 + float(images.double().sum())) % 1
            yield StudentRecord(student, accuracy, 0.5, 1, 0.0, 0, False)
