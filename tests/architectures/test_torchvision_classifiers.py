"""Classifiers of torchvision, taken apart before their last linear layer. Warnings are errors here."""

import pytest
import torch
from torch import nn

from harness.architectures.torchvision import classifiers
from harness.errors import DataError, UsageError


@pytest.mark.parametrize(
    ("model", "shape", "dimension"),
    [
        ("resnet18", (3, 32, 32), 512),
        ("mobilenet_v3_small", (1, 28, 28), 1024),
        ("googlenet", (3, 32, 32), 1024),
        ("shufflenet_v2_x0_5", (1, 16, 16), 1024),
        ("mnasnet0_5", (3, 64, 64), 1280),
    ],
)
def test_features_and_classifier_make_up_the_model(build, model, shape, dimension):
    network = build(f"torchvision[model={model}]", shape)
    images = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    features = network.features(images)
    assert features.shape == (2, dimension)
    assert isinstance(network.classifier, nn.Linear)
    assert network.classifier.out_features == 10
    assert not torch.allclose(features[0], features[1])
    assert network(images).shape == (2, 10)


def test_a_model_that_ends_in_a_convolution_is_taken_apart_too(build):
    from torchvision.models import get_model

    network = build("torchvision[model=squeezenet1_1]", (3, 32, 32)).eval()
    whole = get_model("squeezenet1_1", weights=None, num_classes=10).eval()
    names = {"trunk": "features", "classifier.1": "classifier"}
    for name, part in names.items():
        whole.get_submodule(part).load_state_dict(network.get_submodule(name).state_dict())
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert network.features(images).ndim == 2
        torch.testing.assert_close(network(images), whole(images))


def test_taking_a_model_apart_does_not_change_it(build, architecture):
    from torchvision.models import get_model

    network = build("torchvision[model=resnet18]", (3, 32, 32)).eval()
    whole = get_model("resnet18", weights=None, num_classes=10).eval()
    whole.load_state_dict(
        {key.removeprefix("trunk.").replace("classifier", "fc"): value for key, value in network.state_dict().items()}
    )
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(network(images), whole(images), rtol=0, atol=0)


def test_the_trial_image_leaves_no_trace(build):
    network = build("torchvision[model=resnet18]", (3, 32, 32))
    assert int(network.trunk.bn1.num_batches_tracked) == 0
    assert float(network.trunk.bn1.running_mean.abs().max()) == 0
    assert all(module.training for module in network.modules())


def test_a_grey_image_takes_all_three_channels(build):
    grey, colour = (build("torchvision[model=shufflenet_v2_x0_5]", (channels, 32, 32)).eval() for channels in (1, 3))
    images = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(grey(images), colour(images.repeat(1, 3, 1, 1)))


@pytest.mark.parametrize(
    ("model", "shape", "message"),
    [
        ("alexnet", (3, 32, 32), r"torchvision\[model=alexnet\] cannot use images of 32x32: .*63x63 or more"),
        ("inception_v3", (3, 32, 32), r"cannot use images of 32x32: .*75x75 or more"),
        ("vit_b_16", (1, 28, 28), r"cannot use images of 28x28: .*patch size"),
        ("resnet18", (4, 32, 32), "takes grey or colour images, not 4 channels"),
    ],
)
def test_images_that_a_model_cannot_take_are_refused_in_one_line(build, model, shape, message):
    with pytest.raises(DataError, match=message) as caught:
        build(f"torchvision[model={model}]", shape)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("torchvision[model=resnet19]", "there is no such classifier: did you mean .*'resnet18'"),
        ("torchvision[model=fcn_resnet50]", "there is no such classifier: did you mean .*'resnet50'"),
        ("torchvision", r"needs its option 'model': write torchvision\[model=...\]"),
    ],
)
def test_models_that_are_no_classifiers_are_refused(architecture, name, message):
    with pytest.raises(UsageError, match=message):
        architecture(name)


def test_only_classifiers_are_listed():
    names = classifiers()
    assert {"resnet18", "vit_b_16", "inception_v3", "squeezenet1_1"} <= set(names)
    assert not any(word in name for name in names for word in ("fcn", "rcnn", "raft", "quantized", "r3d"))
