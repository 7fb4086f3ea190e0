"""Studies so small that each takes a fraction of a second, and what tests ask of them."""

import json
from contextlib import contextmanager

import numpy as np
import pytest
from click.testing import CliRunner

import harness
from harness.cli.group import cli
from harness.running.unfinished_tensors import PartialFiles
from harness.store.records import parse_record

METHOD = "dc[batch_real=4]"
POOL = "single[main=convnet[width=4,depth=2]]"
EVALUATOR = "plain[epochs=2]"
KD = "kd[epochs=2,teacher=convnet[width=4,depth=2]]"
ARCHITECTURE = "mlp[width=8]"
SMALL = {
    "method": METHOD,
    "pool": POOL,
    "evaluator": EVALUATOR,
    "architecture": ARCHITECTURE,
    "iterations": 2,
    "students": 2,
}


def stripes(per_class, *, classes=3, size=16, channels=None, seed=0):
    """Noisy images, each class with a bright band of rows of its own, and their labels."""
    labels = np.repeat(np.arange(classes), per_class)
    shape = (len(labels), size, size) if channels is None else (len(labels), size, size, channels)
    images = np.random.default_rng(seed).integers(0, 90, shape)
    for image, label in zip(images, labels, strict=True):
        image[label * size // classes : (label + 1) * size // classes] += 120
    return images.astype(np.uint8), labels


def write_arrays(path, **changes):
    """An .npz file of three classes with 12 training and 6 test images each; ``changes`` replace arrays."""
    how = {key: changes.pop(key) for key in ("classes", "size", "channels") if isinstance(changes.get(key), int)}
    train, test = stripes(12, **how), stripes(6, seed=1, **how)
    arrays = {"x_train": train[0], "y_train": train[1], "x_test": test[0], "y_test": test[1]}
    np.savez(path, **{**arrays, **changes})
    return path


def small_run(data, store, **changes):
    """A study of a second on the .npz file ``data``."""
    return harness.run(**{**SMALL, "dataset": f"arrays[path={data}]", "store": store, **changes})


def ddbench(*words):
    """The command line, with its exit code, stdout and stderr."""
    return CliRunner().invoke(cli, [str(word) for word in words], prog_name="ddbench")


def small_words(data, store, **changes):
    """The words of `small_run` for the command line; an option set to None is left out."""
    options = {**SMALL, "dataset": f"arrays[path={data}]", "store": store, **changes}
    return [
        word
        for key, value in options.items()
        if value is not None
        for word in (f"--{key.replace('_', '-')}", str(value))
    ]


def records(store):
    """Every record of a store by its folder's name, which is its key and the number of the attempt."""
    return {path.parent.name: json.loads(path.read_text()) for path in (store / "cells").glob("??/*/record.json")}


def numbers(store):
    """Of every record, all that must never differ: results, history and the digests of its files."""
    return {name: _numbers(record) for name, record in records(store).items()}


def _numbers(record):
    vary = ("seconds", "peak_memory")
    parts = {key: record.get(key) or {} for key in ("result", "history")}
    shared = {name: {key: part[key] for key in part if key not in vary} for name, part in parts.items()}
    return {**shared, "kind": record["kind"], "files": record["files"]}


def a_record(key, result=None, kind="artifact", **changes):
    """The record of a cell that nothing made, to be committed."""
    content = {"kind": kind, "label": "a cell", "key": key, "result": {} if result is None else result}
    content |= {"identity": {"architecture": None}, "provenance": {"compute": {"device": "cpu"}}}
    return parse_record({**content, **changes})


def leftovers(store):
    """What has no business in a store: scratch folders and probes."""
    return [path for path in (store / "cells").rglob(".*") if path.name.startswith((".writing", ".probe"))]


class Cut(harness.StoreError):
    """Stands for a kill."""


@contextmanager
def stored_parts(most=None):
    """The parts of unfinished artifacts, as they are stored; beyond so many of them, the run is cut."""
    put, stored = PartialFiles.put, []

    def put_and_note(self, part, tensors):
        if most is not None and len(stored) >= most:
            raise Cut("killed")
        put(self, part, tensors)
        stored.append(part)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PartialFiles, "put", put_and_note)
        yield stored


class Heard:
    """A reporter that remembers what it heard."""

    def __init__(self):
        self.plans, self.begun, self.done, self.broken, self.notices, self.steps = [], [], [], [], [], []

    def planned(self, missing, done):
        self.plans.append((missing, done))

    def started(self, cell):
        self.begun.append(cell)

    def step(self, cell, iteration, total, scalars):
        self.steps.append(iteration)

    def finished(self, cell, record):
        self.done.append(cell)

    def failed(self, cell, reason, log):
        self.broken.append((cell, reason, log))

    def notice(self, text):
        self.notices.append(text)
