"""The pools' distributions, as the paper gives them."""

import re

import pytest
import torch
from torch import nn
from toys import component, registry, resolve

from harness import UsageError
from harness.learning.networks.lottery import mixture
from harness.planning.planner import Planner
from harness.planning.request import Request
from mpdd_plugins.pools.deep import DEEP


def pool(name):
    return component("pool", name)


def shares(name, iteration=0):
    """Probability of each architecture once equal ones are merged."""
    return {str(chosen): share for chosen, share in mixture(pool(name), iteration, resolve)}


def test_single_is_one_architecture_always():
    assert shares("single", 7) == {"convnet": 1.0}
    assert shares("single[main=vgg11[norm=batch]]") == {"vgg11[norm=batch]": 1.0}
    assert pool("single[main=mlp]").main == "mlp"


def test_total_random_is_four_architectures_at_a_quarter():
    assert shares("total-random") == dict.fromkeys(("convnet", "lenet", "alexnet", "vgg11"), 0.25)
    assert pool("total-random").main is None
    assert shares("total-random[of=mlp+lenet]") == {"mlp": 0.5, "lenet": 0.5}


def test_main_model_is_the_convnet_and_now_and_then_another():
    expected = {"convnet": 0.9} | dict.fromkeys(("lenet", "alexnet", "vgg11"), 0.1 / 3)
    assert shares("main-model") == pytest.approx(expected)


def test_main_similar_is_32_convnets_one_of_which_is_the_main_one():
    probabilities = shares("main-similar")
    assert len(probabilities) == 32
    assert probabilities.pop("convnet") == pytest.approx(0.903125)
    assert list(probabilities.values()) == pytest.approx([0.003125] * 31)
    assert "convnet[norm=batch,act=swish,pool=max]" in probabilities
    assert all(resolve(name).options.depth == 3 and resolve(name).options.width == 128 for name in probabilities)


def test_main_similar_varies_activation_norm_and_pooling_of_table_3():
    options = [resolve(name).options for name in shares("main-similar")]
    assert {(o.act, o.norm, o.pool) for o in options} == {
        (act, norm, pool)
        for act in ("relu", "sigmoid", "leakyrelu", "swish")
        for norm in ("instance", "batch", "layer", "group")
        for pool in ("avg", "max")
    }


@pytest.mark.parametrize(
    ("option", "main", "share"),
    [
        ("main=0.8", "convnet", 0.8),
        ("main=convnet", "convnet", 0.9),
        ("main=vgg11:0.7", "vgg11", 0.7),
        ("main=vgg11[norm=batch]", "vgg11[norm=batch]", 0.9),
        ("main=vgg11[norm=batch]:0.7", "vgg11[norm=batch]", 0.7),
        ("main=resnet18[norm=batch]:1e-3", "resnet18[norm=batch]", 0.001),
        ("main=1", "convnet", 1.0),
    ],
)
@pytest.mark.parametrize("policy", ["main-similar", "main-model"])
def test_main_gives_the_main_architecture_or_its_probability_or_both(policy, option, main, share):
    probabilities = shares(f"{policy}[{option},others=lenet+mlp]")
    assert probabilities[main] == pytest.approx(share)
    assert pool(f"{policy}[{option}]").main == main
    assert {name: probabilities.get(name, 0) for name in ("lenet", "mlp")} == pytest.approx(
        dict.fromkeys(("lenet", "mlp"), (1 - share) / 2)
    )


def test_others_may_hold_the_main_architecture_and_options():
    probabilities = shares("main-similar[main=0.5,others=convnet[depth=3]+vgg11[norm=batch]]")
    assert probabilities == {"convnet": 0.75, "vgg11[norm=batch]": 0.25}


def test_size_of_the_similar_convnets_can_be_chosen():
    options = [resolve(name).options for name in shares("main-similar[depth=2,width=16]") if name != "convnet"]
    assert len(options) == 32
    assert {(o.depth, o.width) for o in options} == {(2, 16)}


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ("main=convnet[width=16]", (3, 16)),
        ("main=convnet[depth=2,width=16]:0.5", (2, 16)),
        ("main=convnet[norm=batch,width=16],width=32", (3, 32)),
        ("main=convnet[depth=2,width=16],depth=1", (1, 16)),
        ("main=ddbench:convnet[width=16]", (3, 16)),
        ("main=convnet[width=16],preset=as-released", (1, 16)),
        ("main=vgg11[norm=batch]", (3, 128)),
        ("main=0.5", (3, 128)),
    ],
)
def test_similar_convnets_have_the_size_of_the_main_one_unless_an_option_gives_theirs(options, size):
    policy = pool(f"main-similar[{options}]")
    similar = [resolve(name).options for name in policy.similar]
    assert len(similar) == 32
    assert {(o.depth, o.width) for o in similar} == {size}


def test_similar_convnets_of_several_depths_are_equally_probable():
    probabilities = shares("main-similar[main=convnet[width=16]:0.8,depth=3+6+12+30]")
    assert len(probabilities) == 4 * 32
    assert probabilities.pop("convnet[width=16]") == pytest.approx(0.8 + 0.2 / 128)
    assert list(probabilities.values()) == pytest.approx([0.2 / 128] * 127)
    options = [resolve(name).options for name in probabilities]
    assert {(o.depth, o.skip, o.width) for o in options} == {
        (3, False, 16), (6, True, 16), (12, True, 16), (30, True, 16),
    }  # fmt: skip
    assert [sum(o.depth == depth for o in options) for depth in (3, 6, 12, 30)] == [31, 32, 32, 32]


