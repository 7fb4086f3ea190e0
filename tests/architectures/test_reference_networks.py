"""The networks are those of the DC code base: counts of parameters, sizes of features, logits for known weights."""

import itertools
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

COLOUR, GREY = (3, 32, 32), (1, 28, 28)
PUBLISHED = json.loads((Path(__file__).parents[1] / "data" / "reference_values.json").read_text())["networks"]

# name, parameters for colour, features for colour, parameters for grey, features for grey; ten classes
COUNTS = [
    ("mlp", 411_146, 128, 118_282, 128),
    ("convnet", 320_010, 2048, 317_706, 2048),
    ("lenet", 62_006, 400, 61_706, 400),
    ("alexnet", 1_872_202, 3072, 1_865_802, 3072),
    ("alexnet[norm=batch]", 1_874_122, 3072, 1_867_722, 3072),
    ("vgg11", 9_231_114, 512, 9_229_962, 512),
    ("vgg11[norm=batch]", 9_231_114, 512, 9_229_962, 512),
    ("resnet18", 11_173_962, 512, 11_172_810, 512),
    ("resnet18[norm=batch]", 11_173_962, 512, 11_172_810, 512),
    ("resnet18[downsample=avgpool]", 11_250_762, 8192, 11_213_770, 4608),
    ("resnet18[downsample=avgpool,norm=batch]", 11_250_762, 8192, 11_213_770, 4608),
    ("convnet[depth=1]", 331_530, 32768, 329_226, 32768),
    ("convnet[depth=2]", 233_610, 8192, 231_306, 8192),
    ("convnet[depth=4]", 452_490, 512, 450_186, 512),
    ("convnet[depth=5]", 596_490, 128, 594_186, 128),
    ("convnet[width=32]", 24_714, 512, 24_138, 512),
    ("convnet[width=64]", 86_282, 1024, 85_130, 1024),
    ("convnet[width=256]", 1_229_834, 4096, 1_225_226, 4096),
    ("convnet[norm=none]", 319_242, 2048, 316_938, 2048),
    ("convnet[norm=batch]", 320_010, 2048, 317_706, 2048),
    ("convnet[norm=group]", 320_010, 2048, 317_706, 2048),
    ("convnet[norm=layer]", 663_306, 2048, 661_002, 2048),
    ("convnet[depth=1,norm=layer]", 593_418, 32768, 591_114, 32768),
    ("convnet[pool=none]", 1_610_250, 131072, 1_607_946, 131072),
    ("convnet[pool=max]", 320_010, 2048, 317_706, 2048),
    ("convnet[act=sigmoid]", 320_010, 2048, 317_706, 2048),
    ("convnet[act=leakyrelu]", 320_010, 2048, 317_706, 2048),
    ("convnet[act=swish,norm=batch]", 320_010, 2048, 317_706, 2048),
    ("vgg13", 9_416_010, 512, 9_416_010 - 1152, 512),
    ("vgg16", 14_728_266, 512, 14_728_266 - 1152, 512),
    ("vgg19", 20_040_522, 512, 20_040_522 - 1152, 512),
    ("resnet34", 21_282_122, 512, 21_282_122 - 1152, 512),
    ("resnet50", 23_520_842, 2048, 23_520_842 - 1152, 2048),
]

NAMES = {
    "MLP 3x32x32": "mlp",
    "ConvNet 3x32x32": "convnet",
    "LeNet 3x32x32": "lenet",
    "AlexNet 3x32x32": "alexnet",
    "VGG11 3x32x32": "vgg11",
    "ResNet18 3x32x32": "resnet18",
    "ConvNetGN 3x32x32": "convnet[norm=group]",
    "ConvNetASwish 3x32x32": "convnet[act=swish]",
    "ConvNetMP 3x32x32": "convnet[pool=max]",
    "VGG11BN 3x32x32": "vgg11[norm=batch]",
}


def parameters_of(network):
    return sum(parameter.numel() for parameter in network.parameters())


