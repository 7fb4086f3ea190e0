"""Convolutions by Winograd's filtering, against torch's own in double precision."""

import pathlib
import tempfile

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from harness.learning.native import code_folder, compiler, library
from harness.learning.winograd import FEWEST_TILES, SIDES, convolve, gains

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C++ compiler")
CLOSE = 1e-5


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def apart(given, right):
    return float((given - right).detach().norm() / right.detach().norm())


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
    given = torch.autograd.grad(output, ours, outer)
    told = torch.autograd.grad(right, exact, outer.double())
    assert all(apart(one, other) < CLOSE for one, other in zip(given, told, strict=True))


def test_images_that_do_not_lie_densely_are_taken_as_they_are():
    images, weight = drawn(2, 32, 8, 16)[..., ::2], drawn(32, 32, 3, 3, seed=1)
    assert apart(convolve(images, weight), functional.conv2d(images, weight, padding=1)) < CLOSE


def test_what_comes_out_lies_in_memory_as_what_went_in():
    images, weight = drawn(2, 32, 8, 8), drawn(64, 32, 3, 3, seed=1)
    assert convolve(images, weight).is_contiguous()
    last = images.contiguous(memory_format=torch.channels_last)
    assert convolve(last, weight).is_contiguous(memory_format=torch.channels_last)
    torch.library.opcheck(convolve, (last, weight))


def test_few_tiles_and_small_ones_gain_nothing():
    weight = drawn(32, 32, 3, 3)
    assert gains(drawn(FEWEST_TILES, 32, 4, 4), weight)
    assert not gains(drawn(FEWEST_TILES - 1, 32, 4, 4), weight)
    assert not gains(drawn(99, 32, 5, 5), weight), "most of the tiles would be empty"
    assert gains(drawn(99, 32, 8, 8), weight)
    assert not gains(drawn(99, 32, 8, 8), drawn(32, 32, 5, 5)), "larger filters are worth it from more channels on"
    assert gains(drawn(99, 64, 8, 8), drawn(64, 64, 5, 5))


def test_wide_layers_need_more_tiles_and_large_images_gain_nothing():
    weight = drawn(512, 512, 3, 3)
    assert gains(drawn(32, 512, 4, 4), weight)
    assert not gains(drawn(31, 512, 4, 4), weight)
    assert gains(drawn(1, 32, 96, 96), drawn(32, 32, 3, 3))
    assert not gains(drawn(1, 32, 192, 192), drawn(32, 32, 3, 3))


def test_a_second_derivative_is_refused_not_wrong():
    images = drawn(2, 32, 8, 8).requires_grad_()
    (gradient,) = torch.autograd.grad(convolve(images, drawn(32, 32, 3, 3)).square().sum(), images, create_graph=True)
    with pytest.raises(RuntimeError):
        torch.autograd.grad(gradient.sum(), images)


def test_code_is_kept_and_what_does_not_compile_says_why(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    good, bad = tmp_path / "good.cpp", tmp_path / "bad.cpp"
    good.write_text('extern "C" int seven() { return 7; }\n')
    bad.write_text("no such thing\n")
    for _ in range(2):
        library.cache_clear()
        assert library(good).seven() == 7
    (kept,) = (tmp_path / "ddbench-code").iterdir()
    assert kept.name.startswith("good-")
    kept.unlink()  # not emptied: it is mapped
    kept.touch()
    library.cache_clear()
    assert library(good).seven() == 7, "what is broken is made again"
    with pytest.raises(OSError, match=r"bad\.cpp"):
        library(bad)
    assert [path.name for path in (tmp_path / "ddbench-code").iterdir()] == [kept.name]
    monkeypatch.setenv("CXX", "no-such-compiler")
    library.cache_clear()
    with pytest.raises(OSError, match=r"no C\+\+ compiler"):
        library(good)
    library.cache_clear()


def test_without_a_home_code_is_kept_among_temporary_files(tmp_path, monkeypatch):
    def homeless(path):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(pathlib.Path, "expanduser", homeless)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    assert code_folder() == tmp_path / "ddbench-code"
