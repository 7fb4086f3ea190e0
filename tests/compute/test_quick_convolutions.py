"""Which convolutions go another way, and that all give what torch's own do."""

import pytest
import torch
from rounding import CLOSE, apart, drawn
from torch.nn import functional

from harness.compute import winograd
from harness.compute.native_code import compiler
from harness.compute.quick_convolutions import FEW_PIXELS, QuickConvolutions, convolve_as_product, quick_convolution

needs_compiler = pytest.mark.skipif(compiler() is None, reason="no C++ compiler")


def ways(monkeypatch):
    """Notes the ways that convolutions take."""
    taken = []

    def noted(images, weight):
        taken.append(quick_convolution(images, weight))
        return taken[-1]

    monkeypatch.setattr("harness.compute.quick_convolutions.quick_convolution", noted)
    return taken


def counted(monkeypatch):
    """Notes the convolutions by tiles."""
    calls, convolve = [], winograd.convolve
    monkeypatch.setattr("harness.compute.winograd.convolve", lambda *args: calls.append(args) or convolve(*args))
    return calls


@needs_compiler
@pytest.mark.parametrize(
    ("module", "quick"),
    [
        (torch.nn.Conv2d(128, 144, 3, padding=1), True),
        (torch.nn.Conv2d(128, 144, 3, padding=1, bias=False), True),
        (torch.nn.Conv2d(128, 144, 3, padding="same"), True),
        (torch.nn.Conv2d(128, 144, 5, padding=2), True),
        (torch.nn.Conv2d(128, 112, 5, padding=2), False),
        (torch.nn.Conv2d(128, 144, 3, padding=1, padding_mode="circular"), False),
        (torch.nn.Conv2d(128, 144, 3), False),
        (torch.nn.Conv2d(128, 144, 3, padding="valid"), False),
        (torch.nn.Conv2d(128, 144, 5, padding=1), False),
        (torch.nn.Conv2d(128, 144, 7, padding=3), False),
        (torch.nn.Conv2d(128, 144, (5, 3), padding=(2, 1)), False),
        (torch.nn.Conv2d(128, 144, (3, 5), padding="same"), False),
        (torch.nn.Conv2d(128, 144, 4, padding="same"), False),
        (torch.nn.Conv2d(128, 144, 3, padding=1, stride=2), False),
        (torch.nn.Conv2d(128, 144, 3, padding=1, dilation=2), False),
        (torch.nn.Conv2d(128, 144, 3, padding=(1, 2)), False),
        (torch.nn.Conv2d(128, 256, 3, padding=1, groups=2), False),
        (torch.nn.Conv2d(128, 24, 3, padding=1), False),
        (torch.nn.Conv2d(128, 72, 3, padding=1), False),
    ],
)
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
def test_only_what_is_such_a_convolution_is_computed_by_tiles(module, quick, monkeypatch):
    images, calls = drawn(12, 128, 16, 16), counted(monkeypatch)
    right = module(images)
    with QuickConvolutions():
        assert apart(module(images), right) < CLOSE
    assert bool(calls) is quick


@needs_compiler
@pytest.mark.parametrize("side", [3, 5])
def test_however_one_writes_it(side, monkeypatch):
    calls, rim = counted(monkeypatch), side // 2
    images, weight, bias = drawn(12, 128, 16, 16), drawn(128, 128, side, side, seed=1), drawn(128, seed=2)
    right = functional.conv2d(images, weight, bias, padding=rim)
    written = [
        {"padding": rim},
        {"padding": (rim, rim)},
        {"padding": [rim, rim]},
        {"padding": "same"},
        {"padding": rim, "stride": (1, 1)},
        {"padding": rim, "stride": [1, 1], "dilation": [1, 1]},
        {"padding": rim, "dilation": (1, 1), "groups": 1},
    ]
    with QuickConvolutions():
        for options in written:
            assert apart(functional.conv2d(images, weight, bias, **options), right) < CLOSE
        assert apart(functional.conv2d(images, weight, bias, 1, rim), right) < CLOSE
    assert len(calls) == len(written) + 1


def test_no_images_give_no_logits():
    with QuickConvolutions():
        assert torch.nn.Conv2d(256, 512, 3, padding=1)(drawn(0, 256, 2, 2)).shape == (0, 512, 2, 2)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("count", "height", "width"), [(10, 2, 2), (3, 1, 5), (10, 4, 4), (1, 7, 3)])
def test_wide_layers_on_few_pixels_are_products_of_matrices(bias, count, height, width, monkeypatch):
    def output_and_gradients(network, images):
        leaf = images.clone().requires_grad_()
        output = network(leaf)
        outer = drawn(*output.shape, seed=2).to(output)
        return output, *torch.autograd.grad(output, (leaf, *network.parameters()), outer)

    images = drawn(count, 256, height, width)
    network = torch.nn.Conv2d(256, 512, 3, padding=1, bias=bias)
    taken = ways(monkeypatch)
    with QuickConvolutions():
        ours = output_and_gradients(network, images)
    assert taken == [convolve_as_product]
    assert all(actual.is_contiguous() for actual in ours), "as from torch, so that views of them are possible"
    right = output_and_gradients(network.double(), images.double())
    assert all(apart(actual, other) < 1e-6 for actual, other in zip(ours, right, strict=True))


def test_only_trained_wide_layers_on_few_pixels_are():
    weight = drawn(512, 256, 3, 3).requires_grad_()
    few = drawn(FEW_PIXELS // 4, 256, 2, 2)
    assert quick_convolution(few, weight) is convolve_as_product
    assert quick_convolution(drawn(FEW_PIXELS // 4 + 1, 256, 2, 2), weight) is None
    assert quick_convolution(few, weight.detach()) is None
    assert quick_convolution(few, weight.contiguous(memory_format=torch.channels_last)) is None
    assert quick_convolution(drawn(9, 256, 1, 1), weight) is None
    assert quick_convolution(drawn(0, 256, 2, 2), weight) is None
    assert quick_convolution(drawn(9, 128, 2, 2), drawn(512, 128, 3, 3).requires_grad_()) is None
    assert quick_convolution(few, drawn(512, 256, 7, 7).requires_grad_()) is None
    with torch.no_grad():
        assert quick_convolution(few, weight) is None


def test_other_precisions_and_single_images_are_torch_s(monkeypatch):
    taken = ways(monkeypatch)
    network = torch.nn.Conv2d(64, 64, 3, padding=1)
    images = drawn(8, 64, 16, 16)
    with QuickConvolutions():
        network(images[0])
        with torch.autocast("cpu", torch.bfloat16):
            network(images)
        network.double()(images.double())
        assert taken == []
        network.float()(images)
    assert len(taken) == 1


def test_what_torch_refuses_torch_refuses():
    images = drawn(64, 64, 16, 16)
    for wrong in (drawn(64, 48, 3, 3), drawn(64, 64, 3, 3).double()):
        with QuickConvolutions(), pytest.raises(RuntimeError, match=r"channels|type"):
            functional.conv2d(images, wrong, padding=1)
    for wrong in (drawn(1), drawn(64).double()):
        with QuickConvolutions(), pytest.raises(RuntimeError, match=r"[Bb]ias"):
            functional.conv2d(images, drawn(64, 64, 3, 3), wrong, padding=1)
    with QuickConvolutions(), pytest.raises(RuntimeError, match="groups"):
        functional.conv2d(images, drawn(64, 64, 3, 3), padding=1, groups=2)
