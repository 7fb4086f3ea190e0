"""Deep networks: sizes by the papers' formulas, logits by independent code, and deep ConvNets."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from harness import DataError, UsageError
from harness.architectures.deep.resnet_cifar import PaddedShortcut
from harness.compute.network_structure import structure_of
from harness.types.seeds import global_rng_from

COLOUR, GREY = (3, 32, 32), (1, 28, 28)
SMALL = {
    "resnet-cifar": "resnet-cifar[depth=8]",
    "resnet-cifar B": "resnet-cifar[depth=8,shortcut=B,norm=group]",
    "wrn": "wrn[depth=10]",
    "densenet-bc": "densenet-bc[depth=10,growth=4]",
    "vit": "vit[dim=16,depth=2,heads=2,mlp=24,dropout=0]",
    "convnet": "convnet[width=8,depth=12,skip=true]",
}


def parameters_of(network):
    return sum(parameter.numel() for parameter in network.parameters())


def images_of(shape, count=2):
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def fill(network):
    """Give every parameter other ordinary values, so that none stands for another."""
    with torch.no_grad():
        for k, parameter in enumerate(network.parameters(), start=1):
            i = torch.arange(1, parameter.numel() + 1, dtype=torch.float64)
            scale = 1 / (parameter[0].numel() ** 0.5 if parameter.ndim > 1 else 2)
            parameter.copy_((scale * torch.sin(0.7 * i * k + k)).view_as(parameter) + (parameter.ndim == 1) * 0.3)


# --- parameters, by the papers ----------------------------------------------------------------------------------------


def norm(channels):
    return 2 * channels  # scale and shift


def conv(inputs, outputs, kernel=3):
    return inputs * outputs * kernel**2  # without bias


def of_resnet(depth, channels, shortcut="A", classes=10):
    """He et al., 2016: 6 n + 2 layers; option A has no parameters."""
    total, inputs = conv(channels, 16) + norm(16), 16
    for width in (16, 32, 64):
        for _ in range((depth - 2) // 6):
            total += conv(inputs, width) + conv(width, width) + 2 * norm(width)
            if shortcut == "B" and inputs != width:
                total += conv(inputs, width, 1) + norm(width)
            inputs = width
    return total + 64 * classes + classes


def of_wrn(depth, factor, channels, classes=10):
    """Zagoruyko and Komodakis, 2016: norms of what each convolution reads, and a last one."""
    total, inputs = conv(channels, 16), 16
    for width in (16 * factor, 32 * factor, 64 * factor):
        for _ in range((depth - 4) // 6):
            total += norm(inputs) + conv(inputs, width) + norm(width) + conv(width, width)
            total += conv(inputs, width, 1) if inputs != width else 0
            inputs = width
    return total + norm(inputs) + inputs * classes + classes


def of_densenet(depth, growth, channels, classes=10):
    """Huang et al., 2017: bottlenecks of 4 k channels, and compression by half."""
    total, width = conv(channels, 2 * growth), 2 * growth
    for block in range(3):
        for _ in range((depth - 4) // 6):
            total += norm(width) + conv(width, 4 * growth, 1) + norm(4 * growth) + conv(4 * growth, growth)
            width += growth
        if block < 2:
            total += norm(width) + conv(width, width // 2, 1)
            width //= 2
    return total + norm(width) + width * classes + classes


def of_vit(dim, depth, mlp, patches, channels, patch=4, classes=10):
    """Dosovitskiy et al., 2021: patches, positions and a class token, then attention and perceptrons after norms."""
    embedded = channels * patch**2 * dim + dim + dim + (patches + 1) * dim
    attention = norm(dim) + 3 * dim**2 + dim**2 + dim  # queries, keys and values without bias
    perceptron = norm(dim) + dim * mlp + mlp + mlp * dim + dim
    return embedded + depth * (attention + perceptron) + norm(dim) + dim * classes + classes


@pytest.mark.parametrize(("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)])
def test_resnets_have_the_papers_parameters(outline, depth, millions):
    count = parameters_of(outline(f"resnet-cifar[depth={depth}]", COLOUR))
    assert count == of_resnet(depth, 3)
    assert round(count / 1e6, 1 if depth == 110 else 2) == millions
    assert parameters_of(outline(f"resnet-cifar[depth={depth}]", GREY)) == of_resnet(depth, 1)


def test_projections_are_all_that_option_b_adds(outline):
    count = parameters_of(outline("resnet-cifar[shortcut=B]", COLOUR))
    assert count == of_resnet(20, 3, "B") == of_resnet(20, 3) + 16 * 32 + 64 + 32 * 64 + 128


@pytest.mark.parametrize(
    ("depth", "width", "millions"),
    [(40, 1, 0.6), (40, 2, 2.2), (40, 4, 8.9), (16, 8, 11.0), (22, 8, 17.2), (28, 10, 36.5)],
)
def test_wide_resnets_have_the_papers_parameters(outline, depth, width, millions):
    count = parameters_of(outline(f"wrn[depth={depth},width={width}]", COLOUR))
    assert count == of_wrn(depth, width, 3)
    assert round(count / 1e6, 1) == millions


@pytest.mark.parametrize(("depth", "growth", "millions"), [(100, 12, 0.8), (250, 24, 15.3), (190, 40, 25.6)])
def test_densenets_have_the_papers_parameters(outline, depth, growth, millions):
    count = parameters_of(outline(f"densenet-bc[depth={depth},growth={growth}]", COLOUR))
    assert count == of_densenet(depth, growth, 3)
    assert round(count / 1e6, 1) == millions


def test_defaults_have_the_parameters_of_their_formulas(outline):
    for shape, channels, patches in ((COLOUR, 3, 64), (GREY, 1, 49)):
        assert parameters_of(outline("densenet-bc", shape)) == of_densenet(40, 12, channels)
        assert parameters_of(outline("wrn", shape)) == of_wrn(16, 2, channels)
        assert parameters_of(outline("vit", shape)) == of_vit(512, 6, 512, patches, channels)
    assert round(of_vit(512, 6, 512, 64, 3) / 1e6, 1) == 9.5


# --- logits, by other code --------------------------------------------------------------------------------------------


class ByHand:
    """Functional layers that take the parameters of a network in their order."""

    def __init__(self, network):
        self.weights = iter(network.parameters())

    def conv(self, maps, stride=1, padding=1):
        return F.conv2d(maps, next(self.weights), stride=stride, padding=padding)

    def norm(self, maps):
        return F.group_norm(maps, 4, next(self.weights), next(self.weights))

    def active(self, maps):
        return F.relu(self.norm(maps))

    def head(self, maps):
        logits = F.linear(maps.mean((2, 3)), next(self.weights), next(self.weights))
        assert next(self.weights, None) is None
        return logits


def resnet_by_hand(hand, maps, option):
    maps = hand.active(hand.conv(maps))
    for stage in range(3):
        stride = 2 if stage else 1
        branch = hand.norm(hand.conv(hand.active(hand.conv(maps, stride))))
        if stage and option == "A":
            smaller = maps[:, :, ::2, ::2]
            maps = torch.cat([smaller, torch.zeros_like(smaller)], 1)
        elif stage:
            maps = hand.norm(hand.conv(maps, 2, 0))
        maps = F.relu(branch + maps)
    return hand.head(maps)


def wrn_by_hand(hand, maps):
    maps = hand.conv(maps)
    for stage in range(3):
        active, stride = hand.active(maps), 2 if stage else 1
        branch = hand.conv(hand.active(hand.conv(active, stride)))
        maps = branch + hand.conv(active, stride, 0)
    return hand.head(hand.active(maps))


def densenet_by_hand(hand, maps):
    maps = hand.conv(maps)
    for block in range(3):
        narrow = hand.conv(hand.active(maps), padding=0)
        maps = torch.cat([maps, hand.conv(hand.active(narrow))], 1)
        if block < 2:
            maps = F.avg_pool2d(hand.conv(hand.active(maps), padding=0), 2)
    return hand.head(hand.active(maps))


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (1, 8, 8)], ids=str)
@pytest.mark.parametrize(
    ("name", "by_hand"),
    [
        ("resnet-cifar[depth=8,norm=group]", lambda hand, maps: resnet_by_hand(hand, maps, "A")),
        ("resnet-cifar[depth=8,norm=group,shortcut=B]", lambda hand, maps: resnet_by_hand(hand, maps, "B")),
        ("wrn[depth=10,norm=group]", wrn_by_hand),
        ("densenet-bc[depth=10,growth=16,norm=group]", densenet_by_hand),
    ],
)
@torch.no_grad()
def test_logits_are_those_of_the_papers_networks(build, name, by_hand, shape):
    network = build(name, shape).double()
    fill(network)
    images = images_of(shape)
    torch.testing.assert_close(network(images), by_hand(ByHand(network), images), rtol=0, atol=1e-10)


@torch.no_grad()
def test_a_transformer_is_torchs(build):
    """torch's encoder layers, which have biases where ours have none."""
    network = build("vit[dim=16,depth=2,heads=2,mlp=24]", (3, 8, 12)).double().eval()
    fill(network)
    tokens, *blocks, last = network.body
    images = images_of((3, 8, 12))
    patches = F.unfold(images, 4, stride=4).transpose(1, 2)  # (n, 6, 3 * 16)
    embedded = patches @ tokens.embed.weight.flatten(1).T + tokens.embed.bias
    maps = torch.cat([tokens.first.expand(2, 1, 16), embedded], 1) + tokens.positions
    for block in blocks:
        own = nn.TransformerEncoderLayer(16, 2, 24, 0.1, "gelu", batch_first=True, norm_first=True).double().eval()
        first, attention, _ = block.attention
        second, widen, _, _, narrow, _ = block.perceptron
        own.norm1, own.norm2, own.linear1, own.linear2 = first, second, widen, narrow
        own.self_attn.in_proj_weight.copy_(attention.inputs.weight)
        own.self_attn.in_proj_bias.zero_()
        own.self_attn.out_proj.load_state_dict(attention.output.state_dict())
        maps = own(maps)
    vectors = F.layer_norm(maps[:, 0], (16,), last.norm.weight, last.norm.bias)
    torch.testing.assert_close(network.features(images), vectors, rtol=0, atol=1e-10)