def fill(network):
    """Give every parameter the values of reference_values.json."""
    norms = (nn.GroupNorm, nn.BatchNorm2d, nn.LayerNorm)
    scales = {id(module.weight) for module in network.modules() if isinstance(module, norms)}
    with torch.no_grad():
        for k, parameter in enumerate(network.parameters(), start=1):
            i = torch.arange(1, parameter.numel() + 1, dtype=torch.float64)
            values = 0.05 * torch.sin(0.7 * i * k) + (id(parameter) in scales)
            parameter.copy_(values.view_as(parameter))


@pytest.mark.parametrize(
    ("name", "colour", "colour_features", "grey", "grey_features"), COUNTS, ids=[row[0] for row in COUNTS]
)
def test_parameters_and_features_are_as_many_as_in_the_reference(
    outline, name, colour, colour_features, grey, grey_features
):
    for shape, count, dimension in ((COLOUR, colour, colour_features), (GREY, grey, grey_features)):
        network = outline(name, shape)
        assert parameters_of(network) == count
        features = network.features(torch.empty(2, *shape, device="meta"))
        assert features.shape == (2, dimension)
        assert network.classifier(features).shape == (2, 10)


@pytest.mark.parametrize(
    ("name", "tensors", "vectors"),
    [
        ("mlp", 6, 3),
        ("convnet", 14, 10),
        ("convnet[depth=1]", 6, 4),
        ("convnet[norm=layer]", 14, 4),
        ("convnet[norm=none]", 8, 4),
        ("lenet", 10, 5),
        ("alexnet", 12, 6),
        ("vgg11", 34, 25),
        ("resnet18", 62, 41),
    ],
)
def test_as_many_tensors_are_trained_as_in_the_reference(outline, name, tensors, vectors):
    trained = [parameter for parameter in outline(name, COLOUR).parameters() if parameter.requires_grad]
    assert len(trained) == tensors
    assert sum(parameter.ndim == 1 for parameter in trained) == vectors


@pytest.mark.parametrize("published", NAMES)
def test_logits_are_the_published_ones(architecture, published):
    assert NAMES.keys() == PUBLISHED.keys()
    network = architecture(NAMES[published]).network(COLOUR, 10).double().eval()
    fill(network)
    images = torch.sin(0.01 * torch.arange(4 * 3 * 32 * 32, dtype=torch.float64)).view(4, *COLOUR)
    with torch.no_grad():
        logits = network(images)
    expected = torch.tensor(PUBLISHED[published]["logits"], dtype=torch.float64)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-8)


def test_resnet_with_average_pooling_pools_after_the_first_norm_and_before_the_shortcuts_norm(architecture):
    network = architecture("resnet18[downsample=avgpool]").network(GREY, 10).double()
    fill(network)
    weights = iter(network.parameters())

    def conv(maps, padding):
        return F.conv2d(maps, next(weights), padding=padding)

    def norm(maps):
        return F.group_norm(maps, maps.shape[1], next(weights), next(weights))

    images = torch.cos(0.013 * torch.arange(2 * 28 * 28, dtype=torch.float64)).view(2, *GREY)
    with torch.no_grad():
        maps = F.relu(norm(conv(images, 1)))
        for stage, block in itertools.product(range(4), range(2)):
            smaller = stage > 0 and block == 0
            branch = F.relu(norm(conv(maps, 1)))
            branch = F.avg_pool2d(branch, 2) if smaller else branch
            branch = norm(conv(branch, 1))
            maps = F.relu(branch + (norm(F.avg_pool2d(conv(maps, 0), 2)) if smaller else maps))
        logits = F.linear(maps.flatten(1), next(weights), next(weights))
        torch.testing.assert_close(network(images), logits, rtol=0, atol=1e-10)
    assert next(weights, None) is None


@pytest.mark.parametrize("name", ["convnet", "lenet", "alexnet", "vgg11[norm=batch]"])
@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_of_28_is_seen_as_one_of_32_with_a_black_margin(build, name, channels):
    small, large = build(name, (channels, 28, 28)), build(name, (channels, 32, 32))
    images = torch.rand(2, channels, 28, 28, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(small.eval()(images), large.eval()(F.pad(images, (2, 2, 2, 2))))
