"""Data sets that do not fit in memory: mapped from a file that is whole, and read by index."""

import json
import logging
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from harness.builtin import register_datasets
from harness.datasets import mapped
from harness.datasets.problems import make_problem
from harness.errors import DataError
from harness.plugins.registry import Entry, Registry
from harness.types.problem import Split
from tests.memory_limits import within

HEADROOM = 96
"""Megabytes that a process may take for a set of 126."""


@pytest.fixture
def large(monkeypatch):
    """Every data set is a large one."""
    monkeypatch.setattr(mapped, "LARGE", 1)


def stored(root, kind):
    return [path for path in (root / "decoded").iterdir() if path.name.startswith(f"{kind}-")]


# The same numbers as in memory


@pytest.mark.parametrize("name", ["folder", "arrays"])
def test_a_mapped_set_is_the_same_problem(problem, folder, arrays, noise, monkeypatch, name):
    x_test = noise(6, 6, 6, 3, seed=2)
    paths = {"folder": folder, "arrays": arrays(x_test=x_test)}
    monkeypatch.setattr(mapped, "LARGE", 2**30)
    there = problem(f"{name}[path={paths[name]}]", score_on="validation" if name == "arrays" else "test")
    monkeypatch.setattr(mapped, "LARGE", 1)
    here = problem(f"{name}[path={paths[name]}]", score_on=there.score_on)
    assert (here.train.on_disk, there.train.on_disk) == (True, False)
    assert here.fingerprint == there.fingerprint
    assert here.score.fingerprint == there.score.fingerprint
    assert here.real_extreme == there.real_extreme
    assert torch.equal(here.train_inputs, there.train_inputs)
    draws = [each.real_batch(1, 2, torch.Generator().manual_seed(3)) for each in (here, there)]
    assert torch.equal(*draws)
    index = torch.tensor([3, 0, 3])
    assert torch.equal(here.pixels_of(index), there.train.images[index])


def test_floats_and_channels_last_are_converted_in_parts(load, arrays, noise, large, monkeypatch):
    monkeypatch.setattr("harness.datasets.npz_images._AT_ONCE", 700)  # an image of 6x6x3 floats is 864 bytes
    levels = noise(12, 6, 6, 3, seed=4)
    raw = load(f"arrays[path={arrays(x_train=levels / 255)}]")
    assert np.array_equal(raw.train.images.numpy(), levels.transpose(0, 3, 1, 2))


def test_parts_of_arrays_name_the_range_of_the_whole(load, arrays, large, monkeypatch):
    monkeypatch.setattr("harness.datasets.npz_images._AT_ONCE", 1)
    images = np.full((12, 6, 6), 0.5)
    images[3, 0, 0], images[11, 0, 0] = 1.5, -2
    with pytest.raises(DataError, match=r"floats in \[-2, 1.5\]"):
        load(f"arrays[path={arrays(x_train=images, x_test=images[:6])}]")


def test_a_fortran_array_is_read_whole(load, arrays, noise):
    levels = np.asfortranarray(noise(12, 6, 6, 3, seed=4))
    raw = load(f"arrays[path={arrays(x_train=levels)}]")
    assert np.array_equal(raw.train.images.numpy(), levels.transpose(0, 3, 1, 2))


def test_a_split_stays_on_disk_where_a_device_would_hold_it():
    split = Split(torch.zeros(2, 1, 2, 2, dtype=torch.uint8), torch.arange(2), on_disk=True)
    moved = split.to(torch.device("meta"))
    assert (moved.images.device.type, moved.labels.device.type, moved.on_disk) == ("cpu", "meta", True)
    assert replace(split, on_disk=False).to(torch.device("meta")).images.device.type == "meta"


def test_a_device_gets_the_pixels_of_a_batch_alone(problem, arrays, large):
    """The device without memory stands for a GPU: an index of another device than the images' would be an error."""
    here = replace(problem(f"arrays[path={arrays()}]"), device=torch.device("meta"))
    batch = here.real_batch(0, 3, torch.Generator().manual_seed(0))
    assert (batch.device.type, tuple(batch.shape)) == ("meta", (3, 3, 6, 6))
    assert here.resident.train.images.device.type == "cpu"


# Whole files only


def test_the_file_is_written_once(load, folder, root, large, monkeypatch):
    first = load(f"folder[path={folder}]")
    monkeypatch.setattr("harness.types.data.images._decode", None)
    assert load(f"folder[path={folder}]").train.fingerprint == first.train.fingerprint
    (place,) = stored(root, "folder")
    assert {path.name for path in place.iterdir()} == {"train.npy", "test.npy", "digests.json"}
    assert np.array_equal(np.load(place / "train.npy"), first.train.images.numpy())


