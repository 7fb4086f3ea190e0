"""Kernels of infinitely wide networks: golden values, wide finite networks, blocks, names and limits."""

import itertools
import math

import pytest
import torch
from golden_inputs import META_GOLDEN, assert_golden, formula
from torch.nn import functional

from harness import (
    BlockedKernel,
    DDBenchError,
    UsageError,
    centred_one_hot,
    kernel_name,
    kernel_named,
    kernel_regression,
    ridge_predictions,
)

KIP = META_GOLDEN["kip"]
GB = 2**30
NETWORKS = {
    "FC, one hidden layer": "fc",
    "FC, two hidden layers": "fc[depth=2]",
    "ConvNet: conv relu, three times (conv relu avgpool 2), flatten, dense": "conv",
}


def images(number, count):
    return formula(number, (count, 8, 8, 3), -2, 2).permute(0, 3, 1, 2).contiguous()


SUPPORT, TARGET = images(1100, 4), images(1101, 6)


def with_options(name, **options):
    kind, _, more = name.rstrip("]").partition("[")
    return f"{kind}[{','.join(filter(None, [more, *(f'{key}={value}' for key, value in options.items())]))}]"


@pytest.mark.parametrize(("network", "of"), list(itertools.product(NETWORKS, ["nngp", "ntk"])))
@pytest.mark.parametrize("limit", [1, 0.004])
def test_kernels_are_those_of_neural_tangents(network, of, limit):
    golden = KIP[f"{of} of {network}"]
    kernel = BlockedKernel(kernel_named(with_options(NETWORKS[network], of=of)), limit * GB)
    # neural-tangents takes the arc cosine of about 1 on the diagonal, which is noise of 3e-8; ours is exact.
    assert_golden(kernel.matrix(SUPPORT, SUPPORT, own=True), golden["support x support"], 1e-8)
    assert_golden(kernel.matrix(TARGET, SUPPORT), golden["target x support"], 1e-12)


# --- against wide random networks -------------------------------------------------------------------------------------


def dense(weights, maps, act):
    """A layer in the NTK parametrisation with the variances of the kernels' defaults."""
    weight, bias = weights
    return act(math.sqrt(2 / weight.shape[1]) * maps @ weight.T + 0.1 * bias)


def convolution(weights, maps, act):
    weight, bias = weights
    return act(
        math.sqrt(2 / weight[0].numel()) * functional.conv2d(maps, weight, padding=1) + 0.1 * bias[:, None, None]
    )


def fully_connected(layers, batch, act):
    maps = batch.flatten(1)
    for weights in layers[:-1]:
        maps = dense(weights, maps, act)
    return dense(layers[-1], maps, lambda x: x)


def convolutional(head):
    def network(layers, batch, act):
        maps = convolution(layers[0], batch, act)
        for weights in layers[1:-1]:
            maps = functional.avg_pool2d(convolution(weights, maps, act), 2)
        maps = maps.mean((2, 3)) if head == "gap" else maps.flatten(1)
        return dense(layers[-1], maps, lambda x: x)

    return network


