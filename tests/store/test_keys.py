"""What a key depends on, and what not."""

import hashlib
import json
import math

import numpy as np
import pytest
import torch
from studies import KD, SMALL, small_run, stripes, write_arrays

from harness.api.runs import plan_request
from harness.planning.request import request_from
from harness.planning.trajectory_source import TrajectorySource
from harness.plugins.discovery import plugins
from harness.store.cells import Cell, canonical_json, key_of
from harness.types.data.preprocessing import Normalize
from harness.types.problem import Problem, Split

WHOLE = {"evaluator": KD, "students": 1}


def keys(data, tmp_path, **changes):
    """By kind, the keys that a request would make."""
    options = {**SMALL, **WHOLE, "dataset": f"arrays[path={data}]", "store": tmp_path / "none", **changes}
    cells = plan_request(request_from(options)).cells
    return {
        kind: {cell["key"] for cell in cells if cell["kind"] == kind} for kind in ("distilled", "artifact", "student")
    }


ALL = {"distilled", "artifact", "student"}


@pytest.mark.parametrize(
    ("changes", "changed"),
    [
        ({"ipc": 2}, ALL),
        ({"seed": 1}, ALL),
        ({"method": "dc[batch_real=4,lr_img=0.2]"}, ALL),
        ({"pool": "single[main=convnet[width=4,depth=1]]"}, ALL),
        ({"precision": "bf16"}, ALL),
        ({"iterations": 3}, ALL),
        ({"score_on": "validation"}, ALL),
        ({"evaluator": KD.replace("epochs=2", "epochs=3")}, {"student"}),
        ({"evaluator": KD.replace("epochs=2", "epochs=2,temperature=3")}, {"student"}),
        ({"evaluator": KD.replace("depth=2", "depth=1")}, {"artifact", "student"}),
        ({"evaluator": KD.replace("epochs=2", "epochs=2,protocol=v1")}, {"artifact", "student"}),
        ({"architecture": "mlp[width=9]"}, {"student"}),
    ],
)
def test_a_key_depends_on_all_that_decides_numbers(data, tmp_path, changes, changed):
    before, after = keys(data, tmp_path), keys(data, tmp_path, **changes)
    assert {kind for kind in ALL if before[kind] != after[kind]} == changed
    assert all(not before[kind] & after[kind] for kind in changed)


@pytest.mark.parametrize(
    ("part", "changed"),
    [("x_train", ALL), ("y_train", ALL), ("x_test", {"student"}), ("y_test", {"student"})],
)
def test_a_key_depends_on_every_pixel_and_label(data, tmp_path, part, changed):
    arrays = dict(np.load(data))
    changes = {part: arrays[part].copy()}
    if part[0] == "x":
        changes[part][0, 0, 0] ^= 1
    else:
        changes[part][[0, -1]] = changes[part][[-1, 0]]
    # Their own mean and deviation would change with a training pixel: a fixed normalisation shows the pixel itself.
    fixed = {"dataset": f"arrays[path={data},normalize=mnist]"}
    other = write_arrays(tmp_path / "other.npz", **changes)
    before = keys(data, tmp_path, **fixed)
    after = keys(other, tmp_path, dataset=f"arrays[path={other},normalize=mnist]")
    assert {kind for kind in ALL if before[kind] != after[kind]} == changed


def test_a_key_depends_on_the_normalisation(data, tmp_path):
    spelt = [f"arrays[path={data},normalize={name}]" for name in ("auto", "mnist", "fashion-mnist")]
    variants = [keys(data, tmp_path, dataset=name) for name in spelt]
    for kind in ALL:
        assert len(set.union(*(variant[kind] for variant in variants))) == 3


def test_a_key_does_not_depend_on_where_the_images_lie_or_how_they_are_stored(data, tmp_path):
    train, test = stripes(12), stripes(6, seed=1)
    arrays = {"x_train": train[0][..., None], "x_test": test[0][:, None] / 255.0}
    assert keys(write_arrays(tmp_path / "moved.npz", **arrays), tmp_path) == keys(data, tmp_path)


@pytest.mark.parametrize(
    "counts", [{"students": 5}, {"distillations": 2}, {"iterations": [1, 2, 4]}, {"students": 3, "distillations": 3}]
)
def test_a_key_does_not_depend_on_counts(data, tmp_path, counts):
    base, more = keys(data, tmp_path), keys(data, tmp_path, **counts)
    assert all(base[kind] < more[kind] for kind in ("student", "artifact"))


def test_students_and_distillations_have_keys_of_their_own(data, tmp_path):
    by_kind = keys(data, tmp_path, students=3, distillations=2, iterations=[1, 2])
    assert {kind: len(by_kind[kind]) for kind in ALL} == {"distilled": 4, "artifact": 12, "student": 12}


