"""Intermediate features by name: what they are, that they change nothing, and what is said of a name that is none."""

import copy
import pickle
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.func import functional_call, stack_module_state, vmap

import mpdd_plugins
from harness import Architecture, Network, PluginError, UsageError, builtin
from harness.compute.network_structure import structure_of
from harness.types.options import Options

CONVOLUTIONS = {
    "vgg11": (1, 1, 2, 2, 2),
    "vgg13": (2, 2, 2, 2, 2),
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}
BLOCKS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3)}
GUIDE = Path(mpdd_plugins.__file__).parent / "README.md"
SHAPES = [(1, 28, 28), (3, 32, 32)]
TORCHVISION = {
    "resnet18": {"layer1": "layer1", "layer2.0": "layer2.0", "layer4": "layer4", "avgpool": "avgpool"},
    "squeezenet1_1": {"features.3": "3", "features.12": "12"},
}


def images_of(shape, count=2):
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(0))


def blocks_by_layers(network):
    """The taps of a sequence of convolution, activation and pooling, found by the kinds of its layers alone."""
    places, number = {}, 0
    for index, layer in enumerate(network.body):
        if isinstance(layer, nn.Conv2d):
            number += 1
        elif isinstance(layer, nn.ReLU):
            places[f"act{number}"] = places[f"block{number}"] = index
        elif "Pool" in type(layer).__name__:
            places[f"block{number}"] = index
    return places


def stages_by_layers(network, counts):
    """The taps of a VGG: the activation of a stage's last convolution, and the pooling after it if there is one."""
    activations = [index for index, layer in enumerate(network.body) if isinstance(layer, nn.ReLU)]
    places, done = {}, 0
    for stage, count in enumerate(counts, 1):
        done += count
        last = activations[done - 1]
        pooled = last + 1 < len(network.body) and "Pool" in type(network.body[last + 1]).__name__
        places |= {f"act{stage}": last, f"block{stage}": last + pooled}
    return places


def expected_places(name, network):
    """By tap, the index of a layer of the body, derived from the layers and not from what the network declares."""
    family = name.partition("[")[0]
    if family in CONVOLUTIONS:
        return stages_by_layers(network, CONVOLUTIONS[family])
    if family in BLOCKS:
        residual = [index for index, layer in enumerate(network.body) if type(layer).__name__ == "Residual"]
        ends = [sum(BLOCKS[family][: stage + 1]) - 1 for stage in range(4)]
        return {"stem": residual[0] - 1} | {f"block{stage}": residual[end] for stage, end in enumerate(ends, 1)}
    if family == "mlp":
        first, second = (index for index, layer in enumerate(network.body) if isinstance(layer, nn.ReLU))
        return {"block1": first, "block2": second}
    places = blocks_by_layers(network)
    if family == "alexnet":  # its third and fourth convolutions have no pooling
        del places["act3"], places["act4"]
    return places


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(
    "name",
    [
        *("mlp[width=16]", "convnet[width=4]", "convnet[width=4,depth=1,pool=none]"),
        "convnet[width=4,norm=batch,depth=5]",
        *("lenet", "alexnet", "alexnet[norm=batch]", "vgg11", "vgg13", "vgg16[norm=batch]", "vgg19"),
        *("resnet18", "resnet18[downsample=avgpool]", "resnet34[norm=batch]", "resnet50"),
    ],
)  # fmt: skip
@torch.no_grad()
def test_taps_are_what_the_layers_return(build, name, shape):
    network, images = build(name, shape).eval(), images_of(shape)
    expected = expected_places(name, network)
    seen = {}
    handles = [
        network.body[place].register_forward_hook(lambda _module, _inputs, output, tap=tap: seen.update({tap: output}))
        for tap, place in expected.items()
    ]
    vectors = network.features(images)
    for handle in handles:
        handle.remove()
    assert network.taps == (*sorted(expected, key=lambda tap: (expected[tap], tap.startswith("block"))), "features")
    taps = network.features(images, taps=network.taps)
    assert torch.equal(taps.pop("features"), vectors)
    assert all(torch.equal(value, seen[tap]) for tap, value in taps.items())
    assert structure_of(network) is not None, "steps of a network with taps are recorded as before"


