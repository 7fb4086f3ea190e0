"""Where a problem's pixels are: on a CPU as they came, elsewhere brought there once."""

from dataclasses import replace

import pytest
import torch
from toys import toy_problem

from harness import Streams
from harness.types.data.preprocessing import Whiten

META = torch.device("meta")
"""Stands for a GPU: its tensors have no values, and it refuses to compute with the CPU's."""


def test_real_images_are_those_that_the_stream_draws_preprocessed():
    problem = toy_problem()
    drawn = problem.real_batch(1, 5, Streams(3).generator("real", 2, 1))
    members = torch.nonzero(problem.train.labels == 1).flatten()
    order = torch.randperm(len(members), generator=Streams(3).generator("real", 2, 1))
    pixels = problem.train.images[members[order[:5]]]
    assert torch.equal(drawn, problem.preprocessing.to_inputs(pixels))
    assert len(problem.real_batch(1, 500, torch.Generator())) == len(members)


def test_on_a_cpu_nothing_is_copied():
    problem = toy_problem()
    assert problem.resident is problem


@pytest.mark.parametrize("whiten", [False, True])
def test_elsewhere_pixels_labels_and_preprocessing_are_brought_there_once(whiten):
    problem = toy_problem(device=META)
    if whiten:
        problem = replace(problem, preprocessing=Whiten.fitted(problem.train.images, 0.1))
    there = problem.resident
    assert there is problem.resident
    for split, own in ((there.train, problem.train), (there.score, problem.score)):
        assert split.images.is_meta
        assert split.labels.is_meta
        assert split.images.dtype == torch.uint8
        assert split.images.shape == own.images.shape
    assert all(tensor.is_meta for tensor in there.preprocessing.tensors().values())
    assert there.preprocessing.name == problem.preprocessing.name
    batch = problem.real_batch(0, 5, torch.Generator())
    assert batch.is_meta
    assert batch.shape == (5, *problem.shape)
    assert batch.dtype == torch.float32