CASES = {
    "fc[depth=1,act=relu]": (fully_connected, [(600, 48), (1, 600)], torch.relu),
    "fc[depth=2,act=erf]": (fully_connected, [(400, 48), (400, 400), (1, 400)], torch.erf),
    "conv[depth=1,head=gap]": (
        convolutional("gap"), [(96, 3, 3, 3), (96, 96, 3, 3), (1, 96)], torch.relu,
    ),
    "conv[depth=1,act=erf,head=flatten]": (
        convolutional("flatten"), [(96, 3, 3, 3), (96, 96, 3, 3), (1, 96 * 4)], torch.erf,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_ntk_and_nngp_are_those_of_wide_networks(name):
    """The mean over random networks of products of gradients (NTK) and of outputs (NNGP), within four errors."""
    network, shapes, act = CASES[name]
    batch, generator = formula(3, (3, 3, 4, 4), -2, 2).float(), torch.Generator().manual_seed(0)
    kernels, products = [], []
    for _ in range(60):
        layers = [
            [torch.randn(shape, generator=generator, requires_grad=True) for shape in (weight, weight[:1])]
            for weight in shapes
        ]
        outputs = network(layers, batch, act)[:, 0]
        flat = [weight for layer in layers for weight in layer]
        rows = [
            torch.cat([part.flatten() for part in torch.autograd.grad(output, flat, retain_graph=True)])
            for output in outputs
        ]
        kernels.append(torch.stack(rows) @ torch.stack(rows).T)
        # Without the noise of a single random last layer: its part of the NTK is the NNGP, less the bias's 0.01.
        last = torch.stack(rows)[:, -shapes[-1][1] - 1 : -1]
        products.append(last @ last.T + 0.01)
    same = torch.eye(3, dtype=torch.bool)
    for of, drawn in (("ntk", kernels), ("nngp", products)):
        drawn = torch.stack(drawn).double()
        error = drawn.std(0) / math.sqrt(len(drawn))
        exact = kernel_named(with_options(name, of=of))(batch, batch, same)
        assert bool(((drawn.mean(0) - exact).abs() < 4 * error + 2e-3 * exact.abs()).all()), (of, drawn.mean(0), exact)
        assert float((error / exact.abs().max()).max()) < 0.02, "the estimate itself is good enough to say something"


# --- regression -------------------------------------------------------------------------------------------------------


def targets(count):
    return centred_one_hot(torch.arange(count) % 3, 3).double()


def regression(name="fc", limit=GB, support=SUPPORT, labels=None):
    values = targets(4) if labels is None else labels
    return kernel_regression(BlockedKernel(kernel_named(name), limit), support, values, TARGET, targets(6), 1e-6)


def test_loss_and_gradients_are_kips():
    golden, answer = KIP["loss with the NTK of FC, one hidden layer"], regression()
    assert float(answer.loss) == pytest.approx(golden["loss"], rel=1e-6)
    assert_golden(answer.predictions, golden["predictions"], 1e-6)
    assert_golden(answer.images.permute(0, 2, 3, 1), golden["grad of support images"], 1e-6)
    assert_golden(answer.labels, golden["grad of support labels"], 1e-6)


def test_three_steps_of_adam_are_kips():
    """The notebook counts Adam's steps from 1 where its library expects 0: here as if a step had been taken."""
    golden = KIP["three Adam steps on the support images, lr .04 (steps counted from 1, as in the notebook)"]
    support = SUPPORT.clone().requires_grad_()
    optimizer, losses = torch.optim.Adam([support], lr=0.04), []
    zeros = {kind: torch.zeros_like(support) for kind in ("exp_avg", "exp_avg_sq")}
    optimizer.state[support] = {"step": torch.tensor(1.0), **zeros}
    for _ in range(3):
        answer = regression(support=support.detach())
        losses.append(float(answer.loss))
        support.grad = answer.images
        optimizer.step()
    assert losses == pytest.approx(golden["losses before"], rel=1e-6)
    assert_golden(support.permute(0, 2, 3, 1), golden["images"], 1e-5)


@pytest.mark.parametrize("name", ["fc[depth=2,act=erf]", "fc[of=nngp]", "conv[depth=1,head=gap]", "conv[of=nngp]"])
def test_gradients_are_those_of_finite_differences(name):
    answer, labels, size = regression(name), targets(4), 1e-4
    for place in [(0, 0, 3, 3), (2, 1, 0, 7), (3, 2, 4, 4)]:
        bump = torch.zeros_like(SUPPORT)
        bump[place] = size
        up, down = (float(regression(name, support=SUPPORT + sign * bump).loss) for sign in (1, -1))
        assert float(answer.images[place]) == pytest.approx((up - down) / (2 * size), rel=1e-4, abs=1e-9)
    bump = torch.zeros_like(labels)
    bump[1, 2] = size
    up, down = (float(regression(name, labels=labels + sign * bump).loss) for sign in (1, -1))
    assert float(answer.labels[1, 2]) == pytest.approx((up - down) / (2 * size), rel=1e-6)


@pytest.mark.parametrize(("name", "limit"), [("fc", 400), ("fc", 1300), ("conv", 3e6)])
def test_blocks_change_nothing(name, limit):
    whole, blocks = regression(name), regression(name, limit)
    for first, second in zip(whole, blocks, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("name", ["fc", "conv[depth=1]"])
def test_images_predict_themselves_and_a_copy_has_a_finite_gradient(name):
    kernel = BlockedKernel(kernel_named(name), GB)
    answer = kernel_regression(
        kernel, SUPPORT, targets(4), torch.cat([SUPPORT, SUPPORT]), targets(4).repeat(2, 1), 1e-9
    )
    assert float(answer.loss) == pytest.approx(0, abs=1e-9)
    assert bool(torch.isfinite(answer.images).all())


def test_the_ridge_is_relative_to_the_trace():
    own, cross = torch.diag(torch.tensor([1.0, 3.0])), torch.tensor([[1.0, 0.0], [0.0, 3.0]])
    predicted = ridge_predictions(cross, own, torch.eye(2), 0.5)
    torch.testing.assert_close(predicted, torch.diag(torch.tensor([1 / 2, 3 / 4])).double())


def test_a_kernel_of_nothing_says_so():
    with pytest.raises(DDBenchError, match=r"not positive definite .* use a lower rate"):
        ridge_predictions(torch.zeros(1, 2), torch.zeros(2, 2), torch.eye(2), 1e-6)


# --- names and limits -------------------------------------------------------------------------------------------------


def test_the_shortest_name_is_the_key():
    assert kernel_name("fc[depth=1,of=ntk,act=erf]") == "fc[act=erf]"
    assert kernel_name("conv[depth=3]") == "conv"
    assert kernel_named("conv").options.weight == 2


@pytest.mark.parametrize(
    ("name", "message"),
    [("fcc", "there is no kernel 'fcc'.*fc"), ("fc[dept=2]", "no option 'dept'.*depth"), ("fc[act=tanh]", "act=tanh")],
)
def test_a_wrong_name_is_refused(name, message):
    with pytest.raises(UsageError, match=message):
        kernel_named(name)


def test_large_images_are_refused_with_the_number():
    large = torch.zeros(1, 3, 32, 32)
    with pytest.raises(UsageError, match=r"8\.0 MB for a pair of 32x32 images, .* use kernel=fc"):
        BlockedKernel(kernel_named("conv"), 100 * GB).matrix(large, large)
    with pytest.raises(UsageError, match="halves images 4 times, for which 8x8 is too small"):
        BlockedKernel(kernel_named("conv[depth=4]"), GB).matrix(SUPPORT, SUPPORT)


def test_too_little_memory_is_refused():
    with pytest.raises(UsageError, match=r"a pair of 8x8 images takes about 3 MB of this kernel, more than memory=1:"):
        BlockedKernel(kernel_named("conv"), 2**20).matrix(SUPPORT, SUPPORT)