@pytest.mark.parametrize("model", TORCHVISION)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@torch.no_grad()
def test_taps_of_torchvision_have_its_names(build, model, shape):
    network, images, seen = build(f"torchvision[model={model}]", shape).eval(), images_of(shape), {}
    for tap, place in TORCHVISION[model].items():
        part = network.trunk.get_submodule(place)
        part.register_forward_hook(lambda _module, _inputs, output, tap=tap: seen.update({tap: output}))
    taps = network.features(images, taps=network.taps)
    assert set(seen) < set(taps)
    assert all(torch.equal(taps[tap], value) for tap, value in seen.items())
    assert not {"fc", "features.13"} & set(taps), "what returns logits in torchvision has no tap"


def test_a_transformer_offers_its_layers(outline):
    taps = outline("torchvision[model=vit_b_16]", (3, 32, 32)).taps
    assert taps[1:13] == tuple(f"encoder.layers.encoder_layer_{layer}" for layer in range(12))
    assert (taps[0], *taps[13:]) == ("conv_proj", "encoder", "features")


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ["convnet[width=4,depth=2,norm=batch]", "torchvision[model=shufflenet_v2_x0_5]"])
def test_features_without_taps_are_the_same_with_and_without_a_reading_before(build, name, training):
    network, images = build(name, (3, 32, 32)).train(training), images_of((3, 32, 32), 4)
    untouched = copy.deepcopy(network)
    read = copy.deepcopy(network).features(images, taps=network.taps)["features"]
    before = structure_of(network)
    plain = network.features(images)
    assert torch.equal(plain, untouched.features(images))
    assert torch.equal(plain, read)
    assert structure_of(network) == before, "no hook is left behind"
    assert torch.equal(network(images), untouched(images))


def test_a_tap_has_first_and_second_derivatives(build):
    network = build("convnet[width=3,depth=2,act=swish]", (1, 8, 8)).double()
    images = images_of((1, 8, 8)).double().requires_grad_()

    def early(images):
        return network.features(images, taps=("block1",))["block1"].mean((2, 3))

    assert torch.autograd.gradcheck(early, images)
    assert torch.autograd.gradgradcheck(early, images)
    weight = network.body[0].weight
    loss = network.features(images, taps=("act2",))["act2"].square().sum()
    (gradient,) = torch.autograd.grad(loss, weight, create_graph=True)
    (second,) = torch.autograd.grad(gradient.square().sum(), images)
    assert bool(second.isfinite().all())
    assert float(second.abs().max()) > 0


class Tapping(nn.Module):
    """Calls ``features`` with taps, as a function of a network's weights needs it."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        return self.network.features(images, taps=("block1", "features"))


def test_taps_of_stacked_networks_are_those_of_each(build):
    networks = [Tapping(build("convnet[width=4,depth=2]", (1, 16, 16), seed)) for seed in range(3)]
    images = images_of((1, 16, 16))
    weights, buffers = stack_module_state(networks)
    together = vmap(lambda weights, buffers: functional_call(networks[0], (weights, buffers), (images,)))(
        weights, buffers
    )
    for index, network in enumerate(networks):
        for tap, value in network(images).items():
            torch.testing.assert_close(together[tap][index], value)


def test_threads_read_their_own_batches(build):
    network = build("convnet[width=4,depth=2]", (1, 16, 16)).eval()
    batches = list(images_of((1, 16, 16), 64).split(2))
    with torch.no_grad():
        alone = [network.features(batch, taps=("block1",))["block1"] for batch in batches]
        with ThreadPoolExecutor(4) as pool, torch.no_grad():
            together = list(pool.map(lambda batch: network.features(batch, taps=("block1",))["block1"], batches))
    assert all(torch.allclose(one_alone, value) for one_alone, value in zip(alone, together, strict=True))


def test_a_copy_has_the_taps(build):
    network, images = build("convnet[width=4,depth=2]", (1, 16, 16)), images_of((1, 16, 16))
    for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert torch.equal(
            other.features(images, taps=("act2",))["act2"], network.features(images, taps=("act2",))["act2"]
        )


def test_order_and_repetition_are_those_of_the_request(build):
    network, images = build("convnet[width=4,depth=2]", (1, 16, 16)), images_of((1, 16, 16))
    assert list(network.features(images, taps=["block2", "act1", "block2"])) == ["block2", "act1"]
    assert network.features(images, taps=()) == {}


# --- what is refused ---


class Bare(Network):
    """A third party's network, written before there were taps."""

    def __init__(self, _shape, classes):
        super().__init__()
        self.embed, self.act, self.classifier = nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, classes)

    def features(self, images):
        return self.act(self.embed(self.act(images.flatten(1)[:, :4])))


