"""Stores of many cells, written as runs write them but in seconds: no set behind a set's record, no sync to disk."""

import hashlib
import itertools
import json

import numpy as np

from harness.store.cells import canonical_json, key_of

ARCHITECTURES = ("convnet", "mlp", "lenet", "alexnet", "vgg11")
DIGEST = hashlib.sha256(b"code").hexdigest()


def component(name, version=1, provider="ddbench", **options):
    return {"name": name, "options": {"width": 128, **options}, "provider": provider, "version": version}


def set_record(*, method="dc", pool="single", ipc=1, iterations=1000, seed=0, distillation=0, **fields):
    """The record of a distilled set; ``fields`` are those of its result, ``versions``, ``precision`` and so on.

    ``options`` are the method's, ``code_digests`` those of its code by component, ``set_options`` those of ``--set``.
    """
    made_by = {key: fields.pop(key) for key in ("code_digests", "set_options") if key in fields}
    versions, precision = fields.pop("versions", {}), fields.pop("precision", "fp32")
    problem = fields.pop("problem", "p")
    trajectory = {
        "problem": problem,
        "augmentations": {"dc": "none"},
        "method": component(method, versions.get("method", 1), **fields.pop("options", {})),
        "pool": pool and component(pool, versions.get("pool", 1)),
        "ipc": ipc,
        "seed": seed,
        "distillation": distillation,
        "precision": precision,
        "total": fields.pop("total", None),
    }
    steps = 1 if iterations is None else iterations  # a method that does not iterate takes one
    identity = {
        "kind": "distilled",
        "trajectory": trajectory,
        "architectures": [component("convnet")] if pool else [],
        "iterations": steps,
    }
    columns = {
        "dataset": fields.pop("dataset", "digits"),
        "ipc": ipc,
        "iterations": iterations,
        "method": method,
        "pool": pool,
        "seed": seed,
        "distillation": distillation,
    }
    result = {
        "status": "done",
        "largest": 2.0,
        "std": 1.0,
        "seconds": 10.0,
        "storage_floats": 2560,
        "step_size": None,
        "settings": {},
        "draws": {"convnet": iterations} if pool else {},
        "main": "convnet" if pool else None,
        **columns,
    }
    label = f"{method} through {pool} on {columns['dataset']}, ipc {ipc}, #{distillation}, {iterations} iterations"
    history = {"iterations": steps, "seconds": 10.0, "architectures": ["convnet"], "draws": [], "scalars": {}}
    device = fields.pop("device", "cpu")
    return _whole("distilled", label, identity, {**result, **fields}, device, made_by, history=history)


def student_record(of, *, evaluator="plain", architecture="convnet", student=0, accuracy=0.5, **fields):
    """The record of a student on the set whose record is ``of``; ``fields`` are those of its result, and versions.

    ``options`` are the evaluator's, ``code_digests`` those of its code, ``set_file`` that of the set's file.
    """
    made_by = {key: fields.pop(key) for key in ("code_digests",) if key in fields}
    file = {key: fields.pop(key) for key in ("set_file",) if key in fields}
    versions = fields.pop("versions", {})
    columns = {key: of["result"][key] for key in ("dataset", "ipc", "iterations", "method", "pool", "seed")}
    columns["distillation"] = of["result"]["distillation"]
    score_on = fields.get("score_on", "test")
    identity = {
        "kind": "student",
        "set": of["key"],
        "artifact": fields.pop("artifact", None),
        "augmentations": {"dc": "none"},
        "score_on": score_on,
        "score": fields.pop("scored", f"images of {score_on}"),
        "evaluator": component(evaluator, versions.get("evaluator", 1), **fields.pop("options", {})),
        "architecture": component(architecture, versions.get("architecture", 1)),
        "seed": columns["seed"],
        "distillation": columns["distillation"],
        "student": student,
    }
    result = {
        "student": student,
        "accuracy": accuracy,
        "loss": 0.5,
        "epochs": 300,
        "seconds": 1.0,
        "peak_memory": 10**9,
        "collapsed": False,
        "losses": [2.0, 1.5, 1.2, 1.0, 0.9, 0.8, 0.7, 0.6, 0.55, 0.5],
        **columns,
        "evaluator": evaluator,
        "architecture": architecture,
        "protocol": f"{evaluator} v1",
        "precision": of["identity"]["trajectory"]["precision"],
        "score_on": score_on,
        "like": None,
        "preprocessing": "auto",
        "set_status": of["result"]["status"],
    }
    device = fields.pop("device", "cpu")
    label = f"{evaluator} {architecture} student {student} on {of['label']}"
    return _whole("student", label, identity, {**result, **fields}, device, made_by, set=of["key"], **file)


