"""A method that leaves ``as`` to ``auto``: the set's key names the parametrisation that it chooses."""

import pytest
from studies import numbers, records, small_run, write_arrays

from harness import load_distilled

IDC = "idc[inner=2,batch_real=4,n_data=8,batch_train=4]"


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    folder = tmp_path_factory.mktemp("auto")
    data = write_arrays(folder / "data.npz")
    small_run(
        data, folder / "store", method=IDC, pool="mix[of=convnet[width=4,depth=2]:0.5+mlp[width=8]:0.5]", students=1
    )
    return data, folder / "store"


def set_of(store):
    """The folder's name and the record of the set."""
    return next(item for item in records(store).items() if item[1]["kind"] == "distilled")


def test_the_key_and_the_settings_name_it(ran):
    _, record = set_of(ran[1])
    trajectory = record["identity"]["trajectory"]
    assert trajectory["parametrisation"]["name"] == "multi-formation"
    assert trajectory["settings"]["as"] == "multi-formation"
    assert trajectory["settings"]["augment"] == "color+crop+cutout"
    assert record["result"]["storage_floats"] == 3 * 16 * 16


def test_the_set_is_read_back_with_all_of_its_images(ran):
    name, _ = set_of(ran[1])
    images, labels = load_distilled(ran[1] / "cells" / name[:2] / name / "set.safetensors").training_data()
    assert len(images) == len(labels) == 3 * 4


def test_a_second_run_finds_everything(ran, tmp_path):
    before = numbers(ran[1])
    small_run(ran[0], ran[1], method=IDC, pool="mix[of=convnet[width=4,depth=2]:0.5+mlp[width=8]:0.5]", students=1)
    assert numbers(ran[1]) == before
