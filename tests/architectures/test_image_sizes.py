"""Networks fit images of any usual size, and distinguish images at each."""

import itertools

import pytest
import torch
from torch import nn

from harness import builtin
from harness.errors import DataError

REGISTERED: list[str] = []
builtin.register_architectures(lambda name, target, summary: REGISTERED.append(name))
EXAMPLES = {"torchvision": "torchvision[model=resnet18]", "timm": "timm[model=resnet18]"}
SHAPES = [(channels, side, side) for channels, side in itertools.product((1, 3), (16, 28, 32, 64))]
DEEP = {"vgg13", "vgg16", "vgg19", "resnet34", "resnet50", "resnet-cifar", "wrn", "densenet-bc", "vit"}  # costly
FEWER_SHAPES = [(1, 16, 16), (1, 28, 28), (3, 32, 32), (3, 64, 64)]
CASES = [(name, shape) for name in REGISTERED for shape in (FEWER_SHAPES if name in DEEP else SHAPES)]


def norm_sizes(network, images):
    """Heights and widths of the maps that each norm sees, in order."""
    seen = []
    norms = (nn.GroupNorm, nn.BatchNorm2d, nn.LayerNorm)
    hooks = [
        module.register_forward_pre_hook(lambda module, inputs: seen.append(tuple(inputs[0].shape[2:])))
        for module in network.modules()
        if isinstance(module, norms)
    ]
    with torch.no_grad():
        network(images)
    for hook in hooks:
        hook.remove()
    return seen


def assert_distinguishes(network, shape):
    """Features and logits of two images differ, by much more than rounding."""
    images = torch.randn(2, *shape, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        features = network.features(images)
        logits = network.classifier(features)
    for values in (features, logits):
        assert values.ndim == 2
        assert bool(torch.isfinite(values).all())
        assert float(values.std(0).mean() / values.abs().mean()) > 0.01


@pytest.mark.parametrize(("name", "shape"), CASES, ids=str)
def test_every_architecture_distinguishes_images_of_every_size(build, name, shape):
    assert_distinguishes(build(EXAMPLES.get(name, name), shape), shape)


@pytest.mark.parametrize("shape", [*SHAPES, (3, 16, 32), (1, 28, 64)], ids=lambda shape: "x".join(map(str, shape)))
@pytest.mark.parametrize(
    "name",
    ["convnet[depth=5]", "convnet[depth=7,pool=max,smallest=1]", "vgg11", "resnet18", "resnet18[downsample=avgpool]"],
)
def test_no_instance_norm_sees_a_single_pixel(outline, name, shape):
    sizes = norm_sizes(outline(name, shape), torch.empty(2, *shape, device="meta"))
    assert sizes
    assert all(height * width > 1 for height, width in sizes)


@pytest.mark.parametrize(
    ("name", "side", "sides"),
    [
        ("convnet", 32, [32, 16, 8]),
        ("convnet[pool=none]", 16, [16, 16, 16]),
        ("convnet[depth=5]", 32, [32, 16, 8, 4, 2]),
        ("convnet[depth=5]", 16, [16, 8, 4, 2, 2]),
        ("convnet[depth=5,norm=batch]", 16, [16, 8, 4, 2, 1]),
        ("convnet[depth=5,norm=group]", 16, [16, 8, 4, 2, 1]),
        ("convnet[depth=5,norm=group,width=4]", 16, [16, 8, 4, 2, 2]),
        ("vgg11", 32, [32, 16, 8, 8, 4, 4, 2, 2]),
        ("vgg11", 16, [16, 8, 4, 4, 2, 2, 2, 2]),
        ("vgg11[norm=batch]", 16, [16, 8, 4, 4, 2, 2, 1, 1]),
        ("alexnet[norm=batch]", 16, [16, 8, 4, 4, 4]),
    ],
)
def test_a_pooling_is_left_out_only_where_a_norm_needs_it(outline, name, side, sides):
    seen = norm_sizes(outline(name, (3, side, side)), torch.empty(2, 3, side, side, device="meta"))
    assert seen == [(size, size) for size in sides]


@pytest.mark.parametrize(
    ("name", "shape", "dimension"),
    [
        ("convnet", (3, 64, 64), 128 * 8 * 8),
        ("convnet", (3, 16, 16), 128 * 2 * 2),
        ("convnet", (1, 28, 32), 128 * 4 * 4),
        ("convnet", (3, 16, 32), 128 * 2 * 4),
        ("convnet[depth=8,norm=batch,smallest=1]", (3, 16, 16), 128),
        ("lenet", (3, 14, 14), 16),
        ("lenet", (1, 64, 64), 16 * 13 * 13),
        ("alexnet", (3, 64, 64), 192 * 8 * 8),
        ("alexnet", (3, 2, 2), 192),
        ("vgg11", (3, 64, 64), 512 * 2 * 2),
        ("resnet18", (3, 64, 64), 512),
        ("resnet18[downsample=avgpool]", (3, 64, 64), 512 * 8 * 8),
        ("resnet50[downsample=avgpool]", (3, 32, 32), 2048 * 4 * 4),
        ("resnet18[norm=layer]", (1, 28, 28), 512),
        ("resnet18[norm=layer,downsample=avgpool]", (1, 28, 28), 4608),
    ],
)
def test_heads_fit_the_images(outline, name, shape, dimension):
    network = outline(name, shape)
    features = network.features(torch.empty(2, *shape, device="meta"))
    assert features.shape == (2, dimension)
    assert network.classifier(features).shape == (2, 10)


@pytest.mark.parametrize("name", ["convnet[depth=4]", "vgg11", "resnet18", "resnet18[downsample=avgpool]"])
@pytest.mark.parametrize("shape", [(1, 2, 2), (3, 8, 8), (3, 4, 9)], ids=lambda shape: "x".join(map(str, shape)))
def test_tiny_images_leave_instance_norm_something_to_see(build, name, shape):
    assert_distinguishes(build(name, shape), shape)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("lenet", (1, 13, 13), "lenet cannot use images of 13x13: resize them to 14x14 or more"),
        ("lenet", (3, 32, 8), "lenet cannot use images of 32x8: "),
        ("convnet", (3, 1, 1), "convnet with norm=instance cannot distinguish images of 1x1, .*norm=batch"),
        ("convnet[norm=group,width=4]", (3, 1, 1), "convnet with norm=group cannot distinguish images of 1x1"),
        ("vgg13", (3, 1, 1), "vgg13 with norm=instance cannot distinguish images of 1x1"),
        ("resnet50", (1, 1, 1), "resnet50 with norm=instance cannot distinguish images of 1x1"),
    ],
)
def test_images_that_cannot_work_are_refused_in_one_line(outline, name, shape, message):
    with pytest.raises(DataError, match=message) as caught:
        outline(name, shape)
    assert "\n" not in str(caught.value)