def test_the_shortcut_without_parameters_takes_every_second_pixel():
    maps = torch.arange(2 * 5 * 4.0).view(1, 2, 5, 4)
    shortcut = PaddedShortcut(2, 3)(maps)
    assert shortcut.shape == (1, 5, 3, 2)
    assert torch.equal(shortcut[0, :2], maps[0, :, ::2, ::2])
    assert not shortcut[0, 2:].any()


def test_convolutions_start_as_he_et_al_say(build):
    weight = build("resnet-cifar", COLOUR).body[-2].branch[0].weight.detach()
    assert weight.shape == (64, 64, 3, 3)
    assert float(weight.std()) == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.02)
    assert abs(float(weight.mean())) < 1e-3


# --- any size, any norm, any method -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 16, 16), (1, 28, 28), (3, 32, 32), (3, 64, 64)], ids=str)
def test_gradients_of_gradients_reach_images_of_every_size(build, name, shape):
    network = build(SMALL[name], shape)
    images = images_of(shape).float().requires_grad_()
    loss = F.cross_entropy(network(images), torch.arange(2))
    gradient = torch.autograd.grad(loss, list(network.parameters()), create_graph=True)
    (wanted,) = torch.autograd.grad(sum(part.square().sum() for part in gradient), images)
    assert bool(wanted.isfinite().all())
    assert float(wanted.abs().max()) > 0
    assert structure_of(network) is not None, "a GPU records its steps"


