"""Components for processes of their own: fast, deterministic, and faulty in every way on request."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Literal

import torch
from toy_plugins import Drift, StillOptions

from harness import Evaluator, Options, StudentRecord, hookimpl, option


@hookimpl
def register_methods(register):
    register("walk", "faulty_plugin:Walk", "images that drift, slowly on request")
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


class WalkOptions(StillOptions):
    seconds: float = option(0.0, "that a step sleeps")


class Walk(Drift):
    """Images that drift, and a sleep before each step."""

    Options = WalkOptions

    def step(self, iteration, networks):
        time.sleep(self.options.seconds)
        return super().step(iteration, networks)


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


class GuessOptions(Options):
    seconds: float = option(0.0, "that a student sleeps")
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
