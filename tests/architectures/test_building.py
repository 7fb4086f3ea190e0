"""Options, initial weights and what importing costs."""

import subprocess
import sys

import pytest
import torch

from harness.architectures.layers import Layers
from harness.errors import UsageError

ONE_OF_EACH = [
    "mlp", "convnet[width=8]", "convnet[width=8,norm=batch]", "lenet", "alexnet", "vgg11", "resnet18",
    "torchvision[model=shufflenet_v2_x0_5]",
]  # fmt: skip


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_weights_follow_the_generator_and_leave_the_global_one_alone(build, name):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = build(name, (1, 16, 16), seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    again, other = build(name, (1, 16, 16), seed=3), build(name, (1, 16, 16), seed=4)
    pairs = list(zip(first.parameters(), again.parameters(), strict=True))
    assert all(torch.equal(first, second) for first, second in pairs)
    assert not torch.equal(next(first.parameters()), next(other.parameters()))
    assert first.training


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_no_activation_works_in_place(build, name):
    modules = list(build(name, (3, 32, 32)).modules())
    assert len(modules) > 3
    assert not any(getattr(module, "inplace", False) for module in modules)


def test_layers_start_as_torch_starts_them(build):
    conv, norm = build("convnet", (3, 32, 32)).body[:2]
    bound = 1 / 27**0.5
    assert 0.95 * bound < conv.weight.abs().max().item() <= bound
    assert 0.8 * bound < conv.bias.abs().max().item() <= bound
    assert bool((norm.weight == 1).all())
    assert bool((norm.bias == 0).all())


def test_only_the_convnet_with_batch_norm_has_an_augmentation_of_its_own(architecture):
    assert architecture("convnet[norm=batch]").augmentations == {"dc": "crop+noise"}
    for name in ("convnet", "convnet[norm=layer]", "vgg11[norm=batch]", "resnet18[norm=batch]"):
        assert architecture(name).augmentations == {}


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("relu", lambda x: x * (x > 0)),
        ("sigmoid", lambda x: 1 / (1 + torch.exp(-x))),
        ("leakyrelu", lambda x: torch.where(x > 0, x, 0.01 * x)),
        ("swish", lambda x: x / (1 + torch.exp(-x))),
    ],
)
def test_activations_are_what_their_names_say(name, formula):
    x = torch.linspace(-4, 4, 9, dtype=torch.float64).view(1, 1, 3, 3)
    torch.testing.assert_close(Layers("test", (1, 3, 3)).activation(name).body()(x), formula(x))


@pytest.mark.parametrize(
    "options",
    ["norm=instance", "norm=layer,act=sigmoid", "norm=group,act=leakyrelu,pool=max", "norm=batch,act=swish,pool=none"],
)
def test_gradients_of_gradients_reach_the_images(build, options):
    network = build(f"convnet[width=8,depth=2,{options}]", (3, 16, 16))
    images = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0), requires_grad=True)
    loss = torch.nn.functional.cross_entropy(network(images), torch.arange(4))
    gradients = torch.autograd.grad(loss, list(network.parameters()), create_graph=True)
    (wanted,) = torch.autograd.grad(sum(gradient.square().sum() for gradient in gradients), images)
    assert bool(torch.isfinite(wanted).all())
    assert float(wanted.abs().max()) > 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("convnet[norm=instanse]", r"convnet\[norm=instanse\]: should be 'instance'"),
        ("convnet[width=0]", r"convnet\[width=0\]: should be greater than 0"),
        ("convnet[depth=0]", r"convnet\[depth=0\]: should be greater than 0"),
        ("convnet[width=6,norm=group]", r"convnet\[norm=group\]: width must be a multiple of 4"),
        ("convnet[dept=4]", "did you mean 'depth'"),
        ("alexnet[norm=layer]", r"alexnet\[norm=layer\]: should be 'none' or 'batch'"),
        ("lenet[norm=batch]", "it takes no options"),
        ("resnet18[downsample=max]", r"resnet18\[downsample=max\]: should be 'stride' or 'avgpool'"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(architecture, name, message):
    with pytest.raises(UsageError, match=message):
        architecture(name)


def test_importing_the_package_imports_no_torch():
    code = "import sys, harness.architectures; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