@pytest.mark.parametrize("normalisation", ["instance", "batch", "layer", "group", "none"])
@pytest.mark.parametrize(
    "name", ["resnet-cifar[depth=8,norm={}]", "wrn[depth=10,norm={}]", "densenet-bc[depth=10,growth=16,norm={}]"]
)
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 5, 7)], ids=str)
@torch.no_grad()
def test_every_norm_distinguishes_images_of_the_smallest_sizes(build, name, normalisation, shape):
    features = build(name.format(normalisation), shape).features(images_of(shape).float())
    assert bool(features.isfinite().all())
    assert float(features.std(0).mean() / features.abs().mean()) > 0.01


@pytest.mark.parametrize(
    ("name", "taps"),
    [
        ("resnet-cifar[depth=8]", {"stem": 2, "block1": 3, "block2": 4, "block3": 5}),
        ("wrn[depth=16]", {"stem": 0, "block1": 2, "block2": 4, "block3": 6}),
        ("densenet-bc[depth=10]", {"stem": 0, "block1": 1, "block2": 3, "block3": 5}),
        ("vit[depth=2]", {"stem": 0, "block1": 1, "block2": 2}),
        ("convnet[depth=2,skip=true]", {"act1": 2, "block1": 3, "act2": 4, "block2": 5}),
    ],
)
def test_taps_are_what_stages_return(outline, name, taps):
    network = outline(name, COLOUR)
    assert network._tap_places == tuple((tap, f"body.{place}") for tap, place in taps.items())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet-cifar[depth=30]", r"resnet-cifar\[depth=30\]: should be 6 n \+ 2 with a whole n, such as 20, 32"),
        ("wrn[depth=20]", r"wrn\[depth=20\]: should be 6 n \+ 4"),
        ("densenet-bc[depth=41]", r"densenet-bc\[depth=41\]: should be 6 n \+ 4"),
        ("vit[heads=7]", "vit: dim=512 must be a multiple of heads=7"),
        ("resnet-cifar[shortcut=C]", r"resnet-cifar\[shortcut=C\]: should be 'A' or 'B'"),
        ("convnet[smallest=0]", r"convnet\[smallest=0\]: should be greater than or equal to 1"),
    ],
)
def test_sizes_that_no_network_has_are_refused(architecture, name, message):
    with pytest.raises(UsageError, match=message):
        architecture(name)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        (
            "vit",
            (1, 30, 30),
            r"vit\[patch=4\] cannot use images of 30x30: resize them to multiples of 4 pixels",
        ),
        (
            "densenet-bc[growth=3,norm=group]",
            COLOUR,
            "densenet-bc with norm=group has a layer of 6 channels, which",
        ),
        ("wrn[norm=instance]", (1, 1, 1), "wrn with norm=instance cannot distinguish images of 1x1"),
    ],
)
def test_images_that_cannot_work_are_refused_in_a_line(outline, name, shape, message):
    with pytest.raises(DataError, match=message) as caught:
        outline(name, shape)
    assert "\n" not in str(caught.value)


