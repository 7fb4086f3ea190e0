"""The published numbers that are shipped, and which of them stands beside a row."""

import csv
from importlib.resources import files

import pytest

from harness.report.published import nearest_published, published_for

ROW = {
    "like": "cifar10",
    "preprocessing": "cifar10",
    "score_on": "test",
    "ipc": 1,
    "iterations": 1000,
    "method": "dc",
    "pool": "single",
    "protocol": "plain v1",
    "architecture": "convnet",
}
LINES = list(csv.DictReader(files("harness.report").joinpath("published.csv").read_text().splitlines()))


def test_every_line_is_whole_and_is_found_by_its_own_condition():
    keys = ("like", "ipc", "iterations", "method", "pool", "protocol", "architecture")
    assert len({tuple(line[key] for key in keys) for line in LINES}) == len(LINES) > 250
    for line in LINES:
        assert line["source"]
        row = {**ROW, **{key: line[key] or None for key in keys}, "preprocessing": line["like"]}
        published = published_for(row)
        assert published.accuracy == float(line["accuracy"]), line
        assert published.std == (float(line["std"]) if line["std"] else None)
        assert published.source == line["source"]
        assert 9 < published.accuracy < 100


@pytest.mark.parametrize(
    ("changes", "accuracy"),
    [
        ({}, 28.3),
        ({"method": "dsa", "protocol": "plain dsa v1", "ipc": 10}, 52.1),
        ({"method": "dm", "protocol": "plain dsa v1", "ipc": 50, "iterations": 20000}, 63.0),
        ({"pool": "main-similar", "iterations": 3000, "architecture": "lenet"}, 22.31),
        ({"pool": "main-similar", "iterations": 3000}, 28.24),
        ({"like": "mnist", "preprocessing": "mnist", "architecture": "mlp"}, 70.10),
    ],
)
def test_numbers_against_their_sources(changes, accuracy):
    assert published_for({**ROW, **changes}).accuracy == accuracy


def test_what_is_only_remembered_is_left_out():
    assert not [line for line in LINES if line["method"] == "mtt" and line["ipc"] == "1"]


@pytest.mark.parametrize(
    ("changes", "departures"),
    [
        ({}, ()),
        ({"iterations": 900}, ("1000 iterations",)),
        ({"method": "dc[lr_img=1]"}, ("method dc",)),
        ({"pool": "single[main=vgg11]"}, ("pool single",)),
        ({"protocol": "plain quick v1"}, ("protocol plain v1",)),
        ({"score_on": "validation"}, ("scored on test",)),
        ({"preprocessing": "auto"}, ("normalised as cifar10",)),
        ({"iterations": 900, "preprocessing": "auto"}, ("1000 iterations", "normalised as cifar10")),
    ],
)
def test_departures_are_named_and_then_it_is_not_the_number_for_the_row(changes, departures):
    nearest = nearest_published({**ROW, **changes})
    assert (nearest.published.accuracy, nearest.departures) == (28.3, departures)
    assert (published_for({**ROW, **changes}) is None) == bool(departures)


def test_the_nearest_iterations_are_taken():
    row = {**ROW, "pool": "total-random", "architecture": "vgg11"}
    assert nearest_published({**row, "iterations": 1900}).published.accuracy == 13.62
    assert nearest_published({**row, "iterations": 10}).published.accuracy == 11.35


@pytest.mark.parametrize(
    "changes",
    [{"like": None}, {"ipc": 2}, {"architecture": "mlp[width=64]"}, {"method": "mine"}, {"protocol": "kd v1"},
     {"pool": None}, {"method": "file:x.pt#0"}],
)  # fmt: skip
def test_other_things_have_no_published_number(changes):
    assert nearest_published({**ROW, "architecture": "convnet", **changes}) is None


def test_all_training_images_have_theirs():
    row = {**ROW, "method": "whole", "pool": None, "ipc": None, "iterations": None}
    nearest = nearest_published(row)
    assert (nearest.published.accuracy, nearest.departures) == (84.8, ("protocol plain, trained on all images",))
