"""Convolutions by Winograd's filtering, against torch's own in double precision."""

import math
import pathlib
import tempfile

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rounding import CLOSE, apart, drawn
from torch.nn import functional

from harness.compute.native_code import code_folder, compiled_library, compiler
from harness.compute.winograd import FEWEST_VALUES, SIDES, convolve, is_faster

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C++ compiler")


@settings(max_examples=25, deadline=None)
@given(
    count=st.integers(1, 9),
    inputs=st.sampled_from([16, 32, 80]),
    outputs=st.sampled_from([16, 48]),
    height=st.integers(1, 18),
    width=st.integers(1, 18),
    side=st.sampled_from(SIDES),
    images_last=st.booleans(),
    outer_last=st.booleans(),
)
def test_values_and_gradients_are_those_of_the_definition(
    count, inputs, outputs, height, width, side, images_last, outer_last
):
    def leaves(dtype):
        images, weight = drawn(count, inputs, height, width), drawn(outputs, inputs, side, side, seed=1) / inputs
        if images_last:
            images = images.contiguous(memory_format=torch.channels_last)
        return images.to(dtype).requires_grad_(), weight.to(dtype).requires_grad_()

    outer = drawn(count, outputs, height, width, seed=2)
    if outer_last:
        outer = outer.contiguous(memory_format=torch.channels_last)
    ours, exact = leaves(torch.float32), leaves(torch.float64)
    output, right = convolve(*ours), functional.conv2d(*exact, padding=side // 2)
    assert output.shape == right.shape
    assert apart(output, right) < CLOSE
    gradients = torch.autograd.grad(output, ours, outer)
    expected = torch.autograd.grad(right, exact, outer.double())
    assert all(apart(actual, other) < CLOSE for actual, other in zip(gradients, expected, strict=True))


def test_images_that_do_not_lie_densely_are_taken_as_they_are():
    images, weight = drawn(2, 32, 8, 16)[..., ::2], drawn(32, 32, 3, 3, seed=1)
    assert apart(convolve(images, weight), functional.conv2d(images, weight, padding=1)) < CLOSE


@pytest.mark.parametrize("side", SIDES)
def test_what_comes_out_lies_in_memory_as_what_went_in(side):
    images, weight = drawn(2, 32, 8, 8), drawn(64, 32, side, side, seed=1)
    assert convolve(images, weight).is_contiguous()
    last = images.contiguous(memory_format=torch.channels_last)
    assert convolve(last, weight).is_contiguous(memory_format=torch.channels_last)
    torch.library.opcheck(convolve, (last, weight))


def test_few_tiles_small_ones_and_few_channels_gain_nothing():
    weight = drawn(64, 64, 3, 3)
    fewest = math.ceil(FEWEST_VALUES / 64)
    assert is_faster(drawn(fewest, 64, 4, 4), weight)
    assert not is_faster(drawn(fewest - 1, 64, 4, 4), weight)
    assert not is_faster(drawn(999, 64, 5, 5), weight), "most of the tiles would be empty"
    assert not is_faster(drawn(999, 32, 4, 4), drawn(64, 32, 3, 3))
    assert not is_faster(drawn(999, 64, 4, 4), drawn(64, 64, 5, 5)), "larger filters are worth it from more channels on"
    assert is_faster(drawn(999, 128, 4, 4), drawn(128, 128, 5, 5))
    assert not is_faster(drawn(999, 64, 4, 4), drawn(64, 64, 5, 3))


def test_wide_layers_need_more_tiles_and_large_images_gain_nothing():
    weight = drawn(512, 512, 3, 3)
    assert is_faster(drawn(32, 512, 4, 4), weight)
    assert not is_faster(drawn(31, 512, 4, 4), weight)
    assert is_faster(drawn(1, 64, 84, 84), drawn(64, 64, 3, 3))
    assert not is_faster(drawn(1, 64, 192, 192), drawn(64, 64, 3, 3))


@pytest.mark.parametrize(
    ("images", "weight"),
    [
        (drawn(2, 24, 8, 8), drawn(32, 24, 3, 3)),
        (drawn(2, 32, 8, 8), drawn(24, 32, 3, 3)),
        (drawn(2, 32, 8, 8), drawn(32, 48, 3, 3)),
        (drawn(2, 32, 8, 8), drawn(32, 32, 7, 7)),
        (drawn(2, 32, 8, 8), drawn(32, 32, 3, 5)),
        (drawn(32, 8, 8), drawn(32, 32, 3, 3)),
        (drawn(2, 32, 8, 8).double(), drawn(32, 32, 3, 3).double()),
    ],
)
def test_what_its_code_is_not_made_for_is_refused(images, weight):
    with pytest.raises(ValueError, match="no convolution by tiles of"):
        convolve(images, weight)


@pytest.mark.parametrize("side", SIDES)
def test_gradients_lie_in_memory_as_what_they_are_of(side):
    leaves = [drawn(2, 32, 8, 8), drawn(48, 32, side, side, seed=1)]
    leaves = [leaf.contiguous(memory_format=torch.channels_last).requires_grad_() for leaf in leaves]
    gradients = torch.autograd.grad(convolve(*leaves).square().sum(), leaves)
    assert all(actual.is_contiguous(memory_format=torch.channels_last) for actual in gradients)
    right = torch.autograd.grad(functional.conv2d(*leaves, padding=side // 2).square().sum(), leaves)
    assert all(apart(actual, other) < CLOSE for actual, other in zip(gradients, right, strict=True))


@pytest.mark.parametrize("side", SIDES)
def test_a_second_derivative_is_refused_not_wrong(side):
    images, weight = drawn(2, 32, 8, 8).requires_grad_(), drawn(32, 32, side, side)
    (gradient,) = torch.autograd.grad(convolve(images, weight).square().sum(), images, create_graph=True)
    with pytest.raises(RuntimeError):
        torch.autograd.grad(gradient.sum(), images)


def test_code_is_kept_and_what_does_not_compile_says_why(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    good, bad = tmp_path / "good.cpp", tmp_path / "bad.cpp"
    good.write_text('extern "C" int seven() { return 7; }\n')
    bad.write_text("no such thing\n")
    for _ in range(2):
        compiled_library.cache_clear()
        assert compiled_library(good).seven() == 7
    (library_file,) = (tmp_path / "ddbench-code").iterdir()
    assert library_file.name.startswith("good-")
    library_file.unlink()  # not emptied: it is mapped
    library_file.touch()
    compiled_library.cache_clear()
    assert compiled_library(good).seven() == 7, "what is broken is made again"
    with pytest.raises(OSError, match=r"bad\.cpp"):
        compiled_library(bad)
    assert [path.name for path in (tmp_path / "ddbench-code").iterdir()] == [library_file.name]
    monkeypatch.setenv("CXX", "no-such-compiler")
    compiled_library.cache_clear()
    with pytest.raises(OSError, match=r"no C\+\+ compiler"):
        compiled_library(good)
    compiled_library.cache_clear()


def test_without_a_home_code_is_kept_among_temporary_files(tmp_path, monkeypatch):
    def homeless(path):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(pathlib.Path, "expanduser", homeless)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    assert code_folder() == tmp_path / "ddbench-code"