@pytest.mark.parametrize(
    ("options", "residual"),
    [
        ("depth=6,skip=false", {(6, False)}),
        ("depth=2+6,skip=true", {(2, True), (6, True)}),
        ("main=convnet[depth=30,skip=true]", {(30, True)}),
        ("main=convnet[depth=30,skip=true],depth=3+30", {(3, True), (30, True)}),
        ("main=convnet[depth=30]", {(30, True)}),
        ("main=vgg11,depth=5", {(5, False)}),
    ],
)
def test_deep_similar_convnets_are_residual_unless_an_option_says_otherwise(options, residual):
    similar = [resolve(name).options for name in pool(f"main-similar[{options}]").similar]
    assert {(o.depth, o.skip) for o in similar} == residual


def test_a_single_depth_has_the_key_that_it_had():
    def identity(options):
        return registry().resolve("pool", f"main-similar{options}").identity()["options"]

    before = {"main": "convnet:0.9", "others": [], "depth": None, "width": None, "warmup": None, "preset": "as-written"}
    assert identity("") == before
    assert identity("[depth=6]") == before | {"depth": 6}
    assert identity("[depth=3+6]") == before | {"depth": [3, 6]}
    assert identity("[skip=true]") == before | {"skip": True}
    assert str(registry().resolve("pool", "main-similar[depth=3+6]")) == "main-similar[depth=3+6]"


@pytest.mark.parametrize("depth", ["0", "3+", "+", "3+x", "3.5"])
def test_depths_that_are_no_whole_numbers_are_refused(depth):
    with pytest.raises(UsageError, match=rf"main-similar\[depth={re.escape(depth)}\]: should be "):
        pool(f"main-similar[depth={depth}]")


def test_deep_is_a_main_convnet_and_deep_networks_as_mix_would_say():
    probabilities = shares("deep")
    assert probabilities.pop("convnet") == pytest.approx(0.9)
    assert pool("deep").main == "convnet"
    assert list(probabilities.values()) == pytest.approx([0.02] * 5)
    of = "+".join(["convnet:0.9", *(f"{name}:0.02" for name in DEEP)])
    assert shares(f"mix[of={of}]") == pytest.approx(shares("deep"))
    for name in probabilities:
        network = component("architecture", name).build((1, 8, 8), 3, torch.Generator())
        layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
        main_path = [layer for layer in layers if getattr(layer, "kernel_size", (3,)) != (1, 1) or "densenet" in name]
        assert len(main_path) >= 30


def test_deep_takes_the_options_of_main_model():
    assert shares("deep[main=convnet[width=16]:0.5,others=resnet-cifar[depth=110]]") == {
        "convnet[width=16]": 0.5, "resnet-cifar[depth=110]": 0.5,
    }  # fmt: skip
    assert shares("deep[warmup=3]", 2) == {"convnet": 1.0}


def test_an_option_set_for_the_convnet_reaches_the_main_one_and_the_similar_ones():
    planner = Planner(Request(set=("convnet.width=16", "convnet.depth=2")), registry())
    drawn = [chosen.options for chosen, _ in mixture(pool("main-similar"), 0, planner.architecture)]
    assert len(drawn) == 32  # one of them equals the main one
    assert {(o.depth, o.width) for o in drawn} == {(2, 16)}


def test_the_size_of_similar_convnets_is_another_version_of_the_pool():
    """Version 1 took 128 channels whatever the main ConvNet had; its records are not those of version 2."""
    assert registry().resolve("pool", "main-similar").identity()["version"] == 2


@pytest.mark.parametrize("policy", ["main-similar", "main-model"])
def test_warming_up_draws_the_main_model_only(policy):
    name = f"{policy}[warmup=3]"
    assert [len(shares(name, iteration)) for iteration in range(5)] == [1, 1, 1, *[len(shares(policy))] * 2]
    assert shares(name, 2) == {"convnet": 1.0}
    assert shares(name, 3) == shares(policy)


def test_as_released_warms_up_for_501_passes_and_then_draws_convnets_of_depth_1():
    name = "main-similar[preset=as-released]"
    assert shares(name, 0) == shares(name, 500) == {"convnet": 1.0}
    probabilities = shares(name, 501)
    assert probabilities.pop("convnet") == pytest.approx(0.9)  # the main one has depth 3: none of the 32 equals it
    assert len(probabilities) == 32
    assert {resolve(other).options.depth for other in probabilities} == {1}
    assert shares("main-similar[preset=as-released,warmup=0,depth=3]") == shares("main-similar")


def test_mix_has_the_weights_of_its_option_scaled_to_one():
    assert shares("mix[of=convnet:0.5+resnet18:0.5]") == {"convnet": 0.5, "resnet18": 0.5}
    assert shares("mix[of=convnet:2+vgg11[norm=batch]:5+mlp:1]") == pytest.approx(
        {"convnet": 0.25, "vgg11[norm=batch]": 0.625, "mlp": 0.125}
    )
    assert shares("mix[of=mlp:1+mlp:2+lenet:1]") == {"mlp": 0.75, "lenet": 0.25}


@pytest.mark.parametrize(
    "name",
    [
        "mix",
        "mix[of=convnet]",
        "mix[of=convnet:0.5+mlp]",
        "mix[of=0.5]",
        "mix[of=convnet:0]",
        "mix[of=convnet:-1]",
        "mix[of=convnet:nan]",
        "mix[of=convnet:inf]",
        "main-similar[main=1.2]",
        "main-similar[main=convnet:1.2]",
        "main-similar[main=-0.5]",
        "main-similar[main=0]",
        "main-model[main=nan]",
        "main-similar[warmup=-1]",
        "main-similar[depth=0]",
        "main-similar[preset=as-published]",
        "total-random[of=+]",
    ],
)
def test_what_is_no_mixture_is_refused_when_it_is_typed(name):
    with pytest.raises(UsageError) as refused:
        registry().resolve("pool", name)
    assert "\n" not in str(refused.value)