def artifact_record(of, *, versions=(("architecture", 1),), **made_by):
    """The record of a teacher for a set; ``code_digests`` are those of its code by component."""
    identity = {
        "kind": "artifact",
        "set": of["key"],
        "request": {"kind": "teacher"},
        "architecture": component("convnet", dict(versions)["architecture"]),
    }
    return _whole("artifact", f"teacher for {of['label']}", identity, {}, "cpu", made_by, set=of["key"])


def _whole(kind, label, identity, result, device, made_by, **more):
    digests = {f"harness.{name}": DIGEST for name in ("learning", "a.A", "b.B", "c.C", "d.D")}
    provenance = {
        "components": [
            {"distribution": "ddbench", "distribution_version": "0.1.0", "name": name, "code_digest": DIGEST}
            for name in ("one", "two")
        ],
        "dataset": {
            "distribution": "ddbench",
            "distribution_version": "0.1.0",
            "name": "digits",
            "code_digest": DIGEST,
        },
        "code_digests": digests | made_by.get("code_digests", {}),
        "set": list(made_by.get("set_options", ())),
        "compute": {"device": device, "machine": "x86_64", "threads": 2, "torch_version": "2.14.1"},
        "versions": {"ddbench": "0.1.0", "python": "3.11.7", "torch": "2.14.1", "numpy": "2.4.6"},
        "finished": "2026-11-25T10:08:40+00:00",
    }
    key = key_of(identity)
    record = {"kind": kind, "label": label, "identity": identity, "provenance": provenance, "result": result, **more}
    return {"schema": 1, "key": key, **record, "files": {}}


def write_store(path, records):
    """A store that holds the records, each with its checksum, as attempt 1."""
    (path / "cells").mkdir(parents=True, exist_ok=True)
    (path / "store.json").write_text('{"schema":1}')
    for record in records:
        folder = path / "cells" / record["key"][:2] / f"{record['key']}-1"
        folder.mkdir(parents=True)
        checksum = hashlib.sha256(canonical_json(record).encode()).hexdigest()
        text = json.dumps({**record, "checksum": checksum}, indent=1, sort_keys=True)
        (folder / "record.json").write_text(text)
    return path


def study(*, methods=("dc",), pools=("single", "main-similar"), iterations=(1000,), evaluators=("plain",),
          architectures=ARCHITECTURES[:2], distillations=3, students=2, gain=0.0, seed=1, **fields):  # fmt: skip
    """The records of a whole crossing; students of every pool but the first gain ``gain`` on average.

    Distillations, students and their pairs vary as real ones do; the numbers come from a generator seeded by ``seed``.
    """
    random = np.random.default_rng(seed)
    shared = random.normal(0, 0.02, (distillations, students))
    for method, (index, pool), point in itertools.product(methods, enumerate(pools), iterations):
        for distillation in range(distillations):
            of = set_record(method=method, pool=pool, iterations=point, distillation=distillation, **fields)
            of_set = 0.5 + gain * (index > 0) + random.normal(0, 0.02)
            yield of
            for evaluator, architecture, student in itertools.product(evaluators, architectures, range(students)):
                accuracy = of_set + shared[distillation, student] + random.normal(0, 0.02)
                yield student_record(of, evaluator=evaluator, architecture=architecture, student=student,
                                     accuracy=float(round(accuracy, 4)))  # fmt: skip


def study_of(cells):
    """A crossing of at least so many cells: four methods through three pools, five architectures, 3 x 5 repeats."""
    per_point = 4 * 3 * 3 * (1 + 2 * 5 * 5)
    points = tuple(100 * (1 + index) for index in range(-(-cells // per_point)))
    return study(methods=("dc", "dsa", "dm", "mtt"), pools=("single", "main-similar", "total-random"),
                 iterations=points, evaluators=("plain", "kd"), architectures=ARCHITECTURES, students=5)  # fmt: skip