def test_options_in_another_order_or_at_their_default_are_the_same_cell(data, tmp_path):
    spelt = {"method": "dc[init=noise,batch_real=4]", "architecture": "mlp[ width = 8 ]", "evaluator": f"ddbench:{KD}"}
    assert keys(data, tmp_path, **spelt) == keys(data, tmp_path)


def test_the_validation_split_depends_on_the_seed(data, tmp_path):
    first, second = (keys(data, tmp_path, score_on="validation", seed=seed) for seed in (0, 1))
    assert not first["student"] & second["student"]


def test_canonical_json():
    value = {"b": [1, 2.5, None, True], "a": {"z": "é", "y": ()}}
    assert canonical_json(value) == '{"a":{"y":[],"z":"é"},"b":[1,2.5,null,true]}'
    assert canonical_json(dict(reversed(value.items()))) == canonical_json(value)
    with pytest.raises(ValueError, match="JSON"):
        canonical_json({"a": math.nan})


def test_a_cells_key_is_the_sha256_of_kind_and_identity():
    text = '{"a":1,"kind":"student","seed":0}'
    expected = hashlib.sha256(text.encode()).hexdigest()
    assert Cell("student", {"seed": 0, "a": 1}, "whatever").key == expected == key_of(json.loads(text))
    assert Cell("student", {"seed": 0, "a": 1}, "other", {"source": "x"}).key == expected


def golden_source(classes=("0", "1")):
    pixels = (torch.arange(2 * 2 * 16 * 16) * 7 % 251).to(torch.uint8).view(4, 1, 16, 16)
    split = Split(pixels, torch.tensor([0, 1, 0, 1]))
    preprocessing = Normalize("mine", torch.tensor([0.5]), torch.tensor([0.25]))
    problem = Problem("golden", split, split, "test", classes, preprocessing)
    registry = plugins().registry
    method = registry.resolve("method", "dc[batch_real=4]")
    pool = registry.resolve("pool", "single[main=mlp[width=8]]")
    return TrajectorySource(problem, method, pool, 1, 0, "fp32", 3, lambda name: registry.resolve("architecture", name))


def test_a_golden_key():
    """If this fails, every store loses what it holds: raise `version` of what changed instead."""
    cell = golden_source().set_cell(0, 3)
    identity = {
        "trajectory": {
            "problem": golden_source().problem.fingerprint,
            "augmentations": {},
            "method": {
                "name": "dc",
                "provider": "ddbench",
                "version": 1,
                "options": {
                    "init": "noise",
                    "lr_img": 0.1,
                    "momentum_img": 0.5,
                    "lr_net": 0.01,
                    "batch_real": 4,
                    "batch_train": 256,
                    "batch_statistics": 16,
                    "outer": None,
                    "inner": None,
                    "distance": "layerwise",
                },
            },
            "pool": {"name": "single", "provider": "ddbench", "version": 1, "options": {"main": "mlp[width=8]"}},
            "ipc": 1,
            "seed": 0,
            "distillation": 0,
            "precision": "fp32",
            "total": None,
        },
        "architectures": [{"name": "mlp", "provider": "ddbench", "version": 1, "options": {"width": 8}}],
        "iterations": 3,
    }
    assert cell.identity == identity
    assert cell.identity["trajectory"]["problem"] == "8097fe66c26d62e4637de77c33e01030f8a0e5cd53f932a99c9bc21ffe5d7c00"
    assert cell.key == "53441e31d17ff45bb0b413e3a4e922c1ba2278afccc06c3135545d95fb7af2f3"


def test_class_names_are_part_of_the_key():
    """Corrected names are another problem: a set that carries the old ones is not taken for it."""
    cell = golden_source(("a", "b")).set_cell(0, 3)
    problem = cell.identity["trajectory"]["problem"]
    pixels, normalization = golden_source().problem.train.fingerprint, golden_source().problem.preprocessing.identity()
    assert problem == hashlib.sha256(f'{pixels} {normalization} ["a", "b"]'.encode()).hexdigest()
    assert cell.key != golden_source().set_cell(0, 3).key


def test_the_augmentation_that_goes_with_a_data_set_is_in_the_key(data, tmp_path):
    """``plain`` augments a copy of MNIST, so that its students are others though pixels and options are the same."""
    v1 = "plain[protocol=v1,epochs=2]"
    runs = [
        small_run(data, tmp_path / "store", dataset=f"arrays[path={data},{option}=mnist]", evaluator=v1)
        for option in ("like", "normalize")
    ]
    augmented, plain = ({cell["key"] for cell in run.cells if cell["kind"] == "student"} for run in runs)
    assert augmented.isdisjoint(plain)
    assert [row["protocol"] for run in runs for row in run.rows] == ["plain v1 + epochs=2"] * 2