# --- deep ConvNets ----------------------------------------------------------------------------------------------------


def plain_convnet(depth):
    """The layers of DC's ConvNet of 8 channels for grey images of 32x32, with torch's own modules."""
    layers, side = [], 32
    for block in range(depth):
        layers += [nn.Conv2d(8 if block else 1, 8, 3, padding=1), nn.GroupNorm(8, 8), nn.ReLU()]
        smaller = side // 2
        if smaller > 1 or block == depth - 1:  # instance norm needs more than one pixel
            layers.append(nn.AvgPool2d(2))
            side = smaller
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(8 * side**2, 10))


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
@torch.no_grad()
def test_convnets_of_up_to_five_blocks_are_what_they_were(build, architecture, depth):
    name = f"convnet[width=8,depth={depth}]"
    with global_rng_from(torch.Generator().manual_seed(7)):
        reference = plain_convnet(depth)
    network = build(name, (1, 32, 32), seed=7)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), reference.parameters(), strict=True))
    images = images_of((1, 32, 32)).float()
    torch.testing.assert_close(network(images), reference(images))
    assert architecture(name).options.as_json() == {
        "width": 8, "depth": depth, "norm": "instance", "act": "relu", "pool": "avg",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "shape", "side"),
    [
        ("depth=6", (3, 32, 32), 4),
        ("depth=30", (3, 64, 64), 4),
        ("depth=30", (1, 28, 28), 4),
        ("depth=6", (1, 16, 16), 4),
        ("depth=7", (1, 8, 8), 4),
        ("depth=6,norm=batch,smallest=1", (3, 32, 32), 1),
        ("depth=3,smallest=8", (3, 32, 32), 8),
        ("depth=8,smallest=2,skip=true", (3, 32, 32), 2),
    ],
)
def test_deep_convnets_pool_only_maps_that_are_larger_than_the_smallest(outline, options, shape, side):
    features = outline(f"convnet[width=8,{options}]", shape).features(torch.empty(2, *shape, device="meta"))
    assert features.shape == (2, 8 * side * side)


def test_only_options_that_make_another_network_are_part_of_a_key(architecture):
    def extra(options):
        return architecture(f"convnet[{options}]").options.as_json().keys() & {"skip", "smallest"}

    assert extra("depth=8,smallest=1") == set(), "the network of before, with its key"
    assert extra("depth=8") == extra("depth=3,smallest=4") == {"smallest"}
    assert extra("skip=true") == {"skip"}
    assert extra("skip=false,smallest=1") == set()


@torch.no_grad()
def test_a_residual_block_adds_to_its_input_before_the_pooling(build):
    network = build("convnet[width=8,depth=3,skip=true,act=swish]", (1, 16, 16)).double()
    fill(network)
    weights, maps = iter(network.parameters()), images_of((1, 16, 16))
    for block in range(3):
        branch = F.conv2d(maps, next(weights), next(weights), padding=1)
        branch = F.silu(F.group_norm(branch, 8, next(weights), next(weights)))
        maps = F.avg_pool2d(branch / 3**0.5 + maps if block else branch, 2)
    logits = F.linear(maps.flatten(1), next(weights), next(weights))
    torch.testing.assert_close(network(images_of((1, 16, 16))), logits, rtol=0, atol=1e-10)