def test_work_that_breaks_off_leaves_nothing(load, folder, root, large):
    last = sorted((folder / "test" / "dog").iterdir())[-1]
    intact = last.read_bytes()
    last.write_bytes(intact[: len(intact) // 2])
    with pytest.raises(DataError, match="cannot be decoded"):
        load(f"folder[path={folder}]")
    assert list((root / "decoded").iterdir()) == []
    last.write_bytes(intact)
    assert len(load(f"folder[path={folder}]").test) == 3


def test_a_half_written_file_of_a_killed_process_is_never_read(load, folder, root, large):
    first = load(f"folder[path={folder}]")
    (place,) = stored(root, "folder")
    shutil.copytree(place, place.with_name(f".{place.name}-0123abcd"))
    (place.with_name(f".{place.name}-0123abcd") / "digests.json").unlink()
    shutil.rmtree(place)
    assert load(f"folder[path={folder}]").train.fingerprint == first.train.fingerprint
    assert stored(root, "folder") == [place]


def flip(place):
    content = bytearray((place / "train.npy").read_bytes())
    content[-1] ^= 1
    (place / "train.npy").write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        flip,
        lambda place: (place / "test.npy").write_bytes((place / "test.npy").read_bytes()[:-1]),
        lambda place: (place / "digests.json").unlink(),
        lambda place: (place / "digests.json").write_text(json.dumps({"train": "0"})),
        lambda place: np.save(place / "train.npy", np.zeros((6, 3, 4, 5), np.int16)),
    ],
)
def test_a_damaged_file_is_written_again(load, folder, root, large, caplog, damage):
    first = load(f"folder[path={folder}]")
    (place,) = stored(root, "folder")
    _ = first.train.fingerprint  # computed now: the images are those of the file, whatever happens to it
    damage(place)
    with caplog.at_level(logging.WARNING, logger="ddbench"):
        again = load(f"folder[path={folder}]")
    assert again.train.fingerprint == first.train.fingerprint
    assert "made again" in caplog.text
    assert stored(root, "folder") == [place]


def test_a_changed_folder_is_decoded_again(load, folder, root, large, noise):
    load(f"folder[path={folder}]")
    Image.fromarray(noise(4, 5, 3, seed=9)).save(folder / "train/cat/0.png")
    raw = load(f"folder[path={folder}]")
    assert np.array_equal(raw.train.images[0].numpy(), noise(4, 5, 3, seed=9).transpose(2, 0, 1))
    assert len(stored(root, "folder")) == 2


def test_a_full_or_closed_disk_is_one_line(load, folder, root, large, monkeypatch):
    usage = shutil.disk_usage(root)._replace(free=10)
    monkeypatch.setattr(mapped.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(DataError, match=r"9 decoded images take .* of disk, but .*decoded has .*: set DDBENCH_DATA"):
        load(f"folder[path={folder}]")
    monkeypatch.undo()
    monkeypatch.setattr(mapped, "LARGE", 1)
    shutil.rmtree(root / "decoded")
    (root / "decoded").write_text("a file")
    with pytest.raises(DataError, match=r"cannot be written to .*; set DDBENCH_DATA to a folder that can be written"):
        load(f"folder[path={folder}]")


# Little memory


def measured(name, root, threshold):
    """Shape, mean and extreme of a problem with a validation split, made in a process of little memory."""
    mapped.LARGE = threshold
    registry = Registry()
    register_datasets(lambda *entry: registry.add(Entry("dataset", *entry, "x", "1")))
    problem = make_problem(registry.resolve("dataset", name), root=root, hold_out=True)
    batch = problem.real_batch(1, 2, torch.Generator().manual_seed(0))
    return tuple(problem.train.images.shape), tuple(batch.shape), problem.real_extreme, problem.fingerprint


@pytest.mark.parametrize("kind", ["folder", "arrays"])
def test_a_set_larger_than_the_memory(tmp_path, root, kind):
    """126 MB of images, in memory of 96; without a file that is mapped, they are refused."""
    images = np.random.default_rng(0).integers(0, 256, (160, 512, 512, 3), dtype=np.uint8)
    labels = np.arange(160) % 2
    name = f"arrays[path={tmp_path / 'large.npz'}]"
    if kind == "arrays":
        np.savez(tmp_path / "large.npz", x_train=images, y_train=labels, x_test=images[:2], y_test=labels[:2])
    else:
        name = f"folder[path={tmp_path / 'large'}]"
        for split, count in (("train", 160), ("test", 2)):
            for index in range(count):
                place = tmp_path / "large" / split / f"class {labels[index]}"
                place.mkdir(parents=True, exist_ok=True)
                Image.fromarray(images[index]).save(place / f"{index}.ppm")
    outcome = within(HEADROOM, measured, name, root, 2**20)
    assert isinstance(outcome, tuple), outcome
    shape, batch, extreme, _ = outcome
    assert shape == (144, 3, 512, 512)
    assert batch == (2, 3, 512, 512)
    assert extreme == pytest.approx(3**0.5, rel=0.01)  # of numbers that are uniform
    assert "would need" in within(HEADROOM, measured, name, root / "other", 2**40)