class Declaring(Bare):
    """A subclass that names what its base class runs."""

    def __init__(self, shape, classes, **places):
        super().__init__(shape, classes)
        self.name_taps(places)

    def features(self, images):
        return super().features(images) * 2


class BareArchitecture(Architecture):
    def network(self, shape, classes):
        return Bare(shape, classes)


IMAGES = torch.ones(2, 1, 2, 2)


@pytest.mark.parametrize(
    ("taps", "message"),
    [
        (("block9",), r"architecture convnet\[width=4,depth=1\] of ddbench has no tap 'block9': "
                      r"its taps are act1, block1, features$"),
        ("block1", r"write features\(images, taps=\('block1',\)\)"),
    ],
)  # fmt: skip
def test_a_tap_that_is_none_is_named_with_those_that_are(build, taps, message):
    with pytest.raises(UsageError, match=message):
        build("convnet[width=4,depth=1]", (1, 16, 16)).features(images_of((1, 16, 16)), taps=taps)


def test_networks_written_before_there_were_taps_offer_their_features():
    network = BareArchitecture(Options()).build((1, 2, 2), 3, torch.Generator())
    assert network.taps == ("features",)
    assert torch.equal(network.features(IMAGES, taps=("features",))["features"], network.features(IMAGES))
    with pytest.raises(UsageError, match="Bare has no tap 'block1': it offers 'features' alone"):
        network.features(IMAGES, taps=("block1",))


def test_a_subclass_of_a_network_inherits_and_overrides():
    network = Declaring((1, 2, 2), 3, embedded="embed")
    taps = network.features(IMAGES, taps=("embedded", "features"))
    assert torch.equal(taps["features"], 2 * torch.relu(taps["embedded"]))


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ({"first": "emebd"}, "Declaring has no submodule 'emebd' for the tap 'first'"),
        ({"first": ""}, "has no submodule ''"),
        ({"features": "embed"}, "cannot call a tap 'features'"),
        ({"": "embed"}, "cannot call a tap ''"),
    ],
)
def test_declarations_that_name_nothing_are_refused(places, message):
    with pytest.raises(PluginError, match=message):
        Declaring((1, 2, 2), 3, **places)


def test_a_submodule_that_runs_twice_or_never_is_no_tap():
    with pytest.raises(PluginError, match="tap 'often' of Declaring: its submodule 'act' ran 2 times: name one that"):
        Declaring((1, 2, 2), 3, often="act").features(IMAGES, taps=("often",))
    with pytest.raises(PluginError, match="its submodule 'classifier' ran 0 times"):
        Declaring((1, 2, 2), 3, never="classifier").features(IMAGES, taps=("never",))


def test_an_error_in_the_network_leaves_no_hook(build):
    network = build("convnet[width=4,depth=1]", (1, 16, 16))
    with pytest.raises(RuntimeError):
        network.features(torch.zeros(1, 7, 16, 16), taps=("block1",))
    assert structure_of(network) is not None


# --- what the guide says ---


def taps_in_the_guide():
    """By architecture, the taps that the guide lists."""
    rows = re.findall(r"^\| (`[^|]*) \| (`act1|`stem|`block1)(.*) \|$", GUIDE.read_text(), re.MULTILINE)
    for names, first, rest in rows:
        taps = re.findall(r"`([^`]*)`", first + rest)
        yield from ((name, tuple(taps)) for name in re.findall(r"`([^`]*)`", names))


def test_the_guide_lists_the_taps_of_all_built_in_architectures(outline):
    listed = dict(taps_in_the_guide())
    names = []
    builtin.register_architectures(lambda name, *_: names.append(name))
    assert set(listed) == set(names) - {"torchvision", "timm"}
    assert {name: outline(name, (3, 32, 32)).taps for name in listed} == listed
